"""The scenes benchmark: its files regenerate, it is balanced, its facts and prompts are true.

And pretraining never saw its scenes.
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scenes import ABOUT, SHIPPED, each, shipped_edits

from unitune import images
from unitune.benchmarks import scenes as benchmark
from unitune.benchmarks.manifest import Folder
from unitune.metrics.judge import VOCABULARY, found, read_facts, reduced, shared_judge
from unitune.scenes import caption, is_held_out, random_scene
from unitune.scenes.edits import KINDS, SceneEdit, facts
from unitune.scenes.legible import shows_well
from unitune.scenes.render import SIDE
from unitune.scenes.scene import MAX_OBJECTS, NOUN_LIST, PLACE_LIST, STYLE_LIST, held_out
from unitune.scenes.suite import generate
from unitune.scenes.vocabulary import COLOURFUL, COUNTS, plural
from unitune.types import Refused
from unitune_lab.networks import vocabulary


@pytest.fixture(scope="module")
def edits() -> list[SceneEdit]:
    return shipped_edits()


def test_the_shipped_benchmark_regenerates_byte_for_byte(edits, tmp_path):
    benchmark.write(
        tmp_path / "again",
        edits,
        about={name: ABOUT[name] for name in ("seed", "per_type", "drawn", "dropped")},
    )
    new, old = (
        {file.name: file.read_bytes() for file in folder.iterdir()}
        for folder in (tmp_path / "again", SHIPPED)
    )
    assert new.keys() == old.keys() and not [name for name in old if new[name] != old[name]]
    assert sum(map(len, old.values())) <= 6e6 and (
        ABOUT["seed"],
        ABOUT["per_type"],
        ABOUT["edits"],
    ) == (0, 12, 120)
    assert set(ABOUT["files"]) == set(old) - {"benchmark.json"}


def test_another_seed_makes_another_benchmark(tmp_path):
    benchmark.run(folder=tmp_path / "a" / "b", seed=1, per_type=1)
    made = json.loads((tmp_path / "a" / "b" / "benchmark.json").read_text())
    pictures = {digest for name, digest in made["files"].items() if not name.startswith("mask")}
    assert (
        made["edits"] == 10
        and made["seed"] == 1
        and len(pictures & set(ABOUT["files"].values())) == 1
    )  # held_out.txt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder, one = tmp_path / "made", [each("add")]
    folder.mkdir()
    benchmark.write(folder, one, about={})
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    benchmark.write(folder, one, about={})  # the same again: nothing to do
    with pytest.raises(Refused, match="holds something else"):
        benchmark.write(folder, [each("remove")], about={})
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refused, match="holds something else"):
        benchmark.write(tmp_path / "file", one, about={})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "save_mask", fail)
    with pytest.raises(Refused, match="No space left"):
        benchmark.write(tmp_path / "other", one, about={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "made"]


@pytest.mark.parametrize(
    ("seed", "per_type", "said"),
    [
        (-1, 1, "seed"),
        (0, 0, "per_type"),
        ("a", 1, "seed"),
        (0, 1.5, "per_type"),
        (0, True, "per_type"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, seed, per_type, said):
    with pytest.raises(Refused, match=f"{said} must be a whole number"):
        benchmark.run(folder=tmp_path / "x", seed=seed, per_type=per_type)


def test_the_manifest_reads_back(edits):
    examples = Folder(SHIPPED, name="scenes").examples(SIDE)
    requests = [request for example in examples for request in example.requests]
    assert len(examples) == ABOUT["images"] == len({edit.before for edit in edits}) and len(
        requests
    ) == len(edits)
    assert all(
        len({request.prompt for request in example.requests} | {example.caption})
        == len(example.requests) + 1
        for example in examples
    )
    for request, edit in zip(requests, edits, strict=True):
        assert (request.prompt, request.kind, request.composed_alike, dict(request.facts)) == (
            edit.prompt,
            edit.kind,
            edit.composed_alike,
            edit.facts,
        )
        assert (dict(request.appear), dict(request.stay)) == (edit.appear, edit.stay)
        assert request.target is not None and request.mask is not None
        assert (images.to_uint8(request.target) == edit.target()).all() and (
            request.mask[0, 0].bool().numpy() == edit.mask()
        ).all()
    first = Folder(SHIPPED, limit=8).examples(64)
    assert {request.kind for example in first for request in example.requests} == set(KINDS)


def test_ten_kinds_of_twelve_and_half_of_them_composed_alike(edits):
    assert Counter(edit.kind for edit in edits) == dict.fromkeys(KINDS, 12)
    assert sum(edit.composed_alike for edit in edits) == 60
    sides = {kind: {edit.composed_alike for edit in edits if edit.kind == kind} for kind in KINDS}
    assert all(sides[kind] == {True} for kind in ("recolour", "restyle", "background", "time"))
    assert all(sides[kind] == {False} for kind in ("add", "remove", "move", "count")) and sides[
        "replace"
    ] == sides["two"] == {True, False}


@pytest.mark.parametrize("per_type", [1, 2, 5])
def test_any_size_is_balanced(per_type):
    some = generate(seed=5, per_type=per_type)
    assert (
        Counter(edit.kind for edit in some) == dict.fromkeys(KINDS, per_type)
        and sum(edit.composed_alike for edit in some) == 5 * per_type
    )


def test_bases_are_varied(edits):
    bases = {edit.before for edit in edits}
    assert {o.noun for scene in bases for o in scene.objects} == set(NOUN_LIST)
    assert {scene.place for scene in bases} == set(PLACE_LIST) and max(
        Counter(scene.place for scene in bases).values()
    ) <= 6
    assert {scene.style for scene in bases} == set(STYLE_LIST) and 0.4 < np.mean(
        [scene.style == "plain" for scene in bases]
    ) < 0.7


def test_all_scenes_are_held_out_and_show_what_they_hold(edits):
    for scene in {scene for edit in edits for scene in (edit.before, edit.after)}:
        assert is_held_out(scene) and shows_well(scene), caption(scene)


def test_painted_objects_stand_in_pictures_with_colours(edits):
    assert all(
        scene.style in COLOURFUL
        for edit in edits
        for scene in (edit.before, edit.after)
        if any(o.colour for o in scene.objects)
    )


def test_prompts_speak_known_words_and_are_new(edits):
    words = set(vocabulary())
    for edit in edits:
        assert set(re.findall(r"[^\s,]+", edit.prompt)) <= words, edit.prompt
        assert edit.prompt != caption(edit.before)


def said(edit: SceneEdit, name: str, value: object) -> bool:
    """Whether the prompt says a fact of the result."""
    text = edit.prompt
    if name == "count":
        named = {
            o.noun
            for o in edit.after.objects
            if re.search(rf"\b({o.noun}|{plural(o.noun)})\b", text)
        }
        return (
            len(named) == value or f"{COUNTS[value]} {edit.after.objects[0].colour}".strip() in text
        )
    if name == "order":
        return bool(re.search(f"{value[0]} left of an? .*{value[1]}", text))
    hints = {
        "plain": "a photo of",
        "underwater": "under water",
        "day": "by day",
        "pixel": "pixel art",
    }
    return all(
        hints.get(str(word), str(word)) in text or plural(str(word)) in text
        for word in (value if isinstance(value, list) else [value])
    )


def test_what_must_appear_is_said_and_is_new(edits):
    for edit in edits:
        was, now = facts(edit.before), facts(edit.after)
        assert edit.appear, edit
        for name, value in edit.appear.items():
            assert said(edit, name, value), (edit.prompt, name, value)
            if name == "order":
                assert [o.noun for o in sorted(edit.before.objects, key=lambda o: o.x)] == value[
                    ::-1
                ]
            elif isinstance(value, list):
                assert not set(value) & set(was.get(name, ()))
            else:
                assert was[name] != value and now[name] == value
        assert len(edit.appear) >= 2 or edit.kind != "two", edit.prompt


def test_facts_are_those_of_the_result_in_words_that_a_judge_knows(edits):
    allowed = {**VOCABULARY, "count": range(1, MAX_OBJECTS + 1), "order": VOCABULARY["nouns"]}
    for edit in edits:
        now, all_facts = facts(edit.after), edit.facts
        assert {
            name: now[name] for name in now if name != "order" or "order" in all_facts
        } == all_facts
        for name, value in all_facts.items():
            assert set(value if isinstance(value, list) else [value]) <= set(allowed[name])
        for part in (edit.appear, edit.stay):
            assert all(
                set(value) <= set(all_facts[name])
                if isinstance(value, list)
                else all_facts[name] == value
                for name, value in part.items()
            )
        assert json.loads(json.dumps(all_facts)) == all_facts


def test_the_list_of_held_out_compositions_is_the_rule():
    header, *lines = (SHIPPED / "held_out.txt").read_text().splitlines()
    listed = {tuple(line.split()) for line in lines}
    assert listed == {
        (n, p, s) for n in NOUN_LIST for p in PLACE_LIST for s in STYLE_LIST if held_out(n, p, s)
    } and len(listed) == len(lines)
    assert (
        str(len(lines)) in header
        and 0.08 < len(lines) / (len(NOUN_LIST) * len(PLACE_LIST) * len(STYLE_LIST)) < 0.14
    )
    assert {n for n, _, _ in listed} == set(NOUN_LIST)


def test_few_drawn_edits_are_dropped_and_the_folder_says_how_many(edits):
    assert ABOUT["dropped"] <= 0.02 * ABOUT["drawn"] and ABOUT["drawn"] >= len(edits)
    assert (
        f"of {ABOUT['drawn']} drawn edits {ABOUT['dropped']} were dropped"
        in (SHIPPED / "README.md").read_text()
    )
    judge = shared_judge(benchmark.JUDGE)
    seen = read_facts(
        judge, torch.cat([reduced(images.from_uint8(edit.target()), 64) for edit in edits])
    )
    assert all(found(edit.facts, facts) for edit, facts in zip(edits, seen, strict=True))


def test_held_out_scenes_are_held_out():
    rng = np.random.default_rng(1)
    assert all(is_held_out(random_scene(rng, held_out=True)) for _ in range(200))


def drawn(**more: object) -> benchmark.DrawnScenes:
    return benchmark.DrawnScenes(
        **{"seed": 1006, "apart_from": SHIPPED, "per_type": 1, "limit": 2, **more}
    )


def test_drawn_scenes_are_the_same_for_a_seed_and_others_for_another():
    first, again, other = drawn().examples(64), drawn().examples(64), drawn(seed=1007).examples(64)
    assert len(first) == 2 and [example.digest for example in first] == [
        example.digest for example in again
    ]
    assert [e.requests[0].prompt for e in first] == [e.requests[0].prompt for e in again]
    assert all(
        r.target is not None and r.mask is not None and r.appear for e in first for r in e.requests
    )
    assert not {example.digest for example in first} & {example.digest for example in other}


def test_a_draw_that_shares_an_image_with_the_benchmark_is_refused(tmp_path: Path):
    """Also one of which `limit` would have left the shared image out: the seed decides."""
    benchmark.run(folder=tmp_path / "apart", seed=1006, per_type=1)
    with pytest.raises(
        Refused,
        match=r"seed 1006 draws .*\.png, which is in .*apart too; "
        "dials are chosen on other images: take another seed",
    ):
        drawn(apart_from=tmp_path / "apart", limit=1).examples(64)
    with pytest.raises(Refused, match="seed must be a whole number of at least 0"):
        drawn(seed=-1).examples(64)
    with pytest.raises(
        Refused, match=r"benchmark.apart_from=.*nowhere holds no benchmark of scenes"
    ):
        drawn(apart_from=tmp_path / "nowhere").examples(64)
    with pytest.raises(Refused, match=f"seed {ABOUT['seed']} draws .*, which is in"):
        drawn(seed=ABOUT["seed"], per_type=ABOUT["per_type"]).examples(64)
