"""What a scene is: a place, a time of day, one to three objects and a style, plus the seed of the background's details."""

import zlib
from dataclasses import dataclass

import numpy as np

from unitune.scenes.vocabulary import NOUNS, PLACES, STYLES, TIMES

MAX_OBJECTS = 3
HELD_OUT_SHARE = 0.1  # of all compositions noun x place x style
NOUN_LIST, PLACE_LIST, TIME_LIST, STYLE_LIST = (list(words) for words in (NOUNS, PLACES, TIMES, STYLES))
TIME_SHARES = (0.56, 0.22, 0.22)
STYLE_SHARES = (0.64, 0.12, 0.12, 0.12)


@dataclass(frozen=True)
class Object:
    """One object: `x` is its centre and `y` its feet, `size` its longer side, all as shares of the picture's side."""

    noun: str
    x: float
    y: float
    size: float
    flip: bool = False

    def __post_init__(self) -> None:
        if self.noun not in NOUNS:
            raise ValueError(f"unknown noun {self.noun!r}; the scenes world has: {', '.join(NOUNS)}")
        if not 0 < self.size <= 1:
            raise ValueError(f"size must be in (0, 1], got {self.size}")


@dataclass(frozen=True)
class Scene:
    """A picture as facts; objects are drawn in order, from left to right when made by `random_scene`."""

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


def is_held_out(scene: Scene) -> bool:
    """Say whether the scene holds a composition (noun x place x style) that pretraining never sees."""
    return any(zlib.crc32(f"{o.noun}|{scene.place}|{scene.style}".encode()) % 1000 < 1000 * HELD_OUT_SHARE for o in scene.objects)


def _draw(rng: np.random.Generator, shares: tuple[float, ...]) -> int:
    u, total = rng.random() * sum(shares), 0.0
    for k, share in enumerate(shares):
        total += share
        if u < total:
            return k
    return len(shares) - 1


def _object(noun: str, slot: int, count: int, rng: np.random.Generator) -> Object:
    size = float(rng.uniform(*((0.45, 0.66), (0.34, 0.46), (0.26, 0.32))[count - 1]))
    centre = (slot + 0.5) / count
    x = min(max(centre + float(rng.uniform(-0.12, 0.12)) / count, size / 2), 1 - size / 2)
    return Object(noun, x, float(rng.uniform(0.80, 0.92)), size, bool(rng.random() < 0.5))


def random_scene(rng: np.random.Generator, *, held_out: bool = False, counts: tuple[float, ...] = (0.6, 0.28, 0.12)) -> Scene:
    """Draw a scene; `counts` are the chances of 1, 2, 3 objects; `held_out` asks for compositions that pretraining never sees."""
    while True:
        count = _draw(rng, counts) + 1
        nouns = rng.permutation(len(NOUN_LIST))[:count]
        scene = Scene(
            place=PLACE_LIST[int(rng.integers(len(PLACE_LIST)))],
            time=TIME_LIST[_draw(rng, TIME_SHARES)],
            objects=tuple(_object(NOUN_LIST[noun], slot, count, rng) for slot, noun in enumerate(nouns)),
            style=STYLE_LIST[_draw(rng, STYLE_SHARES)],
            seed=int(rng.integers(2**31)),
        )
        if is_held_out(scene) == held_out:
            return scene
