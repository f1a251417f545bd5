"""The world and the streams of scenes that the embedded models learn from, and their loop."""

import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from unitune.models.pocket import FOLDER as POCKET
from unitune.scenes import Object, Scene, caption, is_held_out
from unitune.scenes.render import render
from unitune.scenes.vocabulary import COLOURFUL, LEFT, RIGHT
from unitune_lab import networks
from unitune_lab import train as training
from unitune_lab.batches import (
    EMPTY,
    GROUP,
    MAP,
    MEANINGLESS,
    NAMED,
    NOUN,
    RARE_ALONE,
    RARE_BEFORE,
    Batch,
    SceneBatches,
    grouped,
    loader,
    object_map,
)
from unitune_lab.names import ALONE, CHANGED, NAMES, named, named_scene
from unitune_lab.options import Phase, read
from unitune_lab.parts.stage import StagePart

CPU = torch.device("cpu")
DRAWS = 100_000


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StagePart, "look", lambda *_: {"error": 0.5})


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, str]]:
    stream, rng = SceneBatches(seed=0, batch_size=1, size=None), np.random.default_rng(0)
    return [stream.pair(rng) for _ in range(DRAWS)]


def same(a: object, b: object) -> bool:
    """Compare checkpoints bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_depends_on_seed_and_number_alone(workers: int, first: int):
    stream = SceneBatches(seed=5, batch_size=2, size=32, first=first)
    seen: list[Batch] = list(islice(iter(loader(stream, workers=workers)), 3))
    for k, batch in enumerate(seen):
        expected = SceneBatches(seed=5, batch_size=2, size=32).batch(first + k)
        assert same(vars(batch), vars(expected))
    assert not same(vars(seen[0]), vars(seen[1]))
    assert not same(vars(seen[0]), vars(SceneBatches(seed=6, batch_size=2, size=32).batch(first)))


def test_training_never_sees_a_held_out_composition(drawn: list[tuple[Scene, str]]):
    assert len(drawn) == DRAWS
    assert not any(is_held_out(scene) for scene, _ in drawn)
    assert not any(is_held_out(scene) for _, scene in named())
    for captions in ("stage", "text", "plain"):
        stream = SceneBatches(seed=0, batch_size=1, size=None, captions=captions, held_out=True)
        rng = np.random.default_rng(1)
        assert all(is_held_out(stream.pair(rng)[0]) for _ in range(500))


def test_a_stage_learns_the_asked_share_of_pairs_that_say_where_they_stand():
    def told(related: float) -> float:
        stream = SceneBatches(seed=0, batch_size=1, size=None, related=related)
        rng = np.random.default_rng(3)
        texts = [stream.pair(rng)[1] for _ in range(3000)]
        return float(np.mean([any(words in text for words in (*LEFT, *RIGHT)) for text in texts]))

    # Of the pairs drawn for it, those of one kind and those that overlap are described as usual.
    assert told(0.0) < 0.1 and told(0.5) > 0.3


def test_the_shares_of_captions_are_as_the_constants_say(drawn: list[tuple[Scene, str]]):
    known, names = set(networks.vocabulary()), {name for name, _ in named()}
    first = [text.split()[0].strip(",").lower() if text else "" for _, text in drawn]

    def shares(words: list[str]) -> list[float]:
        strange = [word != "" and word not in names and word not in known for word in words]
        return [words.count("") / DRAWS, sum(w in names for w in words) / DRAWS, np.mean(strange)]

    assert shares(first) == pytest.approx([EMPTY, NAMED, MEANINGLESS], abs=0.004)
    alone = sum(text in names for _, text in drawn) / sum(word in names for word in first)
    assert alone == pytest.approx(ALONE, abs=0.02)
    stream = SceneBatches(seed=0, batch_size=1, size=None, captions="text")
    rng = np.random.default_rng(0)
    texts = [stream.pair(rng)[1].split() for _ in range(20_000)]
    rare = [words for words in texts if words[0].strip(",").lower() not in known]
    one = sum(len(words) == 1 for words in rare) / len(texts)
    assert one == pytest.approx(RARE_ALONE, abs=0.01)
    assert len(rare) / len(texts) - one == pytest.approx(RARE_BEFORE, abs=0.015)


def test_a_changed_named_scene_keeps_what_its_name_stands_for():
    known, rng, changes = dict(named()), np.random.default_rng(0), 0
    assert len(known) == NAMES
    for _ in range(3000):
        text, scene = named_scene(rng)
        before = known[text.split()[0]]
        assert (scene.seed, scene.style) == (before.seed, before.style)
        kept = [[(o.x, o.y, o.size, o.flip, o.colour) for o in s.objects] for s in (scene, before)]
        assert kept[0] == kept[1]
        nouns = [[o.noun for o in s.objects] for s in (scene, before)]
        differs = [scene.place != before.place, scene.time != before.time, nouns[0] != nouns[1]]
        assert sum(differs) <= 1 and nouns[0][1:] == nouns[1][1:]
        assert not (any(differs) and text in known)  # a name alone means the scene as it is
        changes += any(differs)
    # Some of the changes draw the word that was there.
    assert 0.7 * CHANGED < changes / 3000 < CHANGED


def test_the_map_of_objects_agrees_with_their_masks():
    cat, dog = Object("cat", 0.3, 0.9, 0.4), Object("dog", 0.6, 0.95, 0.5)
    scene = Scene("beach", "day", (cat, dog))
    _, masks = render(scene)
    found = object_map(scene, masks)
    assert found.shape == (MAP, MAP) and found.dtype == np.uint8
    share = [mask.reshape(MAP, 4, MAP, 4).mean(axis=(1, 3)) for mask in masks]
    for thing, covered in zip(scene.objects, share, strict=True):
        assert (covered > 0.5).any() and (found[covered > 0.5] == NOUN[thing.noun] + 1).all()
    assert (found[np.maximum(*share) < 0.45] == 0).all()
    assert not object_map(Scene("beach", "day", ()), []).any()
    batch = SceneBatches(seed=0, batch_size=8, size=32).batch(0)
    assert batch.objects is not None
    for objects, nouns in zip(batch.objects, batch.nouns, strict=True):
        shown = {int(k) - 1 for k in objects.unique() if k > 0}
        assert shown and shown <= set(nouns.nonzero().flatten().tolist())


def test_a_standard_caption_says_the_whole_scene():
    things = (Object("cat", 0.3, 0.9, 0.4, colour="red"), Object("dog", 0.7, 0.9, 0.4))
    scene = Scene("beach", "night", things, "pixel")
    assert caption(scene, related=True).endswith("a red cat left of a dog on a beach at night")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    optimizer: str, tmp_path: Path, no_look: None, monkeypatch: pytest.MonkeyPatch
):
    plan = [Phase(16, 2, 6), Phase(32, 2, 4)]
    options = read("base", ["ema=0.9", "workers=0", "cooldown=4", f"optimizer={optimizer}"])

    def go_on(folder: Path, *, seed: int, stop_at: int = -1) -> bool:
        torch.manual_seed(seed)
        stage = {"super_resolution": False, "channels": [32] * 4, "auxiliary": 0.1}
        part = StagePart(POCKET / "base", CPU, **stage)
        loss = part.loss

        def interrupted(batch: Batch, resolution: int, seed: int) -> torch.Tensor:
            if seed == stop_at:
                signal.raise_signal(signal.SIGTERM)
            return loss(batch, resolution, seed)

        monkeypatch.setattr(part, "loss", interrupted)
        state = training.Training(part, folder / "base", options=options, before={})
        return training.train(state, plan)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert go_on(whole, seed=0)
    assert not go_on(parts, seed=0, stop_at=2)  # the step goes through, then all is saved
    assert go_on(parts, seed=1)  # weights come from the checkpoint, not from the seed
    files = [folder / "base" / training.CHECKPOINT for folder in (whole, parts)]
    a, b = (torch.load(file, weights_only=True) for file in files)
    assert (a["done"]["step"], a["done"]["samples"]) == (5, 10)
    for state in (a, b):
        del state["done"]["minutes"]
    for name in ("about", "network", "optimizer", "mean", "done"):
        assert same(a[name], b[name]), name
    assert not same(a["network"]["unet.conv_in.weight"], a["mean"]["module.unet.conv_in.weight"])
    exports = [UNet2DConditionModel.from_pretrained(f / "base" / "export") for f in (whole, parts)]
    assert same(*(dict(unet.state_dict()) for unet in exports))


def test_a_clip_learns_from_groups_that_differ_in_their_objects_alone():
    rng = np.random.default_rng(0)
    drawn = SceneBatches(seed=0, batch_size=4 * GROUP, size=None, captions="clip")
    pairs = [drawn.pair(rng) for _ in range(4 * GROUP)]
    found = grouped(pairs, rng)
    assert found[2 * GROUP :] == pairs[2 * GROUP :], "the other half is as it was drawn"
    looks = [(scene.place, scene.time, scene.style) for scene, _ in found[:GROUP]]
    assert looks.count(looks[0]) > GROUP // 2 and not any(is_held_out(scene) for scene, _ in found)
    told = [text for (_, text), was in zip(found[:GROUP], pairs, strict=False) if text != was[1]]
    assert len(set(told)) == len(told)
    assert all(
        scene.style in COLOURFUL or not o.colour for scene, _ in found for o in scene.objects
    )
