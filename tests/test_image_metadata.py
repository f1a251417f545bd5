"""What a file says beside its pixels makes no good picture a damaged one; planes apart."""

import struct
import zlib

import numpy as np
import profiles
import pytest
from PIL import Image, PngImagePlugin
from test_images import ramp, refused

from unitune.images import read, to_uint8
from unitune.types import Refused


def chunk(kind: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def with_chunk(path, data: bytes, **saved) -> None:
    """A PNG with a chunk behind its header."""
    Image.fromarray(ramp()).save(path, **saved)
    plain = path.read_bytes()
    path.write_bytes(plain[:33] + data + plain[33:])


LARGE = zlib.compress(bytes(2_000_000))
DAMAGED = {
    "large zTXt": chunk(b"zTXt", b"workflow\0\0" + LARGE),
    "large iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LARGE),
    "zTXt of an unknown method": chunk(b"zTXt", b"note\0\7" + LARGE),
    "tEXt with a wrong checksum": chunk(b"tEXt", b"note\0words", checksum=1),
    "pHYs cut short": chunk(b"pHYs", b"\0\0"),
    "acTL cut short": chunk(b"acTL", b"\0"),
    "cICP with a wrong checksum": chunk(b"cICP", b"\1\15\0\1", checksum=1),
    "caBX with a wrong checksum": chunk(b"caBX", b"claims", checksum=1),
    "a private chunk with a wrong checksum": chunk(b"prVt", b"words", checksum=1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_texts_that_cannot_be_read_leave_the_picture(tmp_path, name):
    """The picture, its orientation and its profile stay; that something is left out is said."""
    exif = Image.Exif()
    exif[0x0112] = 3
    profile = profiles.of_rgb("P3")
    with_chunk(tmp_path / "a.png", DAMAGED[name])
    picture, (note,) = read(tmp_path / "a.png")
    assert (to_uint8(picture) == ramp()).all() and "is left out" in note and "\n" not in note
    with_chunk(tmp_path / "a.png", DAMAGED[name], exif=exif, icc_profile=profile)
    turned, notes = read(tmp_path / "a.png")
    expected = profiles.in_srgb(ramp()[::-1, ::-1].astype(float), "P3")
    assert np.abs(to_uint8(turned) - expected).max() <= 2 and len(notes) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"icc\0\0not compressed",
        b"icc\0\7" + LARGE,
        b"icc\0\0" + LARGE,
        b"icc\0\0" + zlib.compress(b"words"),
    ],
    ids=["no zlib", "an unknown method", "too large", "no profile"],
)
def test_an_iccp_that_cannot_be_read_is_said(tmp_path, data):
    with_chunk(tmp_path / "a.png", chunk(b"iCCP", data))
    picture, notes = read(tmp_path / "a.png")
    assert (to_uint8(picture) == ramp()).all() and notes[-1].endswith("taken as sRGB")


def test_what_is_lost_with_a_wrong_checksum_is_said(tmp_path):
    """An orientation, a profile, or both; what else the file says is still read."""
    exif = chunk(b"eXIf", IFD, checksum=1)
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(profiles.of_rgb("P3")), checksum=1)
    for data, said in (
        (exif, ["taken as upright"]),
        (profile, ["taken as sRGB"]),
        (exif + profile, ["taken as upright", "taken as sRGB"]),
    ):
        with_chunk(tmp_path / "a.png", data)
        picture, notes = read(tmp_path / "a.png")
        assert (to_uint8(picture) == ramp()).all()
        assert [note.rpartition(" it is ")[2].split("are ")[-1] for note in notes[1:]] == said
    with_chunk(tmp_path / "a.png", exif, icc_profile=profiles.of_rgb("P3"))
    assert any("converted from its colour profile" in note for note in read(tmp_path / "a.png")[1])


@pytest.mark.parametrize("kind", [b"tRNS", b"IDAT", b"PLTE"])
def test_a_wrong_checksum_of_pixels_is_refused(tmp_path, kind):
    image = Image.fromarray(ramp()).convert("P")
    image.save(tmp_path / "a.png", transparency=0)
    data = bytearray((tmp_path / "a.png").read_bytes())
    at = data.index(kind)
    (length,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + length] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in refused(tmp_path / "a.png")


