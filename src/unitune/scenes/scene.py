"""What a scene is: a place, a time of day, one to four objects and a style, plus the seed of the background's details."""

import zlib
from dataclasses import dataclass

import numpy as np

from unitune.scenes.vocabulary import COLOURFUL, COLOURS, NOUNS, PLACES, STYLES, TIMES

MAX_OBJECTS = 4
HELD_OUT_SHARE = 0.1  # of all compositions noun x place x style
NOUN_LIST, PLACE_LIST, TIME_LIST, STYLE_LIST, COLOUR_LIST = (list(words) for words in (NOUNS, PLACES, TIMES, STYLES, COLOURS))
COUNT_SHARES = (0.55, 0.27, 0.10, 0.08)
TIME_SHARES = (0.56, 0.22, 0.22)
STYLE_SHARES = (0.60, 0.10, 0.10, 0.10, 0.10)
SIZES = ((0.45, 0.66), (0.34, 0.46), (0.26, 0.32), (0.20, 0.24))  # of one, two, three, four objects
ALIKE_SHARES = (0.0, 0.3, 0.5, 0.8)  # of scenes of so many objects, those whose objects are all of one kind
COLOUR_SHARE, BEHIND_SHARE = 0.2, 0.2


@dataclass(frozen=True)
class Object:
    """One object: `x` is its centre and `y` its feet, `size` its longer side, all as shares of the picture's side; `colour` "" is its own."""

    noun: str
    x: float
    y: float
    size: float
    flip: bool = False
    colour: str = ""

    def __post_init__(self) -> None:
        if self.noun not in NOUNS:
            raise ValueError(f"unknown noun {self.noun!r}; the scenes world has: {', '.join(NOUNS)}")
        if self.colour and self.colour not in COLOURS:
            raise ValueError(f"unknown colour {self.colour!r}; the scenes world has: {', '.join(COLOURS)}")
        if not 0 < self.size <= 1:
            raise ValueError(f"size must be in (0, 1], got {self.size}")


@dataclass(frozen=True)
class Scene:
    """A picture as facts; objects are drawn in order, from left to right or from back to front when made by `random_scene`."""

    place: str
    time: str
    objects: tuple[Object, ...]
    style: str = "plain"
    seed: int = 0  # of the background's details: skyline, trees, stars

    def __post_init__(self) -> None:
        for name, value, allowed in (("place", self.place, PLACES), ("time", self.time, TIMES), ("style", self.style, STYLES)):
            if value not in allowed:
                raise ValueError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")
        if not 0 <= len(self.objects) <= MAX_OBJECTS:
            raise ValueError(f"a scene has at most {MAX_OBJECTS} objects, got {len(self.objects)}")


def held_out(noun: str, place: str, style: str) -> bool:
    """Say whether pretraining never sees this noun in this place in this style; `assets/scenes/held_out.txt` lists all such compositions."""
    return zlib.crc32(f"{noun}|{place}|{style}".encode()) % 1000 < 1000 * HELD_OUT_SHARE


def is_held_out(scene: Scene) -> bool:
    """Say whether any object of the scene makes a composition that pretraining never sees."""
    return any(held_out(o.noun, scene.place, scene.style) for o in scene.objects)


def relation(first: Object, second: Object) -> str:
    """Say how the first object stands to the second: "behind" (overlapped by it, feet clearly higher), "left" or "" for neither."""
    apart = abs(first.x - second.x) / ((first.size + second.size) / 2)
    if apart < 0.75 and first.y < second.y - 0.05:
        return "behind"
    return "left" if first.x < second.x and apart >= 0.75 else ""


def _draw(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    u, total = rng.random() * sum(shares), 0.0
    for k, share in enumerate(shares):
        total += share
        if u < total:
            return k
    return len(shares) - 1


def _object(noun: str, colour: str, slot: int, count: int, rng: np.random.Generator) -> Object:
    size = float(rng.uniform(*SIZES[count - 1]))
    centre = (slot + 0.5) / count
    x = min(max(centre + float(rng.uniform(-0.12, 0.12)) / count, size / 2), 1 - size / 2)
    return Object(noun, x, float(rng.uniform(0.80, 0.92)), size, bool(rng.random() < 0.5), colour)


def _behind(nouns: list[str], colours: list[str], rng: np.random.Generator) -> tuple[Object, ...]:
    """Draw two objects, the first partly hidden by the second."""
    size, side = float(rng.uniform(0.40, 0.50)), 1 if rng.random() < 0.5 else -1
    x, shift = 0.5 - side * float(rng.uniform(0.06, 0.14)), side * size * float(rng.uniform(0.5, 0.65))
    front = Object(nouns[1], x, float(rng.uniform(0.88, 0.95)), size, bool(rng.random() < 0.5), colours[1])
    back = Object(nouns[0], x + shift, front.y - float(rng.uniform(0.14, 0.20)), size * float(rng.uniform(0.85, 1.0)), bool(rng.random() < 0.5), colours[0])
    return (back, front)


def random_scene(rng: np.random.Generator, *, held_out: bool = False, counts: tuple[float, ...] = COUNT_SHARES) -> Scene:
    """Draw a scene; `counts` are the chances of 1, 2, 3, 4 objects; `held_out` asks for compositions that pretraining never sees."""
    while True:
        count = _draw(rng, counts) + 1
        style = STYLE_LIST[_draw(rng, STYLE_SHARES)]
        alike = rng.random() < ALIKE_SHARES[count - 1]
        order = rng.permutation(len(NOUN_LIST))
        nouns = [NOUN_LIST[order[0 if alike else k]] for k in range(count)]
        coloured = [style in COLOURFUL and rng.random() < COLOUR_SHARE for _ in nouns]
        colours = [COLOUR_LIST[int(rng.integers(len(COLOUR_LIST)))] if yes else "" for yes in coloured]
        colours = colours[:1] * count if alike else colours
        behind = count == 2 and not alike and rng.random() < BEHIND_SHARE
        placed = _behind(nouns, colours, rng) if behind else tuple(_object(n, c, k, count, rng) for k, (n, c) in enumerate(zip(nouns, colours, strict=True)))
        scene = Scene(
            place=PLACE_LIST[int(rng.integers(len(PLACE_LIST)))],
            time=TIME_LIST[_draw(rng, TIME_SHARES)],
            objects=placed,
            style=style,
            seed=int(rng.integers(2**31)),
        )
        if is_held_out(scene) == held_out:
            return scene
