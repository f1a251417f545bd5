"""Scene -> picture and instance masks.

Always drawn at 256 px and reduced, so that every size shows the same picture.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unitune.scenes import sprites
from unitune.scenes.backgrounds import OBJECT_TINT, SIDE, background
from unitune.scenes.scene import Object, Scene

PIXEL = 8  # side of a block of the "pixel" style, px at 256
HATCH = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 8 < 3).astype(np.float64)


def _sepia(rgb: np.ndarray) -> np.ndarray:
    grey = sprites.luminance(rgb)[..., None]
    return grey * np.array([1.0, 0.84, 0.62], np.float32) + np.array([18, 10, 2], np.float32)


def _pixel_art(rgb: np.ndarray) -> np.ndarray:
    blocks = rgb.reshape(SIDE // PIXEL, PIXEL, SIDE // PIXEL, PIXEL, 3).mean(axis=(1, 3))
    return np.round(blocks / 32).clip(0, 7).repeat(PIXEL, 0).repeat(PIXEL, 1) * 36


def _pencil(rgb: np.ndarray) -> np.ndarray:
    grey = sprites.luminance(rgb)
    down, across = np.diff(grey, axis=0, append=grey[-1:]), np.diff(grey, append=grey[:, -1:])
    edges = np.abs(down) + np.abs(across)
    hatching = HATCH * (150 - grey).clip(0, 90) * 0.8  # dark places are hatched
    paper = 250 - 0.22 * (255 - grey) - hatching - 1.6 * edges.clip(0, 120)
    return paper[..., None] * np.array([1.0, 0.99, 0.95], np.float32)


STYLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda rgb: rgb,
    "pixel": _pixel_art,
    "pencil": _pencil,
    "sepia": _sepia,
}
# px that a style's filter reaches: an exact mask grows by it.
SUPPORT = {"plain": 0, "pixel": PIXEL - 1, "pencil": 1, "sepia": 0}


def _paste(canvas: Image.Image, thing: Object, time: str) -> np.ndarray:
    side = max(1, round(thing.size * SIDE))
    tile = sprites.resized(thing.noun, side, thing.flip, thing.colour)
    place = round(thing.x * SIDE - side / 2), round(thing.y * SIDE - side)
    colours, opaque = tile.convert("RGB"), tile.getchannel("A")
    if time != "day":
        light = [int(value * tint) for tint in OBJECT_TINT[time] for value in range(256)]
        colours = colours.point(light)
    canvas.paste(colours, place, opaque)
    cover = Image.new("L", canvas.size)
    cover.paste(opaque, place)
    return np.asarray(cover) > 0


def reduced(picture: UInt8[np.ndarray, "256 256 C"], size: int) -> UInt8[np.ndarray, "size size C"]:
    """Reduce a 256 px picture to `size`, a divisor of 256, by averaging boxes."""
    k = SIDE // size
    if k * size != SIDE:
        raise ValueError(f"size must divide {SIDE}, got {size}")
    return picture if k == 1 else np.asarray(Image.fromarray(picture).reduce(k))


def render(
    scene: Scene, size: int = SIDE
) -> tuple[UInt8[np.ndarray, "size size 3"], list[np.ndarray]]:
    """Draw a scene; also return the mask of each object's pixels at 256 px, bool.

    Objects drawn later win.
    """
    canvas = background(scene.place, scene.time, scene.seed)
    masks: list[np.ndarray] = []
    for thing in scene.objects:
        cover = _paste(canvas, thing, scene.time)
        masks = [m & ~cover for m in masks] + [cover]
    styled = np.asarray(canvas)
    if scene.style != "plain":
        styled = STYLE[scene.style](styled.astype(np.float32)).clip(0, 255).astype(np.uint8)
    return reduced(np.ascontiguousarray(styled), size), masks
