"""What a scene is: a place, a time of day, one to three objects and a style.

The seed of the background's details belongs to it too.
"""

import hashlib
import json
import zlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np

from unitune.scenes.vocabulary import COLOURFUL, COLOURS, NOUNS, PLACES, STYLES, TIMES

MAX_OBJECTS = 3
HELD_OUT_SHARE = 0.1  # of all compositions noun x place x style, about: 93 of 768
NOUN_LIST, PLACE_LIST, TIME_LIST = list(NOUNS), list(PLACES), list(TIMES)
STYLE_LIST, COLOUR_LIST = list(STYLES), list(COLOURS)
COUNT_SHARES = (0.50, 0.33, 0.17)  # of one, two, three objects
TIME_SHARES = (0.50, 0.25, 0.25)
STYLE_SHARES = (0.61, 0.13, 0.13, 0.13)
SIZES = ((0.50, 0.68), (0.38, 0.48), (0.28, 0.33))  # of one, two, three objects
ALIKE_SHARES = (0.0, 0.3, 0.5)  # of scenes of so many objects, those that hold one kind only
COLOUR_SHARE = 0.3
ASIDE_SHARE = 0.25  # of scenes drawn with several objects: those from which one is then taken away


@dataclass(frozen=True)
class Object:
    """One object: `x` is its centre, `y` its feet and `size` its longer side.

    All three are shares of the picture's side. `colour` "" leaves the object in its own colours.
    """

    noun: str
    x: float
    y: float
    size: float
    flip: bool = False
    colour: str = ""

    def __post_init__(self) -> None:
        for kind, word, known in (("noun", self.noun, NOUNS), ("colour", self.colour, COLOURS)):
            if word not in known and (word or kind == "noun"):
                words = ", ".join(known)
                raise ValueError(f"unknown {kind} {word!r}; the scenes world has: {words}")
        if not 0 < self.size <= 1:
            raise ValueError(f"size must be in (0, 1], got {self.size}")


@dataclass(frozen=True)
class Scene:
    """A picture as facts; objects are drawn in their order, `random_scene`'s from left to right."""

    place: str
    time: str
    objects: tuple[Object, ...]
    style: str = "plain"
    seed: int = 0  # of the background's details: skyline, trees, stars

    def __post_init__(self) -> None:
        for name, allowed in (("place", PLACES), ("time", TIMES), ("style", STYLES)):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")
        if len(self.objects) > MAX_OBJECTS:
            raise ValueError(f"a scene has at most {MAX_OBJECTS} objects, got {len(self.objects)}")


def held_out(noun: str, place: str, style: str) -> bool:
    """Say whether pretraining never sees this noun in this place in this style."""
    return zlib.crc32(f"{noun}|{place}|{style}".encode()) % 1000 < 1000 * HELD_OUT_SHARE


def is_held_out(scene: Scene) -> bool:
    """Say whether any object of the scene makes a composition that pretraining never sees."""
    return any(held_out(o.noun, scene.place, scene.style) for o in scene.objects)


def is_pair(scene: Scene) -> bool:
    """Say whether the scene holds two objects of different kinds."""
    return len(scene.objects) == 2 and scene.objects[0].noun != scene.objects[1].noun


def left_of(first: Object, second: Object) -> bool:
    """Say whether the first object stands clearly left of the second."""
    return second.x - first.x >= 0.75 * (first.size + second.size) / 2


def row(scene: Scene) -> list[Object]:
    """List the objects from left to right."""
    return sorted(scene.objects, key=lambda o: o.x)


@cache
def world_digest() -> str:
    """Name the world's words and shares: what was trained or drawn in another world has another."""
    sizes = [SIZES, COUNT_SHARES, TIME_SHARES, STYLE_SHARES, ALIKE_SHARES, COLOUR_SHARE]
    sizes.append(ASIDE_SHARE)
    words = [NOUNS, PLACES, TIMES, STYLES, COLOURS, COLOURFUL, HELD_OUT_SHARE]
    return hashlib.sha256(json.dumps([words, sizes], sort_keys=True).encode()).hexdigest()[:16]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Draw one of several words."""
    return options[int(rng.integers(len(options)))]


def _draw(rng: np.random.Generator, shares: Sequence[float]) -> int:
    u = rng.random() * sum(shares)
    return min(bisect(list(accumulate(shares)), u), len(shares) - 1)


def _random_object(
    noun: str, colour: str, slot: int, count: int, rng: np.random.Generator
) -> Object:
    size = float(rng.uniform(*SIZES[count - 1]))
    centre = (slot + 0.5) / count + float(rng.uniform(-0.12, 0.12)) / count
    x = min(max(centre, size / 2), 1 - size / 2)
    y, flip = float(rng.uniform(0.80, 0.92)), bool(rng.random() < 0.5)
    return Object(noun, x, y, size, flip, colour)


def random_scene(
    rng: np.random.Generator, *, held_out: bool = False, counts: Sequence[float] | None = None
) -> Scene:
    """Draw a scene.

    `counts` are the chances of one, two and three objects; without them the world's own are taken,
    and from some scenes one of several objects is taken away, as an edit may do: what stays is as
    small, and stands as far aside, as it was. `held_out` asks for a composition that pretraining
    never sees.
    """
    while True:
        count = _draw(rng, counts or COUNT_SHARES) + 1
        style = STYLE_LIST[_draw(rng, STYLE_SHARES)]
        alike = rng.random() < ALIKE_SHARES[count - 1]
        order = rng.permutation(len(NOUN_LIST))
        nouns = [NOUN_LIST[order[0 if alike else k]] for k in range(count)]
        painted = [style in COLOURFUL and rng.random() < COLOUR_SHARE for _ in nouns]
        colours = [pick(rng, COLOUR_LIST) if yes else "" for yes in painted]
        colours = colours[:1] * count if alike else colours
        things = [_random_object(nouns[k], colours[k], k, count, rng) for k in range(count)]
        if counts is None and count > 1 and rng.random() < ASIDE_SHARE:
            del things[int(rng.integers(count))]
        place, time = pick(rng, PLACE_LIST), TIME_LIST[_draw(rng, TIME_SHARES)]
        scene = Scene(place, time, tuple(things), style, int(rng.integers(2**31)))
        if is_held_out(scene) == held_out:
            return scene
