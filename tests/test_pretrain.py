import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import T5Tokenizer

from unitune.pocket import FOLDER as POCKET
from unitune.pretrain import networks
from unitune.pretrain.data import COLOUR, NOUN, SceneBatches, facts
from unitune.pretrain.main import assemble, run, train_part
from unitune.pretrain.tasks import DenoiseTask, TextTask
from unitune.pretrain.train import Phase, Watch, train
from unitune.pretrain.warm import warm_start
from unitune.pretrain.watch import held_out_error, watch
from unitune.scenes import Object, Scene, is_held_out
from unitune.types import Refused

CPU = torch.device("cpu")
OPTIONS = {"before": {}, "lr": 1e-3, "seed": 3, "ema_decay": 0.9, "minutes": 60.0, "workers": 0}


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=64, in_channels=3, out_channels=6, block_out_channels=(8, 16), layers_per_block=1, down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2, mid_block_type="UNetMidBlock2DSimpleCrossAttn", attention_head_dim=8, cross_attention_dim=16,
        encoder_hid_dim=networks.TEXT_WIDTH, encoder_hid_dim_type="text_proj", norm_num_groups=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text")
    TextTask(CPU).export(folder)
    return folder


def denoiser(text_folder: Path) -> DenoiseTask:
    return DenoiseTask(CPU, network=tiny_unet(), text_folder=text_folder, low_resolution=False)


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(text_folder: Path, tmp_path: Path):
    phases = [Phase(16, 4, 16), Phase(32, 2, 8)]
    whole = denoiser(text_folder)
    train(whole, phases, tmp_path / "whole", **OPTIONS)
    first = denoiser(text_folder)
    train(first, [Phase(16, 4, 12)], tmp_path / "parts", **OPTIONS)
    second = denoiser(text_folder)
    done = train(second, phases, tmp_path / "parts", **OPTIONS)
    assert (done["step"], done["samples"]) == (8, 24)
    for (name, a), b in zip(whole.network.state_dict().items(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    exported = [UNet2DConditionModel.from_pretrained(tmp_path / run / "export").state_dict() for run in ("whole", "parts")]
    assert all(torch.equal(a, b) for a, b in zip(exported[0].values(), exported[1].values(), strict=True))  # the mean weights too
    assert any(not torch.equal(a, b.half().float()) for a, b in zip(exported[0].values(), second.network.state_dict().values(), strict=True))


def test_training_goes_on_from_the_shipped_mean_weights_with_a_fresh_optimiser(tmp_path: Path):
    network = networks.base_unet()
    before = warm_start(network, "base", POCKET, None)
    shipped = UNet2DConditionModel.from_pretrained(POCKET / "base" / "unet").state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in network.state_dict().items())
    assert before == json.loads((POCKET / "training.json").read_text())["base"]
    task = DenoiseTask(CPU, network=network, text_folder=POCKET / "base", low_resolution=False)
    done = train(task, [Phase(16, 2, 2)], tmp_path / "base", **(OPTIONS | {"before": before}))
    assert done["before"] == before
    assert done["samples"] == 2


def test_embeddings_go_on_word_by_word_when_the_vocabulary_has_grown(tmp_path: Path):
    old = T5Tokenizer.from_pretrained(POCKET / "base" / "tokenizer")
    tokenizer = T5Tokenizer(vocab=[*((piece, 0.0) for piece in ("<pad>", "</s>", "<unk>", "▁unheard", "▁cat", "▁dog"))], extra_ids=0)
    task = TextTask(CPU)
    fresh = task.network["encoder"].shared.weight.clone()
    warm_start(task.network, "text", POCKET, tokenizer)
    now = task.network["encoder"].shared.weight
    shipped = load_file(POCKET / "base" / "text_encoder" / "model.safetensors")["shared.weight"].float()
    for piece, index in tokenizer.get_vocab().items():
        expected = fresh[index] if piece == "▁unheard" else shipped[old.convert_tokens_to_ids(piece)]
        assert torch.equal(now[index], expected), piece
    with pytest.raises(Refused, match="start=fresh"):
        warm_start(task.network, "text", tmp_path, tokenizer)


@pytest.mark.parametrize(("part", "start", "said"), [("base", "old", "fresh, shipped"), ("bass", "fresh", "assemble or card")])
def test_an_unknown_part_and_an_unknown_start_are_refused(part: str, start: str, said: str, tmp_path: Path):
    with pytest.raises(Refused, match=said):
        run(part, parts={}, start=start, minutes=1, folder=tmp_path, text_encoder=tmp_path, seed=0, device="cpu", workers=0)


def test_assembling_replaces_what_was_trained_and_counts_from_the_first_training(tmp_path: Path):
    trained, pocket = tmp_path / "trained", tmp_path / "pocket"
    for folder, content in ((trained / "judge" / "export", "new"), (pocket / "judge", "old"), (pocket / "clip", "old")):
        folder.mkdir(parents=True)
        (folder / "weights").write_text(content)
    earlier = {"samples": 100, "minutes": 1.0, "before": {}}
    (pocket / "training.json").write_text(json.dumps({"judge": earlier, "clip": earlier}))
    looks = [{"part": part, "samples": 90, "error": 1.0} for part in ("judge", "clip")]
    (pocket / "training_curve.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    (trained / "judge" / "done.json").write_text(json.dumps({"samples": 8, "minutes": 1.0, "before": earlier}))
    (trained / "judge" / "curve.jsonl").write_text(json.dumps({"samples": 5, "error": 0.5}) + "\n")
    for _ in range(2):  # a second time changes nothing
        assemble(trained, pocket, machine_name="a machine")
        assert [(pocket / part / "weights").read_text() for part in ("judge", "clip")] == ["new", "old"]
        known = json.loads((pocket / "training.json").read_text())
        assert known["clip"] == earlier
        assert (known["judge"]["samples"], known["judge"]["before"]) == (8, earlier)
        seen = [json.loads(line) for line in (pocket / "training_curve.jsonl").read_text().splitlines()]
        assert sorted((look["part"], look["samples"]) for look in seen) == [("clip", 90), ("judge", 90), ("judge", 105)]


def test_a_missing_text_encoder_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match="part=text"):
        train_part("base", lr=1e-3, ema_decay=0.9, phases=[], start="fresh", minutes=1, folder=tmp_path, text_encoder=tmp_path, seed=0, device="cpu", workers=0)


def test_the_super_resolution_network_starts_as_a_copy_of_its_low_resolution_picture():
    torch.manual_seed(1)
    unet = networks.sr_unet()
    low = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8) * 2 - 1, (64, 64), mode="bilinear")
    with torch.no_grad():
        out = unet(torch.cat([torch.randn(2, 3, 64, 64), low], dim=1), torch.tensor([900, 300]), torch.randn(2, 77, 128), class_labels=torch.tensor([100, 500]))
    assert (out.sample[:, :3] + low).square().mean() < 0.01 * low.square().mean()


