"""Draws a balanced suite of edits of held-out scenes from a seed.

The edits of a base scene stand together, so that one tuning serves them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from unitune_lab.world.caption import caption
from unitune_lab.world.edits import (
    KINDS,
    SceneEdit,
    add_object,
    both,
    change_count,
    change_place,
    change_time,
    is_pair,
    move_left,
    recolour,
    remove_object,
    replace_object,
    restyle,
)
from unitune_lab.world.legible import changes, own_colours, shows_well
from unitune_lab.world.scene import (
    COLOUR_LIST,
    MAX_OBJECTS,
    NOUN_LIST,
    PLACE_LIST,
    SIZES,
    STYLE_LIST,
    STYLE_SHARES,
    TIME_LIST,
    Object,
    Scene,
    held_out,
    is_held_out,
    random_scene,
    relation,
)
from unitune_lab.world.vocabulary import COLOURFUL

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
COUNT_SHARES = {"one": (1.0,), "aside": (0.0, 1.0), "pair": (0.0, 1.0), "group": (0.0, 0.5, 0.5)}
HALF_ALIKE = {
    "replace": 0,
    "two": 1,
}  # kinds that may be either: every second edit is alike, from this one on
LOOKS = (
    "recolour",
    "restyle",
    "background",
    "time",
)  # two of them are an alike edit; one after one of STRUCTURE an unalike one
STRUCTURE = {
    "one": ("replace", "count"),
    "aside": ("replace", "add", "count"),
    "pair": ("replace", "remove", "move"),
}  # by composition
BASE_TRIES, TRIES = 4, 30  # draws of one base, of one edit
SPREAD = 2.0  # by how many uses a draw may depart from strict balance

Word = TypeVar("Word", bound=str | int)


@dataclass(frozen=True)
class Dice:
    """Draws that prefer what was used least in the same role."""

    rng: np.random.Generator
    used: Counter[tuple[str, object]] = field(default_factory=Counter)

    def pick(self, options: Sequence[Word], role: str) -> Word:
        """Draw one of `options`; `note` what comes of it."""
        return min(options, key=lambda option: self.used[role, option] + SPREAD * self.rng.random())

    def note(self, role: str, words: Collection[object]) -> None:
        """Count words as used."""
        self.used.update((role, word) for word in words)

    def between(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))


def generate(*, seed: int, per_type: int) -> list[SceneEdit]:
    """Draw `per_type` edits of each of KINDS.

    Bases and results are held-out compositions, and half of all edits are alike.
    """
    dice, left = Dice(np.random.default_rng(seed)), Counter[str](dict.fromkeys(KINDS, per_type))
    edits: list[SceneEdit] = []
    while left.total():
        for composition, kinds in ROUND:
            if wanted := {
                kind: _alike(kind, per_type - left[kind]) for kind in kinds if left[kind]
            }:
                edits += _draw(composition, wanted, dice)
                left.subtract(list(wanted))
    return edits


def _alike(kind: str, number: int) -> bool | None:
    return number % 2 == HALF_ALIKE[kind] if kind in HALF_ALIKE else None


def _draw(composition: str, wanted: Mapping[str, bool | None], dice: Dice) -> list[SceneEdit]:
    """Draw a base whose words were used least, and one edit of each kind that is wanted."""
    while True:
        for noun, place, style in _compositions(composition, wanted, dice):
            for _ in range(BASE_TRIES):
                scene = _base(composition, noun, place, style, dice)
                if "restyle" in wanted:  # few styles show colours
                    scene = replace(
                        scene, objects=tuple(replace(o, colour="") for o in scene.objects)
                    )
                if shows_well(scene) and (edits := _edits(scene, composition, wanted, dice)):
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
        (n, p, s): 5 * used[n] + used[p] + used[s] / (10 * share[s]) + SPREAD * dice.rng.random()
        for n, p, s in options
    }  # about 4 each after 40 bases
    return sorted(options, key=cost.__getitem__)


def _edits(
    scene: Scene, composition: str, wanted: Mapping[str, bool | None], dice: Dice
) -> list[SceneEdit]:
    """Draw an edit of each kind that is wanted; none at all where one of them is not found."""
    edits: list[SceneEdit] = []
    for kind, alike in wanted.items():
        taken = {caption(scene), *(edit.prompt for edit in edits)}
        structure = STRUCTURE[composition] if kind == "two" and not alike else LOOKS
        draws = (
            _two(scene, structure, dice) if kind == "two" else [_propose(kind, scene, dice)]
            for _ in range(TRIES)
        )
        good = next((steps for steps in draws if _is_good(steps, alike, taken)), None)
        if good is None:
            return []
        edits.append(_joined(good))
        dice.note("two", [step.kind for step in good if kind == "two"])
    for edit in edits:
        dice.note(edit.kind, _words(edit.after) - _words(scene))
    return edits


def _joined(steps: Sequence[SceneEdit]) -> SceneEdit:
    return both(*steps) if len(steps) == 2 else steps[0]


def _is_good(steps: Sequence[SceneEdit], alike: bool | None, taken: Collection[str]) -> bool:
    """Say whether an edit of one or two steps is fit for the suite.

    It stays held out, says something new, is alike as asked, and shows at every step.
    """
    edit = _joined(steps)
    if (
        not is_held_out(edit.after)
        or edit.prompt in taken
        or alike not in (None, edit.composed_alike)
    ):
        return False
    return shows_well(edit.after) and all(map(changes, steps))


def _two(scene: Scene, structure: Sequence[str], dice: Dice) -> list[SceneEdit]:
    """Draw two changes at once, of different kinds: one of `structure`, then one of LOOKS."""
    first = _propose(kind := dice.pick(structure, "two"), scene, dice)
    return [
        first,
        _propose(dice.pick([look for look in LOOKS if look != kind], "two"), first.after, dice),
    ]


def _propose(kind: str, scene: Scene, dice: Dice) -> SceneEdit:
    """Draw one edit of a kind, of those whose results are held out if there are any."""
    options = _options(kind, scene, dice)
    unseen = {word: edit for word, edit in options.items() if is_held_out(edit.after)} or options
    return unseen[dice.pick(list(unseen), kind)]


def _options(kind: str, scene: Scene, dice: Dice) -> dict[str | int, SceneEdit]:
    """List the edits of a kind by the word or the number that tells them apart."""
    things = scene.objects
    thing = things[index := int(dice.rng.integers(len(things)))]
    match kind:
        case "replace":
            return {n: replace_object(scene, index, n) for n in _other_nouns(things)}
        case "add":
            x, y, size, flip = (
                0.75 if thing.x < 0.5 else 0.25,
                thing.y + dice.between(-0.03, 0.03),
                dice.between(*SIZES[1]),
                bool(dice.rng.random() < 0.5),
            )
            return {n: add_object(scene, Object(n, x, y, size, flip)) for n in _other_nouns(things)}
        case "remove":
            return {k: remove_object(scene, k) for k in range(len(things))}
        case "recolour":
            return {
                c: recolour(scene, thing.noun, c)
                for c in COLOUR_LIST
                if c not in own_colours(thing.noun) | {o.colour for o in things}
            }
        case "restyle":
            return {s: restyle(scene, s) for s in STYLE_LIST if s != scene.style}
        case "background":
            return {p: change_place(scene, p) for p in PLACE_LIST if p != scene.place}
        case "time":
            return {t: change_time(scene, t) for t in TIME_LIST if t != scene.time}
        case "move":
            return {0: move_left(scene, int(np.argmax([o.x for o in things])))}
        case _:
            return {
                k: change_count(scene, k) for k in range(1, MAX_OBJECTS + 1) if k != len(things)
            }


def _other_nouns(things: Sequence[Object]) -> list[str]:
    return [noun for noun in NOUN_LIST if noun not in {o.noun for o in things}]


def _base(composition: str, noun: str, place: str, style: str, dice: Dice) -> Scene:
    """Draw a scene that is composed so and holds the held-out composition.

    "aside" is a pair with one of the two missing.
    """
    while True:
        scene = random_scene(dice.rng, counts=COUNT_SHARES[composition])
        if _composition(scene) == ("pair" if composition == "aside" else composition):
            break
    main = int(dice.rng.integers(len(scene.objects)))
    other = (
        noun if composition == "group" else dice.pick([n for n in NOUN_LIST if n != noun], "base")
    )
    things = [
        replace(o, noun=noun if k == main else other, colour=o.colour if style in COLOURFUL else "")
        for k, o in enumerate(scene.objects)
    ]
    return replace(
        scene,
        place=place,
        style=style,
        objects=(things[main],) if composition == "aside" else tuple(things),
    )


def _composition(scene: Scene) -> str:
    if is_pair(scene):
        return "pair" if relation(*scene.objects) == "left" else ""
    return (
        "one"
        if len(scene.objects) == 1
        else "group"
        if len({o.noun for o in scene.objects}) == 1
        else ""
    )


def _words(scene: Scene) -> set[object]:
    return {
        scene.place,
        scene.style,
        scene.time,
        len(scene.objects),
        *(o.noun for o in scene.objects),
        *(o.colour for o in scene.objects),
    }
