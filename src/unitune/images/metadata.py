"""What a file says beside its pixels: it may be damaged, the picture is good all the same."""

import struct
import zlib
from collections.abc import Collection
from pathlib import Path

from PIL import Image

ORIENTATION = 0x0112  # EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG that no pixel depends on: texts, times, sizes in print, other frames.
BESIDE_PIXELS = (
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"sBIT", b"hIST", b"sPLT", b"bKGD"),
    *(b"gAMA", b"cHRM", b"sRGB", b"acTL", b"fcTL", b"fdAT"),
)
PROFILE, EXIF = b"iCCP", b"eXIf"
TRANSPARENT = b"tRNS"  # the one chunk that pixels depend on and that a reader may do without
ANCILLARY = 0x20  # bit of the first letter of a chunk that a reader may do without
LARGEST = 2**30  # bytes of a file that is read once more


def orientation(im: Image.Image) -> tuple[int, str]:
    """Return the EXIF orientation of a picture, 1 to 8, and a note where it cannot be read.

    It is asked before the picture is loaded: a TIFF is turned by its decoder then.
    """
    try:
        found = im.getexif().get(ORIENTATION, 1)
    except Exception:  # of hostile bytes anything
        return 1, "its EXIF cannot be read: it is taken as upright"
    return (found if found in UPRIGHT else 1), ""


def upright(im: Image.Image, orientation: int) -> Image.Image:
    """Turn a loaded picture; unlike Pillow's `exif_transpose` it writes no EXIF anew."""
    if orientation == 1 or im.format == "TIFF":
        return im
    return im.transpose(UPRIGHT[orientation])


def without(path: Path, chunks: Collection[bytes]) -> tuple[bytes, set[bytes]] | None:
    """Return a PNG file without some of its chunks, and which it had; None for another file.

    Also left out is each chunk beside the pixels whose checksum is wrong. None also for a huge one.
    """
    with path.open("rb") as stream:
        if stream.read(len(PNG)) != PNG or path.stat().st_size > LARGEST:
            return None
        data = memoryview(PNG + stream.read())
    kept, gone, at = [data[: len(PNG)]], set[bytes](), len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunk, kind = data[at : at + 12 + length], bytes(data[at + 4 : at + 8])
        if kind in chunks or _spoilt(chunk, kind):
            gone.add(kind)
        else:
            kept.append(chunk)
        at += 12 + length
    return b"".join(kept), gone


def _spoilt(chunk: memoryview, kind: bytes) -> bool:
    """Whether a whole chunk that no pixel depends on has a wrong checksum."""
    beside = kind[0] & ANCILLARY and kind != TRANSPARENT
    return bool(beside) and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big")
