"""A picture file becomes a tensor in its own size, or is refused."""

import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unitune.images import colour, levels, metadata
from unitune.images.pixels import from_uint8, printable
from unitune.types import Picture, Refused

# EPS, PDF, PSD, FITS ... never reach a decoder.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 64_000_000
MIN_SIDE = 16  # px
MAX_ASPECT = 8
COLOUR_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
UNKNOWN_MODES = {"F": "floating point", "I": "32-bit or signed integer", "LAB": "Lab"}
# What is left out of a PNG, one after the other, until the rest can be decoded; of the second on
# also what no pixel depends on and has a wrong checksum.
LEFT_OUT = ((), metadata.BESIDE_PIXELS, (*metadata.BESIDE_PIXELS, metadata.PROFILE))

Colour = tuple[float, float, float]  # in [-1, 1]
WHITE: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Decoded:
    """A picture file in its own size, upright; `notes` say what was done to its pixels.

    `colours` are sRGB or, where its own are asked for, those of the ICC profile.
    """

    colours: Picture
    alpha: Float[Tensor, "H W"] | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Photograph:
    """A picture file in its own colours: those of `profile`, or sRGB where it has none."""

    pixels: Picture
    profile: bytes | None = None


def read(path: Path | str, *, background: Colour = WHITE) -> tuple[Picture, list[str]]:
    """Read a picture file in its own size, upright, as sRGB; also say what was done to its pixels.

    Raises Refused for whatever is not a usable picture.
    """
    found = decode(path)
    notes = [*found.notes]
    if found.alpha is not None and bool((found.alpha < 1).any()):
        behind = "white" if tuple(background) == WHITE else "the background colour"
        shown = printable(Path(path).name)
        notes.append(f"{shown} has transparency: composited over {behind}")
    return _composited(found, background), notes


def photograph(path: Path | str) -> Photograph:
    """Read a picture file whose numbers are to be written again as they are.

    Its pixels stay in the colours of its profile, unless that cannot be written: of grey, of inks,
    of other colours than the file's, or damaged. They are sRGB then. Raises Refused as `read`.
    """
    found = decode(path, own=True)
    if found.profile is not None and not colour.writable(found.profile):
        found = replace(decode(path), profile=None)
    return Photograph(_composited(found, WHITE), found.profile)


def decode(path: Path | str, *, own: bool = False) -> Decoded:
    """Read a picture file with its transparency apart, as sRGB or in its `own` numbers.

    Raises Refused for whatever is not a usable picture.
    """
    path = Path(path)
    _check_file(path)
    shown = printable(str(path))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            found = _decoded(path, own)
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
    said = [
        f"{printable(path.name)}: {printable(str(warning.message))}"
        for warning in caught
        if not issubclass(warning.category, DeprecationWarning)
    ]
    return replace(found, notes=tuple(dict.fromkeys([*found.notes, *said])))


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


def _decoded(path: Path, own: bool) -> Decoded:
    """Decode a file; a PNG whose texts or profile cannot be read is decoded without them."""
    failed: Exception | None = None
    for left_out in LEFT_OUT:
        rest = metadata.without(path, left_out) if left_out else (path, set[bytes]())
        if rest is None:
            break
        source, gone = rest
        try:
            found = _pixels(path, source, own)
        except (Refused, Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise
        except Exception as error:
            failed = failed or error
            continue
        name, notes = printable(path.name), found.notes
        if left_out:
            notes += (f"{name}: what it says beside its pixels cannot be read and is left out",)
        if metadata.EXIF in gone:
            notes += (f"{name}: its EXIF cannot be read: it is taken as upright",)
        if metadata.PROFILE in gone:
            notes += (f"{name}: its colour profile cannot be read: its pixels are taken as sRGB",)
        return replace(found, notes=notes)
    assert failed is not None
    raise failed


def _pixels(path: Path, source: Path | bytes, own: bool) -> Decoded:
    name, notes = printable(path.name), []
    with _open(source) as im:
        _check_size(path, *im.size)
        im.verify()  # PNG: the checksums of all chunks, which decoding skips
    with _open(source) as im:
        if getattr(im, "is_animated", False):
            notes.append(f"{name} holds several frames: the first is used")
        im.seek(0)
        turned, unread = metadata.orientation(im)
        notes += [f"{name}: {unread}"] if unread else []
        layout = levels.layout(im)
        levels.check_planes(path, im, layout)
        im.load()
        if turned > 1:
            notes.append(f"{name}: turned upright by its EXIF orientation {turned}")
        im = metadata.upright(im, turned)
    alpha, grey = None, None
    if im.mode.startswith("I;16"):
        grey, alpha = levels.grey16(im, layout)
        flat = Image.fromarray((grey.numpy() * 65535).round().astype(np.uint16))
    elif im.has_transparency_data:
        rgba = im.convert("RGBA")
        alpha = torch.tensor(np.asarray(rgba)[..., 3]).float() / 255
        flat = im.convert("L") if im.mode in colour.GREYS else rgba.convert("RGB")
    elif im.mode in COLOUR_MODES:
        flat = im if im.mode in ("L", "CMYK") else im.convert("L" if im.mode == "1" else "RGB")
    else:
        kind = UNKNOWN_MODES.get(im.mode, im.mode)
        raise Refused(
            f"{printable(str(path))} has {kind} pixels, whose range or colours are not known "
            "here; save it as 8-bit or 16-bit PNG"
        )
    profile: bytes | None = im.info.get("icc_profile")
    converted, said = flat, ""
    if "icc_profile" in im.info and not own:
        converted, said = colour.to_srgb(flat, profile)
        notes += [f"{name}: {said}"] if said else []
    if converted is flat and im.mode == "CMYK":
        notes.append(f"{name} is CMYK: converted to RGB without a colour profile")
    if converted is flat and grey is not None:
        pixels = (grey * 2 - 1).expand(1, 3, -1, -1).contiguous()
    else:
        pixels = from_uint8(np.asarray(converted.convert("RGB")))
    meant = own and profile is not None and colour.fits(profile, flat.mode)
    return Decoded(pixels, alpha, profile if meant else None, tuple(notes))


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _composited(found: Decoded, background: Colour) -> Picture:
    if found.alpha is None or not bool((found.alpha < 1).any()):
        return found.colours
    behind = torch.tensor(background, dtype=torch.float32)[None, :, None, None]
    return found.alpha * found.colours + (1 - found.alpha) * behind


def _check_size(path: Path, w: int, h: int) -> None:
    shown = printable(str(path))
    if w * h > MAX_PIXELS:
        raise Refused(_too_large(path))
    if min(w, h) < MIN_SIDE:
        raise Refused(f"{shown} is {w}x{h} px; at least {MIN_SIDE} px on the short side are needed")
    if max(w, h) > MAX_ASPECT * min(w, h):
        raise Refused(f"{shown} is {w}x{h} px, thinner than {MAX_ASPECT}:1; crop it first")


def _too_large(path: Path) -> str:
    megapixels = MAX_PIXELS // 1_000_000
    return f"{printable(str(path))} has more than {megapixels} megapixels; scale it down first"
