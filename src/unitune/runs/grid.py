"""A grid of pictures with labels, the first thing to look at after a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unitune import images
from unitune.types import Refused

GAP, INK, PAPER, FONT_SIZE = 8, (20, 20, 20), (255, 255, 255), 14
LINE = FONT_SIZE + 4  # px from one line of a label to the next
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrapped(text: str, width: int, font: Font) -> list[str]:
    """Break a label into lines of at most `width` px.

    A word longer than a line is broken where the line ends.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            line = word
            while font.getlength(line) > width and len(line) > 1:
                fits = (k for k in range(len(line) - 1, 1, -1) if font.getlength(line[:k]) <= width)
                cut = next(fits, 1)
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines if any(lines) else []


def fitted(image: np.ndarray, side: int) -> Image.Image:
    """Scale a whole picture, uint8 (H, W, 3), into a square tile, centred on paper.

    Nothing is cropped; anything but such a picture is refused.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise Refused(
            f"a grid shows uint8 pictures of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    if picture.size != (width, height):
        resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        picture = picture.resize((width, height), resampling)
    tile = Image.new("RGB", (side, side), PAPER)
    tile.paste(picture, ((side - width) // 2, (side - height) // 2))
    return tile


def labelled_grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    path: str | Path,
    tile: int = 192,
) -> None:
    """Write pictures, uint8 (H, W, 3), as a PNG grid; the same input gives the same bytes.

    Row labels stand on the left, column labels on top; empty lists of labels leave no room for
    them. Pictures may differ in size; each is scaled whole into a square of `tile` px.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0 or any(len(row) != columns for row in rows):
        raise Refused(
            f"a grid needs rows of one length, got rows of {[len(row) for row in rows]} pictures"
        )
    for name, labels, count in (("row", row_labels, len(rows)), ("column", column_labels, columns)):
        if labels and len(labels) != count:
            raise Refused(
                f"{count} {name}s of pictures but {len(labels)} {name} labels; "
                "give one label each, or none"
            )
    font = ImageFont.load_default(size=FONT_SIZE)
    above = [wrapped(text, tile, font) for text in column_labels]
    beside = [wrapped(text, tile - GAP, font) for text in row_labels] or [[]] * len(rows)
    top = GAP + LINE * max(map(len, above), default=0)
    left = GAP
    if row_labels:
        widths = [font.getlength(text) for lines in beside for text in lines]
        left += GAP + round(max(widths, default=-GAP))
    heights = [max(tile, len(lines) * LINE) for lines in beside]
    whole = left + columns * (tile + GAP), top + sum(heights) + GAP * len(rows)
    canvas = Image.new("RGB", whole, PAPER)
    draw = ImageDraw.Draw(canvas)
    places = [left + column * (tile + GAP) for column in range(columns)]
    for x, lines in zip(places, above, strict=False):
        for k, text in enumerate(lines):
            middle = round(x + (tile - font.getlength(text)) / 2)
            draw.text((middle, top - (len(lines) - k) * LINE), text, fill=INK, font=font)
    y = top
    for row, lines, height in zip(rows, beside, heights, strict=True):
        first = y + round((height - len(lines) * LINE) / 2)
        for k, text in enumerate(lines):
            draw.text((GAP, first + k * LINE), text, fill=INK, font=font)
        for x, image in zip(places, row, strict=True):
            canvas.paste(fitted(image, tile), (x, y + (height - tile) // 2))
        y += height + GAP
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    images.save_png(images.from_uint8(np.asarray(canvas)), path)
