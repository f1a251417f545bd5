"""The parts that the trainer of the embedded models trains: what they learn, read and write."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from unitune.metrics.clip import image_features, load_clip, text_features
from unitune.metrics.judge import load_judge
from unitune.models.pocket import FOLDER as POCKET
from unitune.scenes.scene import Object, Scene
from unitune_lab import networks, optimizers, watch
from unitune_lab.batches import NOUN, Batch, SceneBatches, facts, pixels
from unitune_lab.make import build as build_part
from unitune_lab.make import go_on
from unitune_lab.options import read
from unitune_lab.parts import Part
from unitune_lab.parts.clip import ClipPart
from unitune_lab.parts.judge import JudgePart
from unitune_lab.parts.stage import StagePart
from unitune_lab.parts.text import TextPart, embed

CPU = torch.device("cpu")
TEXT = POCKET / "base"
TINY = [32, 32, 32, 32]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def first_stage(**options: float) -> StagePart:
    return StagePart(TEXT, CPU, super_resolution=False, channels=TINY, **options)


def second_stage(crops: int) -> StagePart:
    shape = {"channels": TINY, "weighting": "min_snr", "crops": crops}
    return StagePart(TEXT, CPU, super_resolution=True, **shape)


def batch_for(part: Part, count: int) -> Batch:
    size, captions = part.size, part.captions
    return SceneBatches(seed=0, batch_size=count, size=size, captions=captions).batch(0)


def network(part: Part) -> nn.ModuleDict:
    assert isinstance(part.network, nn.ModuleDict)
    return part.network


def keys_on_disk(folder: Path) -> set[str]:
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            found |= set(weights.keys())
    return found


@pytest.mark.parametrize(
    ("build", "count", "resolution"),
    [
        (lambda: TextPart(networks.tokenizer(), CPU), 8, 64),
        (lambda: first_stage(auxiliary=0.1, objects=3.0), 2, 16),
        (lambda: first_stage(auxiliary=0.1), 2, 32),
        (lambda: second_stage(crops=2), 2, 32),
        (lambda: JudgePart(CPU), 8, 64),
        (lambda: ClipPart(TEXT, CPU), 8, 64),
    ],
    ids=["text", "base16", "base32", "sr256", "judge", "clip"],
)
def test_a_part_learns_one_batch(build: Callable[[], Part], count: int, resolution: int):
    part = build()
    part.network.train()
    batch, losses = batch_for(part, count), []
    optimizer = optimizers.build("adamw", part.network, weight_decay=0.0)
    for _ in range(8):
        loss = part.loss(batch, resolution, seed=3)
        loss.backward()
        optimizer.step(2e-3)
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0] and np.mean(losses[4:]) < np.mean(losses[:4])


@pytest.mark.parametrize("objects", [1.0, 3.0])
def test_the_loss_of_a_stage_is_the_mean_square_weighed_by_objects(objects: float):
    part, plain = first_stage(objects=objects), first_stage()
    plain.network.load_state_dict(part.network.state_dict())
    batch = batch_for(part, 4)
    asked = plain.noised(batch, 32, noise=torch.Generator().manual_seed(7))
    v, _ = plain.output(plain.network, asked["x"], asked["t"], asked["text"], None)
    square = (v - asked["v"]).square()
    assert batch.objects is not None
    inside = batch.objects[:, 1::2, 1::2] > 0  # the middle of each cell of 2 x 2
    weight = torch.where(inside, objects, 1.0)[:, None].expand_as(square)
    expected = square.mean() if objects == 1 else (square * weight).sum() / weight.sum()
    assert 0.05 < inside.float().mean() < 0.6
    torch.testing.assert_close(part.loss(batch, 32, seed=7), expected)


def test_the_head_learns_nouns_and_is_not_written(tmp_path: Path):
    part = first_stage(auxiliary=0.1)
    net, batch = network(part), batch_for(part, 2)
    part.loss(batch, 16, seed=0).backward()
    head = net["head"]
    assert isinstance(head, nn.Conv2d) and head.weight.grad is not None
    assert float(head.weight.grad.abs().sum()) > 0
    net.eval()
    asked = part.noised(batch, 16, noise=torch.Generator().manual_seed(0))
    assert part.output(net, asked["x"], asked["t"], asked["text"], None)[1] is None
    part.export(net, tmp_path)
    unet, told = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    own = net["unet"].state_dict()
    assert keys_on_disk(tmp_path) == own.keys() == unet.state_dict().keys()
    for name, value in unet.state_dict().items():
        assert torch.equal(value.half(), own[name].half()), name
    assert all(p.dtype == torch.float32 for p in net.parameters())  # the copy alone is rounded


def test_crops_of_picture_low_resolution_and_objects_are_of_one_place():
    part = second_stage(crops=3)
    place = torch.arange(2 * 256 * 256).float().reshape(2, 1, 256, 256)
    x_0, low, objects = place.expand(-1, 3, -1, -1), place + 0.5, place[:, 0]
    noise = torch.Generator().manual_seed(0)
    captions = ["a", "b"]
    cut = part._crop(x_0, low, objects, captions, 64, noise)
    assert [tuple(x.shape) for x in cut[:3]] == [(6, 3, 64, 64), (6, 1, 64, 64), (6, 64, 64)]
    assert torch.equal(cut[0][:, 0], cut[2]) and torch.equal(cut[1][:, 0], cut[2] + 0.5)
    assert torch.equal(cut[2].flatten(1).amin(1) // 256**2, torch.tensor([0, 0, 0, 1, 1, 1.0]))
    assert len(cut[2][:, 0, 0].unique()) == 6
    assert cut[3] == ["a", "a", "a", "b", "b", "b"]


def test_an_untrained_second_stage_answers_its_low_resolution_picture():
    part = second_stage(crops=1)
    image = batch_for(part, 2).image
    assert image is not None
    low = torch.nn.functional.avg_pool2d(pixels(image, CPU), 4)
    t, level, text = torch.tensor([900, 300]), torch.tensor([100, 500]), part.embed(["", ""])
    with torch.no_grad():
        x = torch.cat([torch.randn_like(low), low], dim=1)
        v, _ = part.output(part.network, x, t, text, level)
    assert (v + low).square().mean() < 0.01 * low.square().mean()


def test_the_watched_error_is_that_of_x_0(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "UNSEEN", 8)
    part = first_stage()
    part.network.eval()
    real = watch.errors(part, part.network, resolution=16)
    assert real == watch.errors(part, part.network, resolution=16)
    given: list[Tensor] = []
    noised = part.noised

    def remember(*arguments: object, **options: object) -> dict:
        asked = noised(*arguments, **options)
        given.append(asked["v"])
        return asked

    monkeypatch.setattr(part, "noised", remember)
    monkeypatch.setattr(part, "output", lambda *_: (given[-1], None))
    assert set(watch.errors(part, part.network, resolution=16).values()) == {0.0}
    # An answer off by the root of SNR + 1 is an estimate of x_0 that is off by 1.
    monkeypatch.setattr(part, "output", lambda _, x, t, *__: (given[-1] + off(t), None))

    def off(t: Tensor) -> Tensor:
        return (1 + part.schedule.snr(t)).sqrt().float()[:, None, None, None]

    found = watch.errors(part, part.network, resolution=16)
    assert list(found.values()) == pytest.approx([1.0] * 5, rel=1e-4)


def test_muon_does_not_mind_the_order_of_memory():
    plain = nn.Sequential(nn.Conv2d(16, 24, 3), nn.Conv2d(24, 16, 1), nn.Linear(16, 12))
    other: nn.Sequential = copy.deepcopy(plain)
    other.to(memory_format=torch.channels_last)
    assert not next(other.parameters()).is_contiguous()
    before = copy.deepcopy(plain.state_dict())
    both = [optimizers.build("muon", net, weight_decay=0.01) for net in (plain, other)]
    for _ in range(3):
        for a, b in zip(plain.parameters(), other.parameters(), strict=True):
            a.grad = torch.randn_like(a).contiguous()
            # torch leaves a gradient in either order.
            b.grad = a.grad.clone() if torch.rand(()) < 0.5 else torch.empty_like(b).copy_(a.grad)
        for optimizer in both:
            optimizer.step(0.02)
    for name, value in other.state_dict().items():
        moved, apart = plain.state_dict()[name] - before[name], plain.state_dict()[name] - value
        assert moved.norm() > 0.01, name
        assert apart.norm() < 0.01 * moved.norm(), name  # Newton-Schulz runs in bfloat16
    assert all(p.grad is None for p in [*plain.parameters(), *other.parameters()])


def test_the_learning_rate_rises_and_falls():
    options = {"warmup": 10, "cooldown": 100}
    rates = [optimizers.rate(1.0, step=k, left=500, **options) for k in (0, 4, 9, 50)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert optimizers.rate(1.0, step=50, left=25, **options) == pytest.approx(0.25)
    assert optimizers.rate(1.0, step=50, left=25, warmup=0, cooldown=0) == 1.0


@pytest.mark.parametrize("source", ["shipped", "shuffled"])
def test_a_start_of_the_text_encoder_keeps_what_captions_mean(source: str, tmp_path: Path):
    folder = TEXT
    if source == "shuffled":  # the rows stand elsewhere, and there is a word more
        folder, words = tmp_path / "start", networks.vocabulary()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(networks, "vocabulary", lambda: [*words[::-1], "zebra"])
            earlier = TextPart(networks.tokenizer(), CPU)
        earlier.export(earlier.network, folder)
    old = T5Tokenizer.from_pretrained(folder / "tokenizer")
    encoder = T5EncoderModel.from_pretrained(folder / "text_encoder").float().eval()
    part = TextPart(networks.tokenizer(), CPU)
    go_on("text", part, folder)
    captions = [*SceneBatches(seed=0, batch_size=48, size=None, captions="plain").batch(0).captions]
    captions += ["", "beikkpic", "A CAT, a dog."]
    if source == "shuffled":
        assert part.tokenizer.get_vocab()["▁cat"] != old.get_vocab()["▁cat"]
    expected = embed(old, encoder, captions)
    now = embed(part.tokenizer, network(part)["encoder"], captions)
    torch.testing.assert_close(now, expected, rtol=1e-3, atol=1e-3)
    part.export(part.network, tmp_path)
    written = T5EncoderModel.from_pretrained(tmp_path / "text_encoder").eval()
    assert written.dtype == torch.float32
    again = embed(T5Tokenizer.from_pretrained(tmp_path / "tokenizer"), written, captions)
    torch.testing.assert_close(again, expected, rtol=1e-3, atol=1e-3)
    moved = (expected[1:48] - expected[:47]).square().mean().sqrt()
    assert moved > 0.05  # captions differ by far more than the tolerance


def test_a_start_takes_the_weights_over_and_knows_the_earlier_training(tmp_path: Path):
    earlier = {"samples": 8, "minutes": 1.0, "before": {}}
    for name, build in (
        ("base", lambda: first_stage(auxiliary=0.1)),
        ("sr256", lambda: second_stage(crops=1)),
        ("judge", lambda: JudgePart(CPU)),
        ("clip", lambda: ClipPart(TEXT, CPU)),
    ):
        trained, fresh = build(), build()
        trained.export(trained.network, tmp_path / name / "export")
        (tmp_path / name / "done.json").write_text(json.dumps(earlier))
        assert go_on(name, fresh, tmp_path) == earlier
        given, own = trained.network.state_dict(), fresh.network.state_dict()
        heads = {key for key in own if key.startswith("head.") and name == "base"}
        assert all(torch.equal(own[k], given[k].half().to(own[k])) for k in own.keys() - heads)
        assert all(not torch.equal(own[key], given[key]) for key in heads)


def test_a_start_lends_its_text_encoder_and_its_judge(tmp_path: Path):
    options = read("base", [f"start={POCKET}", f"folder={tmp_path}", "device=cpu"])
    stage: Any = build_part("base", options)
    assert len(stage.tokenizer) == len(networks.tokenizer())
    assert stage.judge is not None, "the judge of the start reads the samples"


def test_scoring_parts_are_written_as_the_package_reads_them(tmp_path: Path):
    judge, clip = JudgePart(CPU), ClipPart(TEXT, CPU)
    for part in (judge, clip):
        part.network.train()
        part.loss(batch_for(part, 4), 64, seed=0)
        part.export(part.network, tmp_path / type(part).__name__)
    loaded = load_judge(tmp_path / "JudgePart")
    own = judge.network.eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        for name, logits in own(x).items():
            torch.testing.assert_close(loaded(x)[name], logits, rtol=2e-2, atol=2e-2)
    towers, texts = load_clip(tmp_path / "ClipPart"), ["a cat on a beach", "a red dog"]
    mine: Any = clip.network.eval()
    with torch.no_grad():
        for read, own in (
            (image_features(towers, x), mine.encode_image(x)),
            (text_features(towers, texts), mine.encode_text(clip.ids(texts))),
        ):
            unit = nn.functional.normalize(own, dim=-1)
            torch.testing.assert_close(read, unit, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("part", ["judge", "clip"])
def test_a_resumed_training_exports_the_statistics_of_one_that_was_not(part, tmp_path) -> None:
    def scoring() -> Any:
        return JudgePart(CPU) if part == "judge" else ClipPart(TEXT, CPU)

    trained, resumed = scoring(), scoring()
    for k in range(2):  # the pictures that a training has just seen must not matter
        trained.loss(batch_for(trained, 4), 64, seed=k)
    resumed.network.load_state_dict(trained.network.state_dict())
    for name, one in (("trained", trained), ("resumed", resumed)):
        one.export(copy.deepcopy(one.network), tmp_path / name)
    weights = "model.safetensors" if part == "judge" else "open_clip_model.safetensors"
    first, second = (tmp_path / name / weights for name in ("trained", "resumed"))
    assert first.read_bytes() == second.read_bytes()


def test_a_nouns_state_is_asked_on_which_side_its_object_stands():
    part = TextPart(networks.tokenizer(), CPU)
    pair = (Object("cat", 0.25, 0.9, 0.4), Object("dog", 0.75, 0.9, 0.4))
    scenes = [Scene("city", "day", pair), Scene("city", "day", (Object("cat", 0.5, 0.9, 0.6),))]
    captions = ["a puppy right of a kitten in a city", "a cat in a city"]
    ids = part.tokenizer(captions, padding=True, return_tensors="pt").input_ids
    states = torch.zeros(*ids.shape, networks.TEXT_WIDTH)
    told, side = part.sides(states, ids, facts(scenes)["side"])
    assert side.tolist() == [1.0, 0.0], "the puppy, then the kitten; in the middle is no side"
    assert told.shape == (2,)
    named = part.nouns[ids[0]]
    assert named[named >= 0].tolist() == [NOUN["dog"], NOUN["cat"]]
    assert not (part.nouns[part.tokenizer("in the snow at night").input_ids] >= 0).any()
