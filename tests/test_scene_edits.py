"""Edits of scenes: masks are exact, styles reach no farther than they say, words agree."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from known_scenes import CAT, ONE, PAIR, each, shipped_edits
from PIL import Image

from unitune.scenes import Object, Scene, caption, random_scene, render, sprites
from unitune.scenes.changes import (
    both,
    change_count,
    change_time,
    move_left,
    recolour,
    remove_object,
    replace_object,
    restyle,
)
from unitune.scenes.edits import KINDS, SceneEdit
from unitune.scenes.instructions import instruction
from unitune.scenes.legible import own_colours
from unitune.scenes.render import SIDE, SUPPORT
from unitune.scenes.render import STYLE as FILTERS
from unitune.scenes.scene import MAX_OBJECTS, STYLE_LIST, is_pair, left_of
from unitune.scenes.vocabulary import COLOURS, COUNTS, LEFT, plural


@pytest.fixture(scope="module")
def edits() -> list[SceneEdit]:
    return shipped_edits()


def test_an_instruction_says_what_changes():
    assert {kind: each(kind).instruction for kind in KINDS} == {
        "replace": "replace the dog with a rocket",
        "add": "add a dog",
        "remove": "remove the dog",
        "recolour": "make the dog green",
        "restyle": "make it sepia",
        "background": "put them on the moon",
        "time": "make it night",
        "move": "put the dog left of the cat",
        "count": "show three cats",
        "two": "replace the cat with a tree and put them in the snow",
    }
    assert (
        SceneEdit("time", ONE, ONE).instruction == ""
        and each("replace").local
        and not each("time").local
    )


def test_an_instruction_to_count_says_a_change_of_colour_too():
    def cats(count: int, colour: str):
        return Scene(
            "beach",
            "day",
            tuple(Object("cat", 0.2 * (k + 1), 0.9, 0.2, colour=colour) for k in range(count)),
        )

    changes = [
        ((1, "green"), (3, "red")),
        ((3, "green"), (1, "red")),
        ((1, ""), (2, "red")),
        ((1, "red"), (3, "red")),
        ((3, "red"), (1, "red")),
    ]
    assert [instruction(cats(*before), cats(*after)) for before, after in changes] == [
        "show three red cats",
        "show one red cat only",
        "show two red cats",
        "show three cats",
        "show one cat only",
    ]


def test_local_edits_have_a_mask_under_half_of_the_picture(edits):
    assert all(edit.local == (edit.mask().mean() < 0.5) for edit in edits)
    assert all(edit.instruction for edit in edits)


def check_mask(edit: SceneEdit) -> None:
    base, target, mask = render(edit.before)[0], edit.target(), edit.mask()
    differs = (base != target).any(axis=2)
    assert mask.shape == (SIDE, SIDE) and mask.any() and not (differs & ~mask).any(), edit
    before, after = edit.before, edit.after
    if (before.time, before.style) != (after.time, after.style):
        assert mask.all()
    elif before.place != after.place:
        assert (
            0.5 < mask.mean() < (0.99 if before.objects == after.objects else 1.01)
            and differs[mask].mean() > 0.5
        )
    else:
        assert mask.mean() < 0.8 and differs[mask].mean() > 0.5, (
            edit.prompt
        )  # no larger than needed


def test_masks_are_exact(edits):
    for edit in edits:
        check_mask(edit)


@pytest.mark.parametrize("style", STYLE_LIST)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_exact_in_every_style(kind, style):
    edit = each(kind)
    if kind != "restyle":
        check_mask(
            SceneEdit(kind, replace(edit.before, style=style), replace(edit.after, style=style))
        )


@pytest.mark.parametrize("style", STYLE_LIST)
def test_a_style_reaches_no_farther_than_it_says(style):
    rng = np.random.default_rng(0)
    for _ in range(4):
        scene = replace(random_scene(rng, counts=(1.0,)), style=style)
        thing = scene.objects[0]
        changed = replace(
            scene, objects=(replace(thing, colour="blue" if thing.colour != "blue" else "green"),)
        )
        plain = (
            render(replace(scene, style="plain"))[0] != render(replace(changed, style="plain"))[0]
        ).any(axis=2)
        styled = (render(scene)[0] != render(changed)[0]).any(axis=2)
        reach = SUPPORT[style]
        near = np.max(
            [
                np.roll(plain, (y, x), (0, 1))
                for y in range(-reach, reach + 1)
                for x in range(-reach, reach + 1)
            ],
            axis=0,
        )
        assert styled.any() and not (styled & ~near).any()


@pytest.mark.parametrize("style", ["plain", "sepia"])
def test_some_styles_are_pixel_local(style):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(SIDE * SIDE)
    shuffled = FILTERS[style](pixels.reshape(-1, 3)[order].reshape(SIDE, SIDE, 3)).reshape(-1, 3)
    np.testing.assert_allclose(
        shuffled, FILTERS[style](pixels).reshape(-1, 3)[order], rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("colour", COLOURS)
def test_recolouring_is_pixel_local_and_keeps_the_outline(colour):
    tile = np.asarray(sprites.sprite("dog"))
    order = np.random.default_rng(1).permutation(tile.shape[0] * tile.shape[1])
    shuffled = Image.fromarray(tile.reshape(-1, 4)[order].reshape(tile.shape))
    painted, again = (
        np.asarray(sprites.recoloured(x, colour)) for x in (Image.fromarray(tile), shuffled)
    )
    assert (
        np.abs(again.reshape(-1, 4).astype(int) - painted.reshape(-1, 4)[order]).max() <= 1
        and (painted[..., 3] == tile[..., 3]).all()
    )
    assert (
        recolour(PAIR, "cat", colour).composed_alike
        and (recolour(PAIR, "cat", colour).mask() & render(PAIR)[1][1]).sum() == 0
    )


def test_captions_agree_with_scenes():
    assert caption(PAIR, related=True) == "a cat left of a dog on a beach"
    assert (
        caption(replace(ONE, objects=(replace(CAT, colour="purple"),))) == "a purple cat on a beach"
    )
    for k in range(2, MAX_OBJECTS + 1):
        assert caption(change_count(ONE, k).after) == f"{COUNTS[k]} cats on a beach"
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = random_scene(rng)
        text = caption(scene, related=True)
        for thing in scene.objects:
            assert re.search(rf"\b{thing.colour} ?({thing.noun}|{plural(thing.noun)})\b", text)
        if len({(o.noun, o.colour) for o in scene.objects}) == 1 and len(scene.objects) > 1:
            assert f"{COUNTS[len(scene.objects)]} " in text
        if is_pair(scene) and left_of(a := scene.objects[0], b := scene.objects[1]):
            assert re.search(rf"{a.noun} {LEFT[0]} an? .*{b.noun}", text) and a.x < b.x


def test_edits_by_hand():
    assert each("move").prompt == "a dog left of a cat on a beach" and each("move").appear == {
        "order": ["dog", "cat"]
    }
    assert [o.noun for o in each("move").after.objects] == ["dog", "cat"] and not each(
        "move"
    ).composed_alike
    assert (
        change_time(replace(PAIR, time="night"), "day").prompt
        == "a cat and a dog on a beach by day"
    )
    assert (
        restyle(replace(PAIR, style="sepia"), "plain").prompt
        == "a photo of a cat and a dog on a beach"
    )
    assert (
        each("add").after == PAIR
        and each("add").appear == {"nouns": ["dog"], "count": 2}
        and "order" not in each("add").facts
    )
    assert each("time").stay["order"] == ["cat", "dog"] and each("recolour").appear == {
        "colours": ["green"]
    }
    row = change_count(ONE, 3).after.objects
    assert all(b.x - a.x >= a.size for a, b in pairwise(row)) and all(
        o.size / 2 <= o.x <= 1 - o.size / 2 for o in row
    )
    assert change_count(change_count(ONE, 3).after, 1).prompt == "a cat on a beach"
    assert (
        replace_object(ONE, 0, "rabbit").composed_alike
        and not replace_object(ONE, 0, "rocket").composed_alike
    )
    assert (
        "red" in own_colours("balloon")
        and "green" in own_colours("tree")
        and not own_colours("robot")
    )


IMPOSSIBLE = [
    (lambda: remove_object(ONE, 0), "only object"),
    (lambda: move_left(ONE, 0), "two different"),
    (lambda: move_left(change_count(ONE, 2).after, 0), "two different"),
    (lambda: change_count(PAIR, 3), "one kind"),
    (lambda: change_count(ONE, 0), "1 to 3"),
    (lambda: change_count(ONE, 4), "1 to 3"),
    (lambda: both(each("add"), each("count")), "start from the result"),
    (lambda: SceneEdit("style", PAIR, ONE), "unknown kind"),
]


@pytest.mark.parametrize(("make", "message"), IMPOSSIBLE, ids=[said for _, said in IMPOSSIBLE])
def test_edits_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
