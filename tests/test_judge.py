import os
from pathlib import Path

import pytest
import torch

from unitune.metrics.clip import Clip, Pocket, build_clip, image_features, load_clip, save_clip, text_features
from unitune.metrics.judge import Judge, found, load_judge, reduced, save_judge, shared_judge
from unitune.metrics.similarity import Alignment
from unitune.pretrain import networks
from unitune.pretrain.data import SceneBatches
from unitune.pretrain.scoring import ClipTask, JudgeTask, augment, evaluate_clip, evaluate_judge
from unitune.scenes import Object, Scene, render
from unitune.types import Edit, Example, Refused, Request

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    networks.tokenizer().save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("judge")
    save_judge(Judge(), folder)
    return folder


@pytest.fixture
def judge(judge_folder: Path) -> Judge:
    return load_judge(judge_folder)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    save_clip(build_clip(networks.tokenizer()), folder)
    return folder


@pytest.fixture
def clip(clip_folder: Path) -> Clip:
    return load_clip(clip_folder)


def pictures(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count)) * 2 - 1


def edits_of(images: torch.Tensor, requests: list[Request]) -> list[Edit]:
    example = Example("one", images[:1], tuple(requests))
    return [Edit(example, r, 0, 4.0, 0.9, r.prompt, image[None]) for image, r in zip(images, requests, strict=True)]


