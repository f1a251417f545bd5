import os
from pathlib import Path

import pytest
import torch

from unitune.metrics.clip import Clip, PocketClip, image_features, load_clip, text_features
from unitune.metrics.judge import (
    Judge,
    found,
    load_judge,
    read_card,
    reduced,
    save_judge,
    shared_judge,
)
from unitune.metrics.similarity import Alignment
from unitune.scenes import Object, Scene, render
from unitune.types import Edit, Example, Refused, Request
from unitune_lab import networks
from unitune_lab.batches import SceneBatches
from unitune_lab.parts.judge import accuracies, augment
from unitune_lab.towers import build_towers, save_towers


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
    save_towers(build_towers(networks.tokenizer()), networks.tokenizer(), folder)
    return folder


@pytest.fixture
def clip(clip_folder: Path) -> Clip:
    return load_clip(clip_folder)


def pictures(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count)) * 2 - 1


def edits_of(images: torch.Tensor, requests: list[Request]) -> list[Edit]:
    example = Example("one", images[:1], tuple(requests))
    return [
        Edit(example, r, 0, 4.0, 0.9, r.prompt, image[None])
        for image, r in zip(images, requests, strict=True)
    ]


def size_of(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_networks_are_small_enough_to_ship(judge: Judge, clip: Clip):
    assert size_of(judge) <= 740_000
    assert size_of(clip.network) <= 740_000


def test_area_reduction_is_the_reduction_of_the_renderer():
    scene = Scene("beach", "day", (Object("cat", 0.5, 0.9, 0.5),))
    large, small = (
        torch.from_numpy(render(scene, s)[0].copy()).permute(2, 0, 1)[None].float()
        for s in (256, 64)
    )
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
    assert read_card(tmp_path) == {"place": "0.988"} and again.vocabulary == judge.vocabulary
    assert next(again.parameters()).dtype == torch.float32
    for a, b in zip(again(pictures(2)).values(), judge(pictures(2)).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_a_shared_judge_is_loaded_once_until_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder := tmp_path / "judge").mkdir()
    save_judge(Judge(), folder)
    monkeypatch.chdir(tmp_path)
    first = shared_judge(folder)
    assert (
        shared_judge(str(folder)) is shared_judge("judge") is first
        and load_judge(folder) is not first
    )
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
    seen = {
        "nouns": {"cat", "dog"},
        "colours": {"red"},
        "place": "beach",
        "time": "day",
        "style": "plain",
        "count": 2,
        "right": {"cat": -2.0, "dog": 1.5},
    }
    assert found({"nouns": ["cat", "dog"], "order": ["cat", "dog"], "colours": ["red"]}, seen)
    assert not found({"order": ["dog", "cat"]}, seen)
    assert not found({"order": ["cat", "cat"]}, seen)
    assert not found({"order": ["cat", "dog"], "colours": ["blue"]}, seen)


def test_a_saved_clip_scores_as_before_and_loads_in_stock_open_clip(tmp_path: Path):
    import open_clip

    torch.manual_seed(1)
    pieces = networks.tokenizer()
    network = build_towers(pieces).eval()
    save_towers(network, pieces, tmp_path)
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size <= 1.5e6
    again, texts = load_clip(tmp_path), ["a cat in the snow", "A Dog at night "]
    with torch.no_grad():
        features = torch.nn.functional.normalize(network.encode_image(pictures(2)), dim=-1)
    torch.testing.assert_close(image_features(again, pictures(2)), features, rtol=0.02, atol=0.02)
    stock = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(texts)
    with torch.no_grad():
        torch.testing.assert_close(
            stock.encode_text(ids, normalize=True), text_features(again, texts)
        )
        torch.testing.assert_close(
            stock.encode_image(pictures(2), normalize=True), image_features(again, pictures(2))
        )


def test_alignment_is_the_cosine_with_the_prompt(clip: Clip, clip_folder: Path):
    images, prompts = pictures(2, 128), ["A cat in the snow ", "a dog at night"]
    values = Alignment(PocketClip(clip_folder))(edits_of(images, [Request(p) for p in prompts]))
    expected = (
        image_features(clip, images) * text_features(clip, ["a cat in the snow", "a dog at night"])
    ).sum(dim=1)
    assert values == pytest.approx(expected.tolist(), abs=1e-6)
    assert all(-1 <= v <= 1 for v in values)
    assert Alignment(PocketClip(clip_folder))([]) == []


def test_word_order_and_every_word_matter_to_the_text_tower(clip: Clip):
    a, b, c = text_features(clip, ["a cat in the snow", "the snow in a cat", "a cat in the"])
    assert (a - b).abs().max() > 1e-3 and (a - c).abs().max() > 1e-3


def test_texts_are_encoded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch):
    first = text_features(clip, ["a castle", "a robot", "a castle"])
    assert torch.equal(first[0], first[2])
    monkeypatch.setattr(clip.network, "encode_text", None)
    assert torch.equal(text_features(clip, ["a robot", "a castle"]), first[[1, 0]])


def test_augmentation_stays_in_range_and_near_the_picture():
    x = pictures(16)
    y = augment(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape and y.abs().max() <= 1
    assert 0.01 < (y - x).square().mean() < 0.2
    assert torch.equal(y, augment(x, torch.Generator().manual_seed(0)))


def test_accuracies_are_shares_and_repeat(judge: Judge):
    first, again = (accuracies(judge, count=64, seed=3) for _ in range(2))
    assert first == again and all(0 <= value <= 1 for value in first.values())
    assert set(first) == {"nouns", "colours", "side", "place", "time", "style", "count", "all"}


def test_a_perfect_judge_is_measured_as_perfect(judge: Judge, monkeypatch: pytest.MonkeyPatch):
    # heads replaced by the truth: the evaluation itself must not lose a point
    stream = SceneBatches(seed=3, batch_size=64, size=64, captions="plain", held_out=True)
    batch = stream.batch(0)
    one_hot = {
        n: torch.nn.functional.one_hot(getattr(batch, n), c).float()
        for n, c in (("place", 8), ("time", 3), ("style", 4), ("count", 3))
    }
    truth = {
        "nouns": batch.nouns * 2 - 1,
        "colours": batch.colours.amax(dim=1) * 2 - 1,
        "side": batch.side * 2 - 1,
    }
    monkeypatch.setattr(judge, "forward", lambda image: {**truth, **one_hot})
    assert set(accuracies(judge, count=64, seed=3).values()) == {1.0}
    assert (
        batch.nouns.sum(dim=1) <= batch.count + 1
    ).all()  # fewer nouns than objects where several are alike