def test_a_damaged_picture_with_damaged_texts_is_refused(tmp_path):
    with_chunk(tmp_path / "a.png", DAMAGED["large zTXt"])
    data = tmp_path / "a.png"
    data.write_bytes(data.read_bytes()[:-40])
    assert "truncated or damaged" in refused(tmp_path / "a.png")


IFD = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHxx", 0x0112, 3, 1, 6) + bytes(4)


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (b"Exif\0\0garbage that is no TIFF", False),
        (b"Exif\0\0", False),
        (b"Exif\0\0" + IFD[:14], False),
        (b"Exif\0\0" + IFD.replace(b"\6\0", b"\x63\0"), False),
        (b"Exif\0\0" + IFD[:8] + b"\xff\xff" + IFD[10:], True),
    ],
    ids=["garbage", "empty", "cut", "orientation 99", "more tags than there are"],
)
@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_malformed_exif_leaves_the_picture(tmp_path, suffix, exif, turned):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp(20, 40)).save(path, exif=exif, quality=95)
    picture, notes = read(path)
    assert picture.shape[-2:] == ((40, 20) if turned else (20, 40))
    assert len(notes) == len(set(notes)) and all("\n" not in note for note in notes)


def test_exif_as_text_that_cannot_be_read_is_said(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n      4\n00080002\n")
    Image.fromarray(ramp()).save(tmp_path / "a.png", pnginfo=info)
    picture, (note,) = read(tmp_path / "a.png")
    assert (to_uint8(picture) == ramp()).all() and "taken as upright" in note


def planar(path, pixels: np.ndarray, *, compressed: bool, white_is_zero: bool = False) -> None:
    """A TIFF with its planes apart, of uint8 or uint16 pixels (H, W, C)."""
    height, width, count = pixels.shape
    bits = 8 * pixels.itemsize
    planes = [plane.tobytes() for plane in pixels.transpose(2, 0, 1)]
    planes = [zlib.compress(plane) if compressed else plane for plane in planes]
    ends = np.cumsum([8, *map(len, planes)])
    colours = 2 if count > 1 else 0 if white_is_zero else 1
    tags = [
        *((256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count)),
        *((259, 3, [8 if compressed else 1]), (262, 3, [colours]), (273, 4, ends[:-1])),
        *((277, 3, [count]), (278, 4, [height]), (279, 4, [len(plane) for plane in planes])),
        (284, 3, [2]),
        *([(338, 3, [2])] if count == 4 else []),
    ]
    at = int(ends[-1]) + 2 + 12 * len(tags) + 4
    entries, beside = b"", b""
    for tag, kind, values in tags:
        data = b"".join(struct.pack("<H" if kind == 3 else "<I", int(value)) for value in values)
        if len(data) > 4:
            place = struct.pack("<I", at + len(beside))
            data, beside = place, beside + data
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    header = b"II*\0" + struct.pack("<I", int(ends[-1])) + b"".join(planes)
    path.write_bytes(header + struct.pack("<H", len(tags)) + entries + bytes(4) + beside)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_planes_apart_are_read_right_or_refused(tmp_path, bits, count, compressed):
    pixels = np.full((32, 32, 4), 255, np.uint8)
    pixels[..., :3] = ramp(32, 32)
    pixels[:16, :, 0] = 128
    pixels = pixels[..., :count]
    stored = pixels if bits == 8 else pixels.astype(np.uint16) * 257
    planar(tmp_path / "a.tif", stored, compressed=compressed)
    if bits == 16 and not compressed:
        message = refused(tmp_path / "a.tif")
        assert "planes apart" in message and "16 bits" in message and "save it as PNG" in message
        return
    found = to_uint8(read(tmp_path / "a.tif")[0])
    assert (found == pixels[..., :3]).all()


def test_a_plane_of_white_as_zero_is_no_negative(tmp_path):
    planar(tmp_path / "a.tif", ramp()[..., :1], compressed=False, white_is_zero=True)
    with pytest.raises(Refused, match="planes apart"):
        read(tmp_path / "a.tif")
