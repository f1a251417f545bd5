"""Draws single edits of a scene, those first whose words were used least."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from unitune.scenes import changes
from unitune.scenes.edits import LOOKS, SceneEdit
from unitune.scenes.legible import own_colours
from unitune.scenes.scene import (
    COLOUR_LIST,
    MAX_OBJECTS,
    NOUN_LIST,
    PLACE_LIST,
    SIZES,
    STYLE_LIST,
    TIME_LIST,
    Object,
    Scene,
    is_held_out,
)

SPREAD = 2.0  # by how many uses a draw may depart from strict balance

Accept = Callable[[SceneEdit], bool]
Word = TypeVar("Word", bound=str | int)


@dataclass(frozen=True)
class Dice:
    """Draws that prefer what was used least in the same role."""

    rng: np.random.Generator
    accept: Accept
    used: Counter[tuple[str, object]] = field(default_factory=Counter)

    def pick(self, options: Sequence[Word], role: str) -> Word:
        """Draw one of `options`; `note` what comes of it."""
        return min(options, key=lambda option: self.used[role, option] + SPREAD * self.rng.random())

    def note(self, role: str, words: Collection[object]) -> None:
        """Count words as used."""
        self.used.update((role, word) for word in words)


def two(scene: Scene, structure: Sequence[str], dice: Dice) -> list[SceneEdit]:
    """Draw two changes at once, of different kinds: one of `structure`, then one of LOOKS."""
    kind = dice.pick(structure, "two")
    first = propose(kind, scene, dice)
    look = dice.pick([look for look in LOOKS if look != kind], "two")
    return [first, propose(look, first.after, dice)]


def propose(kind: str, scene: Scene, dice: Dice) -> SceneEdit:
    """Draw one edit of a kind, of those whose results are held out if there are any."""
    options = _options(kind, scene, dice.rng)
    unseen = {word: edit for word, edit in options.items() if is_held_out(edit.after)} or options
    return unseen[dice.pick(list(unseen), kind)]


def _options(kind: str, scene: Scene, rng: np.random.Generator) -> dict[str | int, SceneEdit]:
    """List the edits of a kind by the word or the number that tells them apart."""
    things = scene.objects
    index = int(rng.integers(len(things)))
    thing = things[index]
    nouns = [noun for noun in NOUN_LIST if noun not in {o.noun for o in things}]
    match kind:
        case "replace":
            return {noun: changes.replace_object(scene, index, noun) for noun in nouns}
        case "add":
            x = 0.75 if thing.x < 0.5 else 0.25
            y = thing.y + float(rng.uniform(-0.03, 0.03))
            size = float(rng.uniform(*SIZES[1]))
            flip = bool(rng.random() < 0.5)
            added = [Object(noun, x, y, size, flip) for noun in nouns]
            return {new.noun: changes.add_object(scene, new) for new in added}
        case "remove":
            return {k: changes.remove_object(scene, k) for k in range(len(things))}
        case "recolour":
            had = own_colours(thing.noun) | {o.colour for o in things}
            colours = [colour for colour in COLOUR_LIST if colour not in had]
            return {colour: changes.recolour(scene, thing.noun, colour) for colour in colours}
        case "restyle":
            return {s: changes.restyle(scene, s) for s in STYLE_LIST if s != scene.style}
        case "background":
            return {p: changes.change_place(scene, p) for p in PLACE_LIST if p != scene.place}
        case "time":
            return {t: changes.change_time(scene, t) for t in TIME_LIST if t != scene.time}
        case "move":
            return {0: changes.move_left(scene, int(np.argmax([o.x for o in things])))}
        case _:
            counts = [k for k in range(1, MAX_OBJECTS + 1) if k != len(things)]
            return {k: changes.change_count(scene, k) for k in counts}