def size_of(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_networks_are_small_enough_to_ship(judge: Judge, clip: Clip):
    assert size_of(judge) <= 740_000
    assert size_of(clip.network) <= 740_000


def test_area_reduction_is_the_reduction_of_the_renderer():
    scene = Scene("beach", "day", (Object("cat", 0.5, 0.9, 0.5),))
    large, small = (torch.from_numpy(render(scene, s)[0].copy()).permute(2, 0, 1)[None].float() for s in (256, 64))
    assert (reduced(large, 64) - small).abs().max() <= 0.51  # rounding to uint8


def test_the_judge_reads_any_size(judge: Judge):
    large = pictures(2, 128)
    for a, b in zip(judge(large).values(), judge(reduced(large, 64)).values(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_saved_judge_reads_as_before(tmp_path: Path):
    torch.manual_seed(1)
    judge = Judge().eval()
    save_judge(judge, tmp_path)
    (tmp_path / "card.json").write_text('{"place": 0.98765}')
    again = load_judge(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size <= 1.5e6
    assert again.card == {"place": "0.988"} and again.vocabulary == judge.vocabulary
    assert next(again.parameters()).dtype == torch.float32
    for a, b in zip(again(pictures(2)).values(), judge(pictures(2)).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_a_shared_judge_is_loaded_once_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (folder := tmp_path / "judge").mkdir()
    save_judge(Judge(), folder)
    monkeypatch.chdir(tmp_path)
    first = shared_judge(folder)
    assert shared_judge(str(folder)) is shared_judge("judge") is first and load_judge(folder) is not first
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert shared_judge(folder) is not first


def test_missing_folders_are_refused(tmp_path: Path):
    with pytest.raises(Refused, match="no judge"):
        load_judge(tmp_path)
    with pytest.raises(Refused, match="no judge"):
        shared_judge(tmp_path)
    with pytest.raises(Refused, match="no CLIP"):
        load_clip(tmp_path)


def test_an_order_is_found_when_each_noun_stands_further_right_than_the_one_before():
    seen = {"nouns": {"cat", "dog"}, "colours": {"red"}, "place": "beach", "time": "day", "style": "plain", "count": 2, "right": {"cat": -2.0, "dog": 1.5}}
    assert found({"nouns": ["cat", "dog"], "order": ["cat", "dog"], "colours": ["red"]}, seen)
    assert not found({"order": ["dog", "cat"]}, seen)
    assert not found({"order": ["cat", "cat"]}, seen)
    assert not found({"order": ["cat", "dog"], "colours": ["blue"]}, seen)


def test_a_saved_clip_scores_as_before_and_loads_in_stock_open_clip(tmp_path: Path):
    import open_clip

    torch.manual_seed(1)
    clip = build_clip(networks.tokenizer())
    clip.network.eval()
    save_clip(clip, tmp_path)
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size <= 1.5e6
    again, texts = load_clip(tmp_path), ["a cat in the snow", "A Dog at night "]
    torch.testing.assert_close(image_features(again, pictures(2)), image_features(clip, pictures(2)), rtol=0.02, atol=0.02)
    stock = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(texts)
    with torch.no_grad():
        torch.testing.assert_close(stock.encode_text(ids, normalize=True), text_features(again, texts))
        torch.testing.assert_close(stock.encode_image(pictures(2), normalize=True), image_features(again, pictures(2)))


def test_alignment_is_the_cosine_with_the_prompt(clip: Clip, clip_folder: Path):
    images, prompts = pictures(2, 128), ["A cat in the snow ", "a dog at night"]
    values = Alignment(Pocket(clip_folder))(edits_of(images, [Request(p) for p in prompts]))
    expected = (image_features(clip, images) * text_features(clip, ["a cat in the snow", "a dog at night"])).sum(dim=1)
    assert values == pytest.approx(expected.tolist(), abs=1e-6)
    assert all(-1 <= v <= 1 for v in values)
    assert Alignment(Pocket(clip_folder))([]) == []


def test_word_order_and_every_word_matter_to_the_text_tower(clip: Clip):
    a, b, c = text_features(clip, ["a cat in the snow", "the snow in a cat", "a cat in the"])
    assert (a - b).abs().max() > 1e-3 and (a - c).abs().max() > 1e-3


def test_texts_are_encoded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch):
    first = text_features(clip, ["a pizza", "a crown", "a pizza"])
    assert torch.equal(first[0], first[2])
    monkeypatch.setattr(clip.network, "encode_text", None)
    assert torch.equal(text_features(clip, ["a crown", "a pizza"]), first[[1, 0]])


def test_augmentation_stays_in_range_and_near_the_picture():
    x = pictures(16)
    y = augment(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape and y.abs().max() <= 1
    assert 0.01 < (y - x).square().mean() < 0.2
    assert torch.equal(y, augment(x, torch.Generator().manual_seed(0)))


def test_rare_words_and_empty_captions_do_not_reach_the_clip(text_folder: Path):
    task = ClipTask(CPU, text_folder=text_folder)
    assert task.clean("qzxv a cat, a dog and a bird in the snow, pixel art") == "a cat, a dog and a bird in the snow, pixel art"
    assert task.clean("qzxvw") == "" and task.clean("") == ""


@pytest.mark.parametrize("part", ["judge", "clip"])
def test_a_task_learns_one_batch_and_exports(part: str, text_folder: Path, tmp_path: Path):
    torch.manual_seed(0)
    task = JudgeTask(CPU) if part == "judge" else ClipTask(CPU, text_folder=text_folder)
    batch = SceneBatches(seed=0, batch_size=16, size=64).batch(0)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = task.loss(batch, 64)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    task.export(tmp_path)
    assert task.network.training
    loaded = load_judge(tmp_path) if part == "judge" else load_clip(tmp_path).network
    assert all(not module.training for module in loaded.modules())


def test_evaluations_are_shares_and_repeat(judge: Judge, clip: Clip):
    a, b = (evaluate_judge(judge, count=32, seed=3) for _ in range(2))
    assert a == b and all(0 <= v <= 1 for v in a.values())
    assert set(a) == {"nouns_exact", "noun_single", "colours", "side", "place", "time", "style", "count"}
    shares = evaluate_clip(clip, count=32, seed=3)
    assert set(shares) == {"caption_of_16", "noun"} and all(0 <= v <= 1 for v in shares.values())


def test_a_perfect_judge_is_measured_as_perfect(judge: Judge, monkeypatch: pytest.MonkeyPatch):
    # heads replaced by the truth: the evaluation itself must not lose a point
    stream = SceneBatches(seed=3, batch_size=32, size=64, held_out=True)
    batch = stream.batch(0)
    one_hot = {n: torch.nn.functional.one_hot(getattr(batch, n), c).float() for n, c in (("place", 10), ("time", 3), ("style", 5), ("count", 4))}
    truth = {"nouns": batch.nouns * 2 - 1, "colours": batch.colours.amax(dim=1) * 2 - 1, "side": batch.side * 2 - 1}
    monkeypatch.setattr(judge, "forward", lambda image: {**truth, **one_hot})
    assert set(evaluate_judge(judge, count=32, seed=3).values()) == {1.0}
    assert (batch.nouns.sum(dim=1) <= batch.count + 1).all()  # fewer nouns than objects where several are alike
