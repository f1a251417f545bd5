"""Names are rare words that each belong to one scene.

From them a network learns that a word of unknown letters says WHICH one is meant. In real captions
such a word is the name of somebody.
"""

from dataclasses import replace
from functools import cache
from string import ascii_lowercase

import numpy as np
from unitune.scenes.caption import caption
from unitune.scenes.scene import (
    NOUN_LIST,
    PLACE_LIST,
    TIME_LIST,
    Scene,
    is_held_out,
    pick,
    random_scene,
)

NAMES = 384  # words that are somebody's name
ALONE, CHANGED = 0.3, 0.35  # of the captions with a name: the name alone; another place, time, noun


def rare_word(rng: np.random.Generator) -> str:
    """Return 4 to 9 random letters."""
    return "".join(ascii_lowercase[k] for k in rng.integers(26, size=int(rng.integers(4, 10))))


@cache
def named() -> tuple[tuple[str, Scene], ...]:
    """Return every name with its scene; the same in every process."""
    rng = np.random.default_rng(20_221_018)
    return tuple((rare_word(rng), random_scene(rng)) for _ in range(NAMES))


def named_scene(rng: np.random.Generator) -> tuple[str, Scene]:
    """Draw a caption with a name and its scene.

    In a changed scene the background's details, and the position, size and flip of the objects,
    are still those that the name stands for.
    """
    name, scene = named()[int(rng.integers(NAMES))]
    u = rng.random()
    if u < ALONE:
        return name, scene
    changed = _changed(scene, rng) if u < ALONE + CHANGED else scene
    return f"{name} {caption(changed, rng)}", changed


def _changed(scene: Scene, rng: np.random.Generator) -> Scene:
    while True:
        match int(rng.integers(3)):
            case 0:
                other = replace(scene, place=pick(rng, PLACE_LIST))
            case 1:
                other = replace(scene, time=pick(rng, TIME_LIST))
            case _:
                thing = replace(scene.objects[0], noun=pick(rng, NOUN_LIST))
                other = replace(scene, objects=(thing, *scene.objects[1:]))
        if not is_held_out(other):
            return other
