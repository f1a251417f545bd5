"""Pictures: file <-> tensor; the only place that knows Pillow, uint8, EXIF, alpha and 16 bit, and where hostile files end.

A file is usable or `Refused` in one line that names it and the reason. Whatever was done to its pixels is said in `notes`.
"""

import contextlib
import os
import secrets
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from unitune.types import Mask, Picture, Refused

FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
)  # EPS, PDF, PSD, FITS ... never reach a decoder
FITS = ("crop", "pad", "squash")
MAX_PIXELS = 64_000_000
MIN_SIDE = 16
MAX_ASPECT = 8
COLOUR_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112  # EXIF
_BITS, _PHOTOMETRIC = 258, 262  # TIFF


@dataclass(frozen=True)
class LoadedImage:
    """A picture as float32 in [-1, 1], what was done to make it (lines for the log), and the size that its file has, upright."""

    image: Picture
    notes: tuple[str, ...] = ()
    source: tuple[int, int] = (0, 0)  # width, height


def load(
    path: Path | str,
    *,
    size: int,
    fit: str = "crop",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> LoadedImage:
    """Read a picture file as a square of `size` px.

    `fit`: "crop" keeps the centre square, "pad" adds neutral grey, "squash" changes the proportions. Transparent pixels show `background`
    (a colour in [-1, 1]; white). Raises Refused for whatever is not a usable picture.
    """
    path = Path(path)
    if fit not in FITS:
        raise Refused(f"fit={fit!r} is not known; use one of {', '.join(FITS)}")
    if size < 1:
        raise Refused(f"a picture of {size} px is asked for; size must be at least 1")
    pixels, notes = read(path, background=background)
    square, done = _square(pixels, fit)
    h, w = pixels.shape[-2:]
    if square.shape[-1] != size or square.shape[-2] != size:
        done.append(f"{'squashed' if fit == 'squash' and h != w else 'resized'} to {size}x{size}")
    if done:
        notes.append(f"{_line(path.name)} is {w}x{h} px: {', then '.join(done)}")
    return LoadedImage(resize(square, size), tuple(notes), (w, h))


def read(
    path: Path | str, *, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[Picture, list[str]]:
    """Read a picture file in its own size, upright; also what was done to its pixels. Raises Refused for whatever is not a usable picture."""
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels, notes = _decode(path, background)
    except Refused:
        raise
    except UnidentifiedImageError as error:
        raise Refused(
            f"{_shown(path)} is not a picture that can be read, or its header is damaged; allowed formats: {', '.join(FORMATS)}"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Refused(_too_large(path)) from error
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, AssertionError, MemoryError ...
        raise Refused(
            f"{_shown(path)} cannot be decoded: it is truncated or damaged ({_line(str(error) or type(error).__name__)})"
        ) from error
    notes += [
        f"{_line(path.name)}: {_line(str(w.message))}"
        for w in caught
        if not issubclass(w.category, DeprecationWarning)
    ]
    return pixels, notes


def load_mask(path: Path | str, *, size: int, fit: str = "crop") -> tuple[Mask, tuple[int, int]]:
    """Read a mask as a square of `size` px, and its file's width and height: 1 where it is lighter than mid-grey (a new pixel: any of its part), else 0."""
    pixels, _ = read(path, background=(-1.0, -1.0, -1.0))
    square, _ = _square((pixels.mean(dim=1, keepdim=True) > 0).float(), fit)
    return F.adaptive_max_pool2d(square, size), (pixels.shape[-1], pixels.shape[-2])


def resize(image: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C size size"]:
    """Resize to size x size px: the exact mean over the area of each new pixel on an axis that shrinks, bicubic on one that grows."""
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


def to_uint8(image: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """Round a picture in [-1, 1] to bytes; values outside are clipped, those that are not finite raise ValueError."""
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"one picture of shape (1, 3, H, W) is needed, got {tuple(image.shape)}")
    x = image.detach().cpu().float()
    if not bool(x.isfinite().all()):
        raise ValueError("the picture holds values that are not finite")
    return (
        ((x[0].permute(1, 2, 0) + 1) * 127.5)
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
        .contiguous()
        .numpy()
    )


def from_uint8(pixels: UInt8[np.ndarray, "H W 3"]) -> Picture:
    """Turn bytes into a picture in [-1, 1]; `to_uint8` gives the same bytes back."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"uint8 pixels of shape (H, W, 3) are needed, got {pixels.dtype} {pixels.shape}"
        )
    return torch.tensor(pixels).permute(2, 0, 1)[None].float().div(127.5).sub(1).contiguous()


def save_png(image: Picture, path: Path | str) -> None:
    """Write a picture as PNG: whole or not at all, and the same bytes for the same pixels. Raises Refused where the file cannot be written."""
    _write(Image.fromarray(to_uint8(image)), Path(path))


def save_mask(mask: Bool[np.ndarray, "H W"], path: Path | str) -> None:
    """Write a mask as PNG of one bit a pixel, white where it is true; otherwise as `save_png`."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(
            f"a mask of booleans of shape (H, W) is needed, got {mask.dtype} {mask.shape}"
        )
    _write(Image.fromarray(mask), Path(path))


def _write(picture: Image.Image, path: Path) -> None:
    encoded = BytesIO()
    picture.save(encoded, format="PNG")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(encoded.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Refused(
            f"{_shown(path)} cannot be written ({error.strerror}); choose a folder that exists and has room"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            temporary.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise Refused(
                f"{_shown(path)} is a folder; name one picture file ({', '.join(FORMATS)})"
            )
        if not path.exists():
            raise Refused(f"{_shown(path)}: no such file")
        if not path.is_file():  # a pipe or a device would be waited for without end
            raise Refused(f"{_shown(path)} is not a regular file")
        if path.stat().st_size == 0:
            raise Refused(f"{_shown(path)} is empty (0 bytes)")
    except OSError as error:
        raise Refused(f"{_shown(path)} cannot be opened ({error.strerror})") from error


def _decode(path: Path, background: tuple[float, float, float]) -> tuple[Picture, list[str]]:
    notes = []
    with Image.open(path, formats=FORMATS) as im:
        w, h = im.size
        if w * h > MAX_PIXELS:
            raise Refused(_too_large(path))
        if min(w, h) < MIN_SIDE:
            raise Refused(
                f"{_shown(path)} is {w}x{h} px; at least {MIN_SIDE} px on the short side are needed"
            )
        if max(w, h) > MAX_ASPECT * min(w, h):
            raise Refused(
                f"{_shown(path)} is {w}x{h} px, thinner than {MAX_ASPECT}:1; crop it first"
            )
        im.verify()  # PNG: the checksums of all chunks, which decoding skips
    with Image.open(path, formats=FORMATS) as im:
        if getattr(im, "is_animated", False):
            notes.append(f"{_line(path.name)} holds several frames: the first is used")
        im.seek(0)
        orientation = im.getexif().get(
            _ORIENTATION, 1
        )  # asked before loading: TIFF turns itself then
        tags = getattr(im, "tag_v2", {})
        bits, white_is_zero = tags.get(_BITS, (16,))[0], tags.get(_PHOTOMETRIC) == 0
        im.load()
        if orientation in range(2, 9):
            notes.append(
                f"{_line(path.name)}: turned upright by its EXIF orientation {orientation}"
            )
        im = ImageOps.exif_transpose(im)
        if im.mode.startswith("I;16"):
            pixels, alpha = _grey16(im, bits=bits, white_is_zero=white_is_zero)
        elif im.has_transparency_data:
            rgba = np.asarray(im.convert("RGBA"))
            pixels, alpha = from_uint8(rgba[..., :3]), torch.tensor(rgba[..., 3]).float() / 255
        elif im.mode in COLOUR_MODES:
            pixels, alpha = from_uint8(np.asarray(im.convert("RGB"))), None
        else:
            kind = {"F": "floating point", "I": "32-bit or signed integer", "LAB": "Lab"}.get(
                im.mode, im.mode
            )
            raise Refused(
                f"{_shown(path)} has {kind} pixels, whose range or colours are not known here; save it as 8-bit or 16-bit PNG"
            )
        if im.mode == "CMYK":
            notes.append(f"{_line(path.name)} is CMYK: converted to RGB without a colour profile")
    if alpha is not None and bool((alpha < 1).any()):
        notes.append(
            f"{_line(path.name)} has transparency: composited over {'white' if tuple(background) == (1, 1, 1) else 'the background colour'}"
        )
        pixels = (
            alpha * pixels
            + (1 - alpha) * torch.tensor(background, dtype=torch.float32)[None, :, None, None]
        )
    return pixels, notes


def _grey16(
    im: Image.Image, *, bits: int, white_is_zero: bool
) -> tuple[Picture, Float[Tensor, "H W"] | None]:
    # Image.convert("RGB") clips 16-bit grey at 255 instead of scaling it.
    levels = np.asarray(im).astype(np.float32)
    grey = torch.from_numpy(levels) / (2**bits - 1) * 2 - 1
    transparent = im.info.get("transparency")
    alpha = (
        None
        if transparent is None
        else torch.from_numpy((levels != transparent).astype(np.float32))
    )
    return (-grey if white_is_zero else grey).expand(1, 3, -1, -1).contiguous(), alpha


def _square(pixels: Picture, fit: str) -> tuple[Picture, list[str]]:
    h, w = pixels.shape[-2:]
    if h == w or fit == "squash":
        return pixels, []
    top, left, side, _ = box(h, w, fit)
    if fit == "crop":
        return pixels[..., top : top + side, left : left + side], [
            f"centre-cropped to {side}x{side}"
        ]
    return F.pad(pixels, (-left, side - w + left, -top, side - h + top), value=0.0), [
        f"padded with grey to {side}x{side}"
    ]


def box(height: int, width: int, fit: str) -> tuple[int, int, int, int]:
    """Return where the square of `load` lies in the picture: top, left, height, width in its px; "pad" reaches beyond the picture, "squash" is the picture."""
    if fit == "squash":
        return 0, 0, height, width
    side = min(height, width) if fit == "crop" else max(height, width)
    return (
        (height - side) // 2 if fit == "crop" else -((side - height) // 2),
        (width - side) // 2 if fit == "crop" else -((side - width) // 2),
        side,
        side,
    )


def _overlap(old: int, new: int) -> Float[Tensor, "new old"]:
    """Share of each old pixel in each new one along an axis; every row sums to 1."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    left = torch.arange(old, dtype=torch.float64)
    return (
        (torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)).clamp(
            min=0
        )
        * new
        / old
    )


def _too_large(path: Path) -> str:
    return f"{_shown(path)} has more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:300]


def _shown(path: Path) -> str:
    return _line(str(path))
