"""ICC profiles: what the numbers of a picture file mean, in sRGB and back.

Littlecms converts them, by each profile's own perceptual intent (a profile of primaries and curves
alone has but one, relative colorimetric).
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from unitune.images.pixels import from_uint8, printable, to_uint8
from unitune.types import Picture

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's mode by ICC's space
GREYS = ("1", "L", "LA", "I;16")
SAME = 1  # of 255: a profile that moves no colour by more is sRGB itself


def to_srgb(im: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Convert a picture without alpha to sRGB; also say what was done, "" for nothing.

    `im` is 8-bit of any mode, or 16-bit grey; `profile` None is one that the file's reader could
    not put together. A profile that cannot be read, or is of other colours, changes nothing.
    """
    try:
        source = _opened(profile or b"")
        space = _space(profile or b"")
        if space not in MODES or not _fits(space, im.mode):
            raise ValueError(f"it is of {space} colours, the picture is {im.mode}")
        given = _as(MODES[space], im)
        transform = ImageCms.buildTransform(source, _srgb(), given.mode, "RGB")
        if _changes_nothing(transform, given.mode):
            return im, ""
        converted = transform.apply(given)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        why = printable(str(error)) or "it is damaged"
        return im, f"its colour profile cannot be used ({why}): its pixels are taken as sRGB"
    named = printable(ImageCms.getProfileDescription(source)) or "without a name"
    return converted, f"converted from its colour profile ({named}) to sRGB"


def fits(profile: bytes, mode: str) -> bool:
    """Whether pixels of one of Pillow's modes can be meant by a profile."""
    return _fits(_space(profile), mode)


def writable(profile: bytes) -> bool:
    """Whether a profile is one of RGB colours that sRGB can be converted into."""
    try:
        _from_srgb(profile)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return False
    return True


def from_srgb(picture: Picture, profile: bytes) -> Picture:
    """Convert a picture from sRGB into the colours of a profile that is `writable`."""
    transform = _from_srgb(profile)
    if _changes_nothing(transform, "RGB"):
        return picture
    converted = transform.apply(Image.fromarray(to_uint8(picture)))
    return from_uint8(np.asarray(converted))


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(profile))


def _space(profile: bytes) -> str:
    """Return the colours that a profile is of, by its header."""
    return profile[16:20].decode("latin-1").strip()


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _from_srgb(profile: bytes) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(_srgb(), _opened(profile), "RGB", "RGB")


def _fits(space: str, mode: str) -> bool:
    """Whether pixels of a mode can be meant by a profile; a grey one may have a profile of RGB."""
    if space == "RGB":
        return mode != "CMYK"
    return mode in GREYS if space == "GRAY" else mode == "CMYK"


def _as(mode: str, im: Image.Image) -> Image.Image:
    """Return the picture in a profile's mode; 16-bit grey keeps its bits where it can."""
    if im.mode == "I;16":
        if mode == "L":
            return im
        im = Image.fromarray((np.asarray(im) / 257).round().astype(np.uint8))
    return im.convert(mode)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether colours all over the cube stay as they are."""
    if mode == "CMYK":
        return False
    if mode == "RGB":
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        probe = cube.reshape(len(levels), -1, 3)
        seen = probe
    else:
        levels = np.arange(256).reshape(16, 16)
        probe = (levels * 257).astype(np.uint16) if mode == "I;16" else levels.astype(np.uint8)
        seen = levels[..., None]
    moved = np.asarray(transform.apply(Image.fromarray(probe))).astype(int) - seen
    return bool(np.abs(moved).max() <= SAME)
