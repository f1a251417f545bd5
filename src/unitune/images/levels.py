"""Levels of more than 8 bits, and the orders in which TIFF keeps them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitune.images.pixels import printable
from unitune.types import Refused

BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # tags of TIFF


class Layout(NamedTuple):
    """How a file keeps its levels; a PNG of 16 bits is as the defaults say."""

    bits: tuple[int, ...] = (16,)  # of each channel
    white_is_zero: bool = False
    apart: bool = False  # a plane for each channel


def layout(im: Image.Image) -> Layout:
    """Read it from a TIFF's tags, before the picture is loaded."""
    tags = getattr(im, "tag_v2", {})
    return Layout(tags.get(BITS, (16,)), tags.get(PHOTOMETRIC) == 0, tags.get(PLANES) == 2)


def check_planes(path: Path, im: Image.Image, layout: Layout) -> None:
    """Refuse planes apart that Pillow would read as another picture.

    Where they are not compressed it goes by one letter of each mode, which is right for 8 bits
    alone. Compressed ones are read by libtiff, which knows them.
    """
    uncompressed = "raw" in {tile[0] for tile in getattr(im, "tile", ())}
    plain = not layout.white_is_zero and all(depth == 8 for depth in layout.bits)
    if layout.apart and uncompressed and not plain:
        raise Refused(
            f"{printable(str(path))} is a TIFF with its colour planes apart (PlanarConfiguration "
            f"2) in {max(layout.bits)} bits, which cannot be read here; save it as PNG, or as TIFF "
            "with interleaved pixels"
        )


def grey16(
    im: Image.Image, layout: Layout
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"] | None]:
    """Return the levels of 16-bit grey in [0, 1], and alpha where one level is transparent.

    Image.convert("RGB") clips them at 255 instead of scaling them.
    """
    found = np.asarray(im).astype(np.float32)
    grey = torch.from_numpy(found) / (2 ** layout.bits[0] - 1)
    alpha = None
    if (transparent := im.info.get("transparency")) is not None:
        alpha = torch.from_numpy((found != transparent).astype(np.float32))
    return (1 - grey if layout.white_is_zero else grey), alpha
