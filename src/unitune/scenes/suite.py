"""Draws a balanced suite of edits of held-out scenes from a seed.

The edits of a base scene stand together, so that one tuning serves them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unitune.scenes.caption import caption
from unitune.scenes.changes import both
from unitune.scenes.edits import KINDS, LOOKS, SceneEdit
from unitune.scenes.legible import shows_change, shows_well
from unitune.scenes.proposals import SPREAD, Accept, Dice, propose, two
from unitune.scenes.scene import (
    NOUN_LIST,
    PLACE_LIST,
    STYLE_LIST,
    STYLE_SHARES,
    Scene,
    held_out,
    is_held_out,
    is_pair,
    left_of,
    random_scene,
)
from unitune.scenes.vocabulary import COLOURFUL

# How each base of a round is composed and what is done to it; a round has every kind of edit three
# times.
ROUND: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("aside", ("replace", "add", "restyle")),
    ("pair", ("move", "remove", "time")),
    ("one", ("replace", "background", "count")),
    ("pair", ("recolour", "remove", "two")),
    ("aside", ("add", "background", "count")),
    ("group", ("count", "time", "recolour")),
    ("pair", ("move", "replace", "restyle")),
    ("one", ("recolour", "time", "two")),
    ("pair", ("move", "remove", "background")),
    ("aside", ("add", "restyle", "two")),
)
# By composition: chances of one, two and three objects.
CHANCES = {"one": (1.0,), "aside": (0.0, 1.0), "pair": (0.0, 1.0), "group": (0.0, 0.5, 0.5)}
# Kinds that may be either: every second edit is composed alike, from this one on.
HALF_ALIKE = {"replace": 0, "two": 1}
# By composition: what "two" may change of the objects. LOOKS are composed alike, these are not.
STRUCTURE = {
    "one": ("replace", "count"),
    "aside": ("replace", "add", "count"),
    "pair": ("replace", "remove", "move"),
}
BASE_TRIES, TRIES = 4, 30  # draws of one base, of one edit


def generate(*, seed: int, per_type: int, accept: Accept | None = None) -> list[SceneEdit]:
    """Draw `per_type` edits of each of KINDS.

    Bases and results are held-out compositions, and half of all edits are composed alike. An edit
    that `accept` turns down is drawn anew; it is asked about good edits alone.
    """
    dice = Dice(np.random.default_rng(seed), accept or (lambda _: True))
    left = Counter[str](dict.fromkeys(KINDS, per_type))
    edits: list[SceneEdit] = []
    while left.total():
        for composition, kinds in ROUND:
            wanted: dict[str, bool | None] = dict.fromkeys(kind for kind in kinds if left[kind])
            for kind in wanted.keys() & HALF_ALIKE:
                wanted[kind] = (per_type - left[kind]) % 2 == HALF_ALIKE[kind]
            if wanted:
                edits += _draw(composition, wanted, dice)
                left.subtract(list(wanted))
    return edits


def _draw(composition: str, wanted: Mapping[str, bool | None], dice: Dice) -> list[SceneEdit]:
    """Draw a base whose words were used least, and one edit of each kind that is wanted."""
    while True:
        for noun, place, style in _compositions(composition, wanted, dice):
            for _ in range(BASE_TRIES):
                scene = _base(composition, noun, place, style, dice)
                if "restyle" in wanted:  # few styles show colours
                    plain = tuple(replace(o, colour="") for o in scene.objects)
                    scene = replace(scene, objects=plain)
                edits = _edits(scene, composition, wanted, dice) if shows_well(scene) else []
                if edits:
                    dice.note(composition, {place})
                    dice.note("base", {scene.place, scene.style, *(o.noun for o in scene.objects)})
                    return edits


def _compositions(
    composition: str, wanted: Collection[str], dice: Dice
) -> list[tuple[str, str, str]]:
    """List the held-out compositions that allow what is wanted, the least used first."""
    options = [
        (n, p, s) for n in NOUN_LIST for p in PLACE_LIST for s in STYLE_LIST if held_out(n, p, s)
    ]
    if "recolour" in wanted:
        options = [(n, p, s) for n, p, s in options if s in COLOURFUL]
    if "restyle" in wanted:
        style = dice.pick(STYLE_LIST, "restyle")
        options = [(n, p, s) for n, p, s in options if s != style and held_out(n, p, style)]
    if "background" in wanted:
        place = dice.pick(PLACE_LIST, "background")
        options = [(n, p, s) for n, p, s in options if p != place and held_out(n, place, s)]
    share = dict(zip(STYLE_LIST, STYLE_SHARES, strict=True))
    used = {word: dice.used["base", word] for word in (*NOUN_LIST, *PLACE_LIST, *STYLE_LIST)}
    used |= {p: used[p] + 3 * dice.used[composition, p] for p in PLACE_LIST}
    cost = {
        (n, p, s): 5 * used[n] + used[p] + used[s] / (6 * share[s]) + SPREAD * dice.rng.random()
        for n, p, s in options
    }
    return sorted(options, key=cost.__getitem__)


def _edits(
    scene: Scene, composition: str, wanted: Mapping[str, bool | None], dice: Dice
) -> list[SceneEdit]:
    """Draw an edit of each kind that is wanted; none at all where one of them is not found."""
    edits: list[SceneEdit] = []
    for kind, alike in wanted.items():
        taken = {caption(scene), *(edit.prompt for edit in edits)}
        structure = LOOKS if alike else STRUCTURE.get(composition, ())
        for _ in range(TRIES):
            steps = two(scene, structure, dice) if kind == "two" else [propose(kind, scene, dice)]
            edit = both(*steps) if kind == "two" else steps[0]
            if _is_good(edit, steps, alike, taken, dice):
                break
        else:
            return []
        edits.append(edit)
        dice.note("two", [step.kind for step in steps if kind == "two"])
    for edit in edits:
        dice.note(edit.kind, _words(edit.after) - _words(scene))
    return edits


def _is_good(
    edit: SceneEdit,
    steps: Sequence[SceneEdit],
    alike: bool | None,
    taken: Collection[str],
    dice: Dice,
) -> bool:
    """Say whether an edit of one or two steps is fit for the suite.

    It stays held out, says something new, is composed alike as asked, shows at every step, and is
    accepted.
    """
    if not is_held_out(edit.after) or edit.prompt in taken:
        return False
    if alike not in (None, edit.composed_alike):
        return False
    return shows_well(edit.after) and all(map(shows_change, steps)) and dice.accept(edit)


def _base(composition: str, noun: str, place: str, style: str, dice: Dice) -> Scene:
    """Draw a scene that is composed so and holds the held-out composition.

    "aside" is a pair with one of the two missing.
    """
    while True:
        scene = random_scene(dice.rng, counts=CHANCES[composition])
        if _composition(scene) == ("pair" if composition == "aside" else composition):
            break
    main = int(dice.rng.integers(len(scene.objects)))
    other = noun
    if composition != "group":
        other = dice.pick([n for n in NOUN_LIST if n != noun], "base")
    things = []
    for k, thing in enumerate(scene.objects):
        colour = thing.colour if style in COLOURFUL else ""
        things.append(replace(thing, noun=noun if k == main else other, colour=colour))
    objects = things[main : main + 1] if composition == "aside" else things
    return replace(scene, place=place, style=style, objects=tuple(objects))


def _composition(scene: Scene) -> str:
    if is_pair(scene):
        return "pair" if left_of(*scene.objects) else ""
    if len(scene.objects) == 1:
        return "one"
    return "group" if len({o.noun for o in scene.objects}) == 1 else ""


def _words(scene: Scene) -> set[object]:
    words = {scene.place, scene.style, scene.time, len(scene.objects)}
    return words | {word for o in scene.objects for word in (o.noun, o.colour)}
