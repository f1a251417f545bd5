"""Grids of pictures: every picture whole, labels wrapped, the same bytes twice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from unitune.runs.grid import GAP, fitted, labelled_grid, wrapped
from unitune.types import Refused

FONT = ImageFont.load_default(size=14)


def flat(value: int, height: int = 40, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_every_picture_is_in_the_grid_at_its_place(tmp_path: Path):
    rows = [[flat(30), flat(90)], [flat(150), flat(210)]]
    labelled_grid(rows, row_labels=[], column_labels=[], path=tmp_path / "grid.png", tile=40)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    for i in range(2):
        for j in range(2):
            y, x = GAP + i * (40 + GAP), GAP + j * (40 + GAP)
            assert (grid[y : y + 40, x : x + 40] == rows[i][j][0, 0, 0]).all()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.png", "b.png"):
        labelled_grid(
            [[flat(30), flat(90)]],
            row_labels=["a cat"],
            column_labels=["base", "edit"],
            path=tmp_path / name,
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_labels_are_drawn_and_take_room(tmp_path: Path):
    labelled_grid(
        [[flat(255)]],
        row_labels=["row"],
        column_labels=["a long label that needs several lines"],
        path=tmp_path / "with.png",
        tile=64,
    )
    labelled_grid(
        [[flat(255)]], row_labels=[], column_labels=[], path=tmp_path / "without.png", tile=64
    )
    with_labels, without = (
        np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("with", "without")
    )
    assert (
        with_labels.shape[0] > without.shape[0] + 3 * 14 and with_labels.shape[1] > without.shape[1]
    )
    assert with_labels.min() < 100 and without.min() == 255
    assert (with_labels[:, -GAP:] == 255).all() and (
        with_labels[-GAP:] == 255
    ).all()  # nothing runs over the border


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 200), (200, 20), (7, 5)])
def test_pictures_are_never_cropped(height: int, width: int):
    image = flat(100, height, width)
    image[0], image[-1], image[:, 0], image[:, -1] = 0, 0, 0, 0
    tile = np.asarray(fitted(image, 96))
    inside = np.argwhere((tile < 250).all(axis=2))
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0)
    assert (bottom - top + 1) / (right - left + 1) == pytest.approx(height / width, rel=0.1)
    assert max(bottom - top, right - left) + 1 == 96


def test_wrapping_loses_nothing():
    long = "pneumonoultramicroscopicsilicovolcanoconiosis"
    text = f"a black and white photo of a dinosaur, {long} in the snow"
    lines = wrapped(text, 120, FONT)
    assert all(FONT.getlength(line) <= 120 for line in lines) and len(lines) > 2
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped("", 100, FONT) == [] and wrapped("a\nb", 100, FONT) == ["a", "b"]


def test_tall_row_labels_do_not_overlap(tmp_path: Path):
    labelled_grid(
        [[flat(50)], [flat(60)]],
        row_labels=["word " * 40, "b"],
        column_labels=[],
        path=tmp_path / "g.png",
        tile=48,
    )
    assert Image.open(tmp_path / "g.png").size[1] > 2 * 48 + 3 * GAP


def test_wrong_input_is_refused(tmp_path: Path):
    path = tmp_path / "g.png"
    with pytest.raises(Refused, match="rows of one length"):
        labelled_grid([[flat(1)], []], row_labels=[], column_labels=[], path=path)
    with pytest.raises(Refused, match="labels"):
        labelled_grid([[flat(1)]], row_labels=["a", "b"], column_labels=[], path=path)
    with pytest.raises(Refused, match="uint8"):
        labelled_grid(
            [[np.zeros((4, 4, 3), np.float32)]], row_labels=[], column_labels=[], path=path
        )
    assert not path.exists()
