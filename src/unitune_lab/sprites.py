"""Draws the bank of object pictures anew: python -m unitune_lab.sprites FONT.

FONT is a file of Noto Color Emoji (OFL 1.1).
"""

import sys

from PIL import Image, ImageDraw, ImageFont
from unitune.scenes.sprites import BANK, SIDE
from unitune.scenes.vocabulary import NOUNS


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
    if len(sys.argv) != 2:
        sys.exit("unitune_lab.sprites: name a file of Noto Color Emoji")
    extract(sys.argv[1])
