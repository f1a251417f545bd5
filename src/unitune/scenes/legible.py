"""What a picture needs so that its facts can be told from it.

Its objects lie inside, are seen and stand out, and an edit changes something plainly.
"""

from colorsys import rgb_to_hsv
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from unitune.scenes.edits import SceneEdit, outline
from unitune.scenes.render import render
from unitune.scenes.scene import Scene
from unitune.scenes.sprites import sprite
from unitune.scenes.vocabulary import COLOURFUL, COLOURS

MIN_CONTRAST = 24.0  # mean change of a pixel, 0-255, that an object makes on what is behind it
MIN_CHANGE, MIN_REPAINTED = (
    14.0,
    30.0,
)  # mean change of a pixel of the mask, 0-255, by an edit; by a new colour
NEAR_HUE, COLOURED, OWN_SHARE = (
    50.0,
    0.35,
    0.35,
)  # degrees; least saturation; share of an object's pixels that make a colour its own
PALE = {"pencil": 0.6}  # styles of little contrast: the share of the above that is asked of them
MIN_SEEN = 0.9  # share of an object that the others leave to be seen
MARGIN = 0.005  # by which an object may leave the picture: rounding to pixels

_render = lru_cache(maxsize=64)(render)


@cache
def own_colours(noun: str) -> frozenset[str]:
    """List the colours that a kind of object more or less has without being painted, by hue."""
    tile = sprite(noun)
    hue, saturation = (np.asarray(tile.convert("RGB").convert("HSV"))[..., :2][np.asarray(tile)[..., 3] > 128] * (360 / 255, 1 / 255)).T
    apart = {colour: np.abs((hue - 360 * rgb_to_hsv(*rgb)[0] + 180) % 360 - 180) for colour, rgb in COLOURS.items()}
    return frozenset(colour for colour, angle in apart.items() if np.mean((angle < NEAR_HUE) & (saturation > COLOURED)) > OWN_SHARE)


def shows_well(scene: Scene) -> bool:
    """Say whether every object lies inside the picture, is seen and stands out.

    Neither paint in a style that hides it nor three objects in pixel art show well.
    """
    things = scene.objects
    if (scene.style not in COLOURFUL and any(o.colour for o in things)) or (scene.style == "pixel" and len(things) > 2):  # too few blocks for three
        return False
    if any(abs(o.x - 0.5) > (1 - o.size) / 2 + MARGIN or not o.size <= o.y <= 1 for o in things):
        return False
    picture, masks = _render(scene)
    if any(mask.sum() < MIN_SEEN * outline(thing).sum() for thing, mask in zip(things, masks, strict=True)):
        return False
    rest = (_render(replace(scene, objects=things[:k] + things[k + 1 :]))[0] for k in range(len(things)))
    enough = MIN_CONTRAST * PALE.get(scene.style, 1.0)
    return all(_difference(picture, without, mask) >= enough for without, mask in zip(rest, masks, strict=True))


def changes(edit: SceneEdit) -> bool:
    """Say whether the edit is plain to see."""
    enough = MIN_REPAINTED if edit.kind == "recolour" else MIN_CHANGE * PALE.get(edit.after.style, 1.0)
    return _difference(_render(edit.before)[0], _render(edit.after)[0], edit.mask()) >= enough


def _difference(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(a[where].astype(np.float32) - b[where]).mean()) if where.any() else 0.0
