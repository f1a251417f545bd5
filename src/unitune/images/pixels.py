"""Pictures as bytes and as PNG files."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image

from unitune.storage.files import write_whole
from unitune.types import Picture, Refused


def to_uint8(image: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """Round a picture in [-1, 1] to bytes.

    Values outside are clipped, those that are not finite raise ValueError.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"one picture of shape (1, 3, H, W) is needed, got {tuple(image.shape)}")
    x = image.detach().cpu().float()
    if not bool(x.isfinite().all()):
        raise ValueError("the picture holds values that are not finite")
    levels = ((x[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).contiguous().numpy()


def from_uint8(pixels: UInt8[np.ndarray, "H W 3"]) -> Picture:
    """Turn bytes into a picture in [-1, 1]; `to_uint8` gives the same bytes back."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"uint8 pixels of shape (H, W, 3) are needed, got {pixels.dtype} {pixels.shape}"
        )
    return torch.tensor(pixels).permute(2, 0, 1)[None].float().div(127.5).sub(1).contiguous()


def save_png(image: Picture, path: Path | str, *, profile: bytes | None = None) -> None:
    """Write a picture as PNG: whole or not at all, and the same bytes for the same pixels.

    `profile` is the ICC profile that its numbers are of; None is sRGB. Raises Refused where the
    file cannot be written.
    """
    _write(Image.fromarray(to_uint8(image)), Path(path), profile)


def save_mask(mask: Bool[np.ndarray, "H W"], path: Path | str) -> None:
    """Write a mask as PNG of one bit a pixel, white where it is true; otherwise as `save_png`."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(
            f"a mask of booleans of shape (H, W) is needed, got {mask.dtype} {mask.shape}"
        )
    _write(Image.fromarray(mask), Path(path))


def _write(picture: Image.Image, path: Path, profile: bytes | None = None) -> None:
    encoded = BytesIO()
    picture.save(encoded, format="PNG", icc_profile=profile)
    try:
        write_whole(encoded.getbuffer(), path)
    except OSError as error:
        raise Refused(
            f"{printable(str(path))} cannot be written ({error.strerror}); "
            "choose a folder that exists and has room"
        ) from error


def printable(text: str) -> str:
    """Return a text as one printable line."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:300]
