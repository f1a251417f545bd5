"""The committed bank of object pictures.

`python -m unitune.scenes.sprites FONT` made it from Noto Color Emoji (OFL 1.1).
"""

import sys
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

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


def extract(font_file: str) -> None:
    """Draw every noun's glyph at the font's one bitmap size (109), trimmed, into a tile."""
    font = ImageFont.truetype(font_file, 109)
    BANK.mkdir(parents=True, exist_ok=True)
    for noun, (glyph, _) in NOUNS.items():
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((8, 8), glyph[0], font=font, embedded_color=True)
        trimmed = canvas.crop(canvas.getbbox())
        scale = SIDE / max(trimmed.size)
        sides = [max(1, round(s * scale)) for s in trimmed.size]
        trimmed = trimmed.resize(sides, Image.Resampling.LANCZOS)
        tile = Image.new("RGBA", (SIDE, SIDE))
        tile.paste(trimmed, ((SIDE - trimmed.width) // 2, SIDE - trimmed.height))
        tile.save(BANK / f"{noun}.png", optimize=True)


if __name__ == "__main__":
    extract(sys.argv[1])
