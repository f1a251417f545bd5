"""A grid of pictures with labels, the first thing to look at after a run."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unitune.types import Refused

GAP, INK, PAPER, FONT_SIZE = 8, (20, 20, 20), (255, 255, 255), 14


def wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a label into lines of at most `width` px; a word longer than a line is broken where the line ends."""
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
                cut = next(
                    (k for k in range(len(line) - 1, 1, -1) if font.getlength(line[:k]) <= width), 1
                )
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines if any(lines) else []


def fitted(image: np.ndarray, side: int) -> Image.Image:
    """Scale a whole picture, uint8 (H, W, 3), into a square tile, centred on paper; nothing is cropped. Anything else is refused."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise Refused(
            f"a grid shows uint8 pictures of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = Image.new("RGB", (side, side), PAPER)
    picture = Image.fromarray(image)
    picture = (
        picture
        if picture.size == size
        else picture.resize(
            size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        )
    )
    tile.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile


def labelled_grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    path: str | Path,
    tile: int = 192,
) -> None:
    """Write pictures, uint8 (H, W, 3), as a PNG grid, row labels on the left, column labels on top; empty lists of labels leave no room for them.

    Pictures may differ in size; each is scaled whole into a square of `tile` px. The same input gives the same bytes.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0 or any(len(row) != columns for row in rows):
        raise Refused(
            f"a grid needs rows of one length, got rows of {[len(row) for row in rows]} pictures"
        )
    for name, labels, count in (("row", row_labels, len(rows)), ("column", column_labels, columns)):
        if labels and len(labels) != count:
            raise Refused(
                f"{count} {name}s of pictures but {len(labels)} {name} labels; give one label each, or none"
            )
    font = ImageFont.load_default(size=FONT_SIZE)
    line = FONT_SIZE + 4
    beside, above = (
        [wrapped(t, tile - GAP, font) for t in row_labels],
        [wrapped(t, tile, font) for t in column_labels],
    )
    left = GAP + (
        round(max((font.getlength(s) for lines in beside for s in lines), default=-GAP)) + GAP
        if beside
        else 0
    )
    top = GAP + (max((len(lines) for lines in above), default=0) * line)
    heights = [max(tile, len(lines) * line) for lines in (beside or [[]] * len(rows))]
    canvas = Image.new(
        "RGB", (left + columns * (tile + GAP), top + sum(heights) + GAP * len(rows)), PAPER
    )
    draw = ImageDraw.Draw(canvas)
    for column, lines in enumerate(above):
        for k, text in enumerate(lines):
            x = left + column * (tile + GAP) + (tile - font.getlength(text)) / 2
            draw.text((round(x), top - (len(lines) - k) * line), text, fill=INK, font=font)
    y = top
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        lines = beside[index] if beside else []
        for k, text in enumerate(lines):
            draw.text(
                (GAP, y + round((height - len(lines) * line) / 2) + k * line),
                text,
                fill=INK,
                font=font,
            )
        for column, image in enumerate(row):
            canvas.paste(
                fitted(image, tile), (left + column * (tile + GAP), y + (height - tile) // 2)
            )
        y += height + GAP
    _save(canvas, Path(path))


def _save(canvas: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    canvas.save(partial, format="PNG")
    partial.replace(path)
