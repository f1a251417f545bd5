"""Files that are no usable picture end in one line; limits, truncation, flipped bits."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import ramp, refused

from unitune import images
from unitune.images import load
from unitune.types import Refused

ORIGINALS = Path(__file__).parents[2] / "shared" / "data" / "tedbench" / "originals"
PHOTOS = (
    sorted(path for path in ORIGINALS.glob("*") if path.is_file()) if ORIGINALS.is_dir() else []
)


def no_file(path):
    pass


def text(path):
    path.write_text("not a picture\n" * 100)


def html(path):
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


def empty(path):
    path.write_bytes(b"")


def postscript(path):
    Image.fromarray(ramp()).save(path, format="EPS")


def pdf(path):
    Image.fromarray(ramp()).save(path, format="PDF")


def tiny(path):
    Image.fromarray(ramp(15, 60)).save(path, format="PNG")


def thin(path):
    Image.fromarray(ramp(16, 129)).save(path, format="PNG")


def bomb(path):
    """A few kilobytes that claim to be 20000 x 20000 px."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def large(path):
    Image.new("1", (8100, 8000)).save(path, format="PNG")  # under Pillow's own limit, above ours


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_file, "no such file"),
        (text, "not a picture"),
        (html, "not a picture"),
        (empty, "empty"),
        (postscript, "allowed formats"),
        (pdf, "allowed formats"),
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "not a regular file"),
        (tiny, "at least 16 px"),
        (thin, "thinner than 8:1"),
        (bomb, "64 megapixels"),
        (large, "64 megapixels"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, make, reason):
    path = tmp_path / "what ever.png"
    make(path)
    message = refused(path)
    assert "what ever.png" in message and reason in message


@pytest.mark.parametrize(
    "name", ["a\nb.png", "x" * 300 + ".png", "a\0b.png", "missing/a.png", "\udcff.png"]
)
def test_odd_names_are_refused_in_one_line(tmp_path, name):
    refused(tmp_path / name)


def test_limits_are_inclusive(tmp_path):
    thin_path = tmp_path / "a.png"
    Image.fromarray(ramp(16, 128)).save(thin_path)
    assert load(thin_path, size=32).image.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "gif"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        assert f"a.{suffix}" in refused(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "gif"])
def test_flipped_bits_are_refused_or_harmless(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp(24, 24)).save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for position in rng.integers(0, len(data), 60):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        if suffix == "png" and position < len(data) - 12:  # every chunk has a checksum
            refused(path)
            continue
        try:
            image = load(path, size=32).image
        except Refused as refusal:
            assert "\n" not in str(refusal)
        else:
            assert (
                image.shape == (1, 3, 32, 32) and image.isfinite().all() and image.abs().max() <= 1
            )


@pytest.mark.skipif(not PHOTOS, reason="the photographs are not here")
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_photographs(path):
    image = load(path, size=256).image
    assert image.shape == (1, 3, 256, 256) and image.min() >= -1 and image.max() <= 1
    assert image.std() > 0.02


def test_only_the_named_decoders_are_allowed():
    assert set(images.FORMATS) == {"PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"}
