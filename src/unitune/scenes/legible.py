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
MIN_CHANGE = 14.0  # mean change of a pixel of the mask, 0-255, by an edit
MIN_REPAINTED = 30.0  # the same, by a new colour
NEAR_HUE = 50.0  # degrees
COLOURED = 0.35  # least saturation
OWN_SHARE = 0.35  # share of an object's pixels that make a colour its own
PALE = {"pencil": 0.6}  # styles of little contrast: the share of the above that is asked of them
MIN_SEEN = 0.9  # share of an object that the others leave to be seen
MARGIN = 0.005  # by which an object may leave the picture: rounding to pixels

_render = lru_cache(maxsize=64)(render)


@cache
def own_colours(noun: str) -> frozenset[str]:
    """List the colours that a kind of object more or less has without being painted, by hue."""
    tile = sprite(noun)
    seen = np.asarray(tile)[..., 3] > 128
    hsv = np.asarray(tile.convert("RGB").convert("HSV"))[seen]
    hue, saturation = hsv[:, 0] * (360 / 255), hsv[:, 1] / 255
    own = set()
    for colour, rgb in COLOURS.items():
        apart = np.abs((hue - 360 * rgb_to_hsv(*rgb)[0] + 180) % 360 - 180)
        if np.mean((apart < NEAR_HUE) & (saturation > COLOURED)) > OWN_SHARE:
            own.add(colour)
    return frozenset(own)


def shows_well(scene: Scene) -> bool:
    """Say whether every object lies inside the picture, is seen and stands out.

    Neither paint in a style that hides it nor three objects in pixel art show well.
    """
    things = scene.objects
    hidden_paint = scene.style not in COLOURFUL and any(o.colour for o in things)
    too_few_blocks = scene.style == "pixel" and len(things) > 2
    outside = any(
        abs(o.x - 0.5) > (1 - o.size) / 2 + MARGIN or not o.size <= o.y <= 1 for o in things
    )
    if hidden_paint or too_few_blocks or outside:
        return False
    picture, masks = _render(scene)
    for thing, mask in zip(things, masks, strict=True):
        if mask.sum() < MIN_SEEN * outline(thing).sum():
            return False
    enough = MIN_CONTRAST * PALE.get(scene.style, 1.0)
    for k, mask in enumerate(masks):
        without = replace(scene, objects=things[:k] + things[k + 1 :])
        if _difference(picture, _render(without)[0], mask) < enough:
            return False
    return True


def shows_change(edit: SceneEdit) -> bool:
    """Say whether the edit is plain to see."""
    enough = MIN_CHANGE * PALE.get(edit.after.style, 1.0)
    if edit.kind == "recolour":
        enough = MIN_REPAINTED
    return _difference(_render(edit.before)[0], _render(edit.after)[0], edit.mask()) >= enough


def _difference(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(a[where].astype(np.float32) - b[where]).mean()) if where.any() else 0.0