def test_facts_name_colours_by_noun_and_sides_only_where_they_are_clear():
    objects = (Object("cat", 0.25, 0.9, 0.3, colour="red"), Object("dog", 0.75, 0.9, 0.3), Object("car", 0.5, 0.9, 0.3))
    row = {name: value[0] for name, value in facts([Scene("beach", "day", objects)]).items()}
    assert row["colours"].nonzero().tolist() == [[NOUN["cat"], COLOUR["red"]]]
    assert [float(row["side"][NOUN[noun]]) for noun in ("cat", "dog", "car", "bus")] == [0, 1, -1, -1]
    twins = tuple(Object("cat", x, 0.9, 0.3) for x in (0.2, 0.8))
    assert float(facts([Scene("beach", "day", twins)])["side"][0, NOUN["cat"]]) == -1


def test_streams_give_item_k_again_and_keep_to_their_side_of_the_split():
    stream = SceneBatches(seed=5, batch_size=4, size=None)
    assert stream.batch(7).captions == stream.batch(7).captions != stream.batch(8).captions
    drawn = []

    def spy(scenes: list[Scene]) -> dict:
        drawn.extend(scenes)
        return facts(scenes)

    for held_out in (False, True):
        drawn.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unitune.pretrain.data.facts", spy)
            SceneBatches(seed=5, batch_size=32, size=None, held_out=held_out).batch(0)
        assert {is_held_out(scene) for scene in drawn} == {held_out}


def test_one_can_watch_a_stage_train(text_folder: Path, tmp_path: Path):
    task = denoiser(text_folder)
    seen = []
    train(task, [Phase(16, 2, 4)], tmp_path, watch=Watch(lambda done, resolution: seen.append((done["samples"], resolution)), minutes=0.0), **OPTIONS)
    assert seen == [(4, 16)]
    again = [held_out_error(task, resolution=16, count=4) for _ in range(2)]
    assert again[0] == again[1] > 0
    (tmp_path / "look").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unitune.pretrain.watch.STEPS", 2)
        patch.setattr("unitune.pretrain.watch.UNSEEN", 2)
        watch(task, {"samples": 4, "minutes": 0.1}, folder=tmp_path / "look", resolution=16, judge=tmp_path / "none")
    assert '"resolution": 16' in (tmp_path / "look" / "curve.jsonl").read_text()
    assert (tmp_path / "look" / "samples.png").stat().st_size > 1000
    assert task.network.training


def test_the_held_out_error_is_the_error_of_x_0(text_folder: Path):
    """A network that answers v of the true picture has error 0; one that answers 0 has the error alpha_bar-weighted mean of its x_0."""
    task = denoiser(text_folder)
    batch = SceneBatches(seed=1, batch_size=2, size=64, held_out=True).batch(0)
    t = torch.tensor([200, 800])
    truth: list[torch.Tensor] = []

    def answer(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, level: torch.Tensor | None = None) -> torch.Tensor:
        truth.append(x)
        return torch.zeros_like(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "output", answer)
        error = task.error(batch, 64, t=t, noise=torch.Generator().manual_seed(0))
    x_0 = torch.from_numpy(np.asarray(batch.image)).float() / 127.5 - 1
    a = task.schedule.at(t).float()
    eps = (truth[0] - a.sqrt() * x_0) / (1 - a).sqrt()
    v = a.sqrt() * eps - (1 - a).sqrt() * x_0
    torch.testing.assert_close(error, v.square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4)
