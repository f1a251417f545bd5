"""A picture file becomes a tensor in its own size, or is refused."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unitune.images.pixels import from_uint8, printable
from unitune.types import Picture, Refused

# EPS, PDF, PSD, FITS ... never reach a decoder.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 64_000_000
MIN_SIDE = 16  # px
MAX_ASPECT = 8
COLOUR_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
UNKNOWN_MODES = {"F": "floating point", "I": "32-bit or signed integer", "LAB": "Lab"}
ORIENTATION = 0x0112  # EXIF
BITS, PHOTOMETRIC = 258, 262  # TIFF

Colour = tuple[float, float, float]  # in [-1, 1]
WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (-1.0, -1.0, -1.0)


def read(path: Path | str, *, background: Colour = WHITE) -> tuple[Picture, list[str]]:
    """Read a picture file in its own size, upright; also say what was done to its pixels.

    Raises Refused for whatever is not a usable picture.
    """
    path = Path(path)
    _check_file(path)
    shown = printable(str(path))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels, notes = _decode(path, background)
    except Refused:
        raise
    except UnidentifiedImageError as error:
        raise Refused(
            f"{shown} is not a picture that can be read, or its header is damaged; "
            f"allowed formats: {', '.join(FORMATS)}"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Refused(_too_large(path)) from error
    except Exception as error:  # decoders of hostile bytes raise anything, MemoryError too
        why = printable(str(error) or type(error).__name__)
        raise Refused(f"{shown} cannot be decoded: it is truncated or damaged ({why})") from error
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning):
            notes.append(f"{printable(path.name)}: {printable(str(warning.message))}")
    return pixels, notes


def _check_file(path: Path) -> None:
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise Refused(f"{shown} is a folder; name one picture file ({', '.join(FORMATS)})")
        if not path.exists():
            raise Refused(f"{shown}: no such file")
        if not path.is_file():  # a pipe or a device would be waited for without end
            raise Refused(f"{shown} is not a regular file")
        if path.stat().st_size == 0:
            raise Refused(f"{shown} is empty (0 bytes)")
    except OSError as error:
        raise Refused(f"{shown} cannot be opened ({error.strerror})") from error


def _decode(path: Path, background: Colour) -> tuple[Picture, list[str]]:
    name, notes = printable(path.name), []
    with Image.open(path, formats=FORMATS) as im:
        _check_size(path, *im.size)
        im.verify()  # PNG: the checksums of all chunks, which decoding skips
    with Image.open(path, formats=FORMATS) as im:
        if getattr(im, "is_animated", False):
            notes.append(f"{name} holds several frames: the first is used")
        im.seek(0)
        # Asked before loading: TIFF turns itself then.
        orientation = im.getexif().get(ORIENTATION, 1)
        tags = getattr(im, "tag_v2", {})
        bits, white_is_zero = tags.get(BITS, (16,))[0], tags.get(PHOTOMETRIC) == 0
        im.load()
        if orientation in range(2, 9):
            notes.append(f"{name}: turned upright by its EXIF orientation {orientation}")
        im = ImageOps.exif_transpose(im)
        alpha = None
        if im.mode.startswith("I;16"):
            pixels, alpha = _grey16(im, bits=bits, white_is_zero=white_is_zero)
        elif im.has_transparency_data:
            rgba = np.asarray(im.convert("RGBA"))
            pixels, alpha = from_uint8(rgba[..., :3]), torch.tensor(rgba[..., 3]).float() / 255
        elif im.mode in COLOUR_MODES:
            pixels = from_uint8(np.asarray(im.convert("RGB")))
        else:
            kind = UNKNOWN_MODES.get(im.mode, im.mode)
            raise Refused(
                f"{printable(str(path))} has {kind} pixels, whose range or colours are not known "
                "here; save it as 8-bit or 16-bit PNG"
            )
        if im.mode == "CMYK":
            notes.append(f"{name} is CMYK: converted to RGB without a colour profile")
    if alpha is not None and bool((alpha < 1).any()):
        colour = "white" if tuple(background) == WHITE else "the background colour"
        notes.append(f"{name} has transparency: composited over {colour}")
        behind = torch.tensor(background, dtype=torch.float32)[None, :, None, None]
        pixels = alpha * pixels + (1 - alpha) * behind
    return pixels, notes


def _check_size(path: Path, w: int, h: int) -> None:
    shown = printable(str(path))
    if w * h > MAX_PIXELS:
        raise Refused(_too_large(path))
    if min(w, h) < MIN_SIDE:
        raise Refused(f"{shown} is {w}x{h} px; at least {MIN_SIDE} px on the short side are needed")
    if max(w, h) > MAX_ASPECT * min(w, h):
        raise Refused(f"{shown} is {w}x{h} px, thinner than {MAX_ASPECT}:1; crop it first")


def _grey16(
    im: Image.Image, *, bits: int, white_is_zero: bool
) -> tuple[Picture, Float[Tensor, "H W"] | None]:
    # Image.convert("RGB") clips 16-bit grey at 255 instead of scaling it.
    levels = np.asarray(im).astype(np.float32)
    grey = torch.from_numpy(levels) / (2**bits - 1) * 2 - 1
    alpha = None
    if (transparent := im.info.get("transparency")) is not None:
        alpha = torch.from_numpy((levels != transparent).astype(np.float32))
    return (-grey if white_is_zero else grey).expand(1, 3, -1, -1).contiguous(), alpha


def _too_large(path: Path) -> str:
    megapixels = MAX_PIXELS // 1_000_000
    return f"{printable(str(path))} has more than {megapixels} megapixels; scale it down first"
