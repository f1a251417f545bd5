"""Pictures and masks as squares of a wanted size."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitune.images.decode import Decoded, decode, read
from unitune.images.pixels import printable
from unitune.types import Mask, Picture, Refused

FITS = ("crop", "pad", "squash")
PLAIN = 0.95  # of the opaque pixels of a mask are black or white; the rest are soft edges


@dataclass(frozen=True)
class LoadedImage:
    """A picture in [-1, 1], what was done to make it, and its file's size, upright."""

    image: Picture
    notes: tuple[str, ...] = ()
    source: tuple[int, int] = (0, 0)  # width, height


def load(path: Path | str, *, size: int, fit: str = "crop") -> LoadedImage:
    """Read a picture file as a square of `size` px.

    `fit`: "crop" keeps the centre square, "pad" adds neutral grey, "squash" changes the
    proportions. Transparent pixels show white. Raises Refused for whatever is not a usable picture.
    """
    path = Path(path)
    if fit not in FITS:
        raise Refused(f"fit={fit!r} is not known; use one of {', '.join(FITS)}")
    if size < 1:
        raise Refused(f"a picture of {size} px is asked for; size must be at least 1")
    pixels, notes = read(path)
    h, w = pixels.shape[-2:]
    square, done = _square(pixels, fit)
    if square.shape[-2:] != (size, size):
        done.append(f"{'squashed' if fit == 'squash' and h != w else 'resized'} to {size}x{size}")
    if done:
        notes.append(f"{printable(path.name)} is {w}x{h} px: {', then '.join(done)}")
    return LoadedImage(resize(square, size), tuple(notes), (w, h))


def load_mask(path: Path | str, *, size: int, fit: str = "crop") -> tuple[Mask, tuple[int, int]]:
    """Read a mask as a square of `size` px; also return the width and height of its file.

    It is 1 where it is lighter than mid-grey (a new pixel: any of its part), else 0. That is asked
    of the file's own numbers, which no colour profile changes. Refused where transparency leaves
    open what is meant.
    """
    found = decode(path, own=True)
    square, _ = _square((_lightness(Path(path), found) > 0).float(), fit)
    height, width = found.colours.shape[-2:]
    return F.adaptive_max_pool2d(square, size), (width, height)


def _lightness(path: Path, found: Decoded) -> Float[Tensor, "1 1 H W"]:
    """Return how light a mask is, -1 to 1; what is transparent is black.

    White on a transparent layer is a mask, and so is white and black there. Of anything else, such
    as a photograph with a hole or dark strokes, nobody can tell which part may change.
    """
    grey, alpha = found.colours.mean(dim=1, keepdim=True), found.alpha
    if alpha is None or bool((alpha == alpha.max()).all() and alpha.max() > 0):
        return grey  # as opaque here as there, which says nothing
    opaque = found.colours[0, :, alpha > 0.5]
    plain = (opaque.abs() > 0.5).all(dim=0) & (opaque.sum(dim=0).abs() > 1.5)
    if not bool((opaque > 0.5).all(dim=0).any()) or plain.float().mean() < PLAIN:
        raise Refused(
            f"{printable(str(path))} is transparent in part, and the rest of it is not white, or "
            "white and black: it is not clear what may change; paint that white, the rest black, "
            "without transparency"
        )
    return alpha * (grey + 1) - 1


def _square(pixels: Picture, fit: str) -> tuple[Picture, list[str]]:
    h, w = pixels.shape[-2:]
    if h == w or fit == "squash":
        return pixels, []
    top, left, side, _ = box(h, w, fit)
    if fit == "crop":
        square = pixels[..., top : top + side, left : left + side]
        return square, [f"centre-cropped to {side}x{side}"]
    edges = (-left, side - w + left, -top, side - h + top)
    return F.pad(pixels, edges, value=0.0), [f"padded with grey to {side}x{side}"]


def box(height: int, width: int, fit: str) -> tuple[int, int, int, int]:
    """Return where the square of `load` lies in the picture: top, left, height, width in its px.

    "pad" reaches beyond the picture, "squash" is the whole picture.
    """
    if fit == "squash":
        return 0, 0, height, width
    side = min(height, width) if fit == "crop" else max(height, width)
    return _before(height, side), _before(width, side), side, side


def _before(length: int, side: int) -> int:
    """Return where a centred side begins; half a pixel too much goes to the end."""
    return (length - side) // 2 if length > side else -((side - length) // 2)


def resize(image: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C size size"]:
    """Resize to size x size px.

    On an axis that shrinks a new pixel is the exact mean over its area, one that grows is bicubic.
    """
    h, w = image.shape[-2:]
    if h == w == size:
        return image
    if w > size:
        image = image @ _overlap(w, size).to(image).T
    if h > size:
        image = _overlap(h, size).to(image) @ image
    if min(h, w) < size:
        image = F.interpolate(image, (size, size), mode="bicubic", align_corners=False)
    return image.clamp(-1, 1)  # bicubic overshoots; a mean of white rounds to a hair above 1


def _overlap(old: int, new: int) -> Float[Tensor, "new old"]:
    """Return the share of each old pixel in each new one along an axis; rows sum to 1."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    left = torch.arange(old, dtype=torch.float64)
    ends, begins = torch.minimum(edges[1:, None], left + 1), torch.maximum(edges[:-1, None], left)
    return (ends - begins).clamp(min=0) * new / old
