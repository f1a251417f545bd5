"""The committed bank of object pictures, from Noto Color Emoji (OFL 1.1).

`python -m unitune_lab.sprites FONT` made it.
"""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unitune.scenes.vocabulary import COLOURS, NOUNS

BANK = Path(__file__).parent.parent / "assets" / "sprites"
SIDE = 128  # px, of the square tile that holds a sprite


@cache
def sprite(noun: str) -> Image.Image:
    """Return the RGBA tile (SIDE x SIDE, the object at the bottom centre) of a noun.

    KeyError for a noun that is not in the world.
    """
    if noun not in NOUNS:
        raise KeyError(f"no sprite for {noun!r}; the world has: {', '.join(NOUNS)}")
    return Image.open(BANK / f"{noun}.png").convert("RGBA")


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Return the luminance (ITU-R BT.601) of the first three channels, float32.

    The same bits on every processor: a matrix product would round as the processor's instructions
    do, and a tie decides a pixel. Here each product is exact and each sum is rounded once.
    """
    total = np.zeros(rgb.shape[:-1], np.float32)
    for channel, weight in enumerate(np.array([0.299, 0.587, 0.114], np.float32)):
        total = (total + rgb[..., channel].astype(np.float64) * float(weight)).astype(np.float32)
    return total


def recoloured(tile: Image.Image, colour: str) -> Image.Image:
    """Paint a tile in one colour, pixel by pixel.

    Its brightness runs from a third of the colour up to the colour and on to nearly white.
    """
    pixels = np.asarray(tile).astype(np.float32)
    bright = luminance(pixels)[..., None] / 255
    paint = np.array(COLOURS[colour], np.float32) * (0.34 + 0.9 * bright).clip(0, 1)
    paint += (255 - paint) * (0.55 * (bright - 0.72).clip(0) / 0.28)
    painted = np.concatenate([paint.clip(0, 255), pixels[..., 3:]], axis=2)
    return Image.fromarray(painted.astype(np.uint8))


@lru_cache(maxsize=4096)
def resized(noun: str, side: int, flip: bool, colour: str = "") -> Image.Image:
    """Return the tile of a noun at `side` px, mirrored and painted if asked."""
    tile = sprite(noun).resize((side, side), Image.Resampling.LANCZOS)
    tile = recoloured(tile, colour) if colour else tile
    return ImageOps.mirror(tile) if flip else tile
