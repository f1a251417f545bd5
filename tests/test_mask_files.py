"""Masks whose transparency says something: what a person means, or one line."""

import numpy as np
import pytest
from PIL import Image
from test_images import ramp

from unitune.images import load_mask
from unitune.types import Refused

INSIDE = np.zeros((32, 32), bool)
INSIDE[8:24, 4:20] = True


def layers(inside, outside, mode="RGBA") -> Image.Image:
    """A picture of one colour inside and another outside, each with its alpha."""
    pixels = np.where(INSIDE[..., None], inside, outside).astype(np.uint8)
    return Image.fromarray(pixels, mode)


@pytest.mark.parametrize(
    "picture",
    [
        layers((255, 255, 255, 255), (0, 0, 0, 0)),
        layers((255, 255, 255, 255), (255, 255, 255, 0)),
        layers((255, 255, 255, 255), (0, 0, 0, 255)),
        layers((255, 255, 255, 128), (0, 0, 0, 128)),
        layers((255, 255, 255, 200), (90, 180, 20, 0)),
        layers((255, 255), (255, 0), "LA"),
        layers((250, 255), (3, 255), "LA"),
    ],
    ids=[
        "white on nothing",
        "alpha carries the mask",
        "opaque",
        "half transparent everywhere",
        "a colour that nobody sees",
        "grey with alpha",
        "opaque grey",
    ],
)
def test_white_may_change_and_what_is_transparent_must_stay(tmp_path, picture):
    picture.save(tmp_path / "m.png")
    mask, size = load_mask(tmp_path / "m.png", size=32)
    assert size == (32, 32) and ((mask[0, 0] == 1).numpy() == INSIDE).all()


def photograph_with_a_hole() -> Image.Image:
    pixels = np.dstack([ramp(32, 32), np.where(INSIDE, 0, 255)]).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "picture",
    [
        layers((0, 0, 0, 255), (0, 0, 0, 0)),
        layers((0, 0, 0, 0), (0, 0, 0, 255)),
        layers((255, 0, 0, 255), (0, 0, 0, 0)),
        layers((255, 255, 0, 255), (0, 0, 0, 0)),
        layers((255, 255, 255, 0), (0, 0, 0, 0)),
        layers((0, 255), (0, 0), "LA"),
        photograph_with_a_hole(),
    ],
    ids=["black strokes", "a hole", "red", "yellow", "nothing", "black grey", "photograph"],
)
def test_what_may_mean_either_is_refused_in_one_line(tmp_path, picture):
    picture.save(tmp_path / "m.png")
    with pytest.raises(Refused) as refusal:
        load_mask(tmp_path / "m.png", size=32)
    said = str(refusal.value)
    assert "m.png is transparent" in said and "without transparency" in said and "\n" not in said


def test_soft_edges_of_a_brush_are_no_fault(tmp_path):
    alpha = np.clip(np.hypot(*(np.indices((64, 64)) - 32)) * -16 + 400, 0, 255)
    pixels = np.dstack([np.full((64, 64, 3), 255), alpha]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    mask, _ = load_mask(tmp_path / "m.png", size=64)
    assert ((mask[0, 0] == 1).numpy() == (alpha.astype(np.uint8) > 127)).all()
