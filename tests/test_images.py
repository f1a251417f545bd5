"""Pictures: bytes, formats, modes, orientation, squares and masks."""

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from unitune import images
from unitune.images import from_uint8, load, read, resize, save_mask, save_png, to_uint8
from unitune.types import Refused


def ramp(h=40, w=40):
    """Smooth colours, so that lossy formats stay close."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // (w - 1), y * 255 // (h - 1), 255 - x * 255 // (w - 1)], -1).astype(
        np.uint8
    )


def refused(path, **kwargs):
    with pytest.raises(Refused) as refusal:
        load(path, size=32, **kwargs)
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_bytes_round_trip_exactly():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image = from_uint8(pixels)
    assert image.shape == (1, 3, 16, 16) and image.dtype == torch.float32
    assert image.min() == -1 and image.max() == 1
    assert (to_uint8(image) == pixels).all()


def test_to_uint8_clips_and_refuses_nan():
    assert to_uint8(torch.full((1, 3, 2, 2), 1.7)).max() == 255
    with pytest.raises(ValueError, match="finite"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match="shape"):
        to_uint8(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="uint8"):
        from_uint8(np.zeros((4, 4, 3), np.float32))


def test_resize_by_a_whole_factor_is_the_block_mean():
    x = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(resize(x, 16), F.avg_pool2d(x, (3, 2)), atol=1e-6)


@pytest.mark.parametrize("old", [33, 50, 100])
def test_resize_down_keeps_the_mean_and_constants(old):
    x = torch.rand(1, 3, old, old, generator=torch.Generator().manual_seed(old)) * 2 - 1
    assert torch.allclose(resize(x, 32).mean((2, 3)), x.mean((2, 3)), atol=1e-6)
    assert resize(torch.ones_like(x), 32).max() <= 1
    assert torch.allclose(
        resize(torch.full_like(x, 0.3), 32), torch.full((1, 3, 32, 32), 0.3), atol=1e-6
    )


def test_resize_up_is_bicubic_within_range():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    y = resize(x, 40)
    assert torch.equal(
        y, F.interpolate(x, (40, 40), mode="bicubic", align_corners=False).clamp(-1, 1)
    )
    assert torch.equal(resize(x, 16), x)
    assert resize(torch.zeros(1, 3, 16, 100), 32).shape == (1, 3, 32, 32)


def test_png_round_trip_is_exact_and_deterministic(tmp_path):
    image = from_uint8(ramp())
    save_png(image, tmp_path / "a.png")
    save_png(image, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    loaded = load(tmp_path / "a.png", size=40)
    assert torch.equal(loaded.image, image) and loaded.notes == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_mask_is_one_bit_a_pixel_and_comes_back(tmp_path):
    mask = np.indices((48, 40)).sum(0) % 3 == 0
    save_mask(mask, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "1" and (np.asarray(picture) == mask).all()
    assert (
        (load(tmp_path / "m.png", size=40, fit="crop").image[0] > 0).numpy() == mask[4:44]
    ).all()
    for wrong in (mask.astype(np.uint8), mask[None]):
        with pytest.raises(ValueError, match="booleans"):
            save_mask(wrong, tmp_path / "w.png")


def test_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    save_png(from_uint8(ramp()), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Refused, match="No space left"):
        save_png(from_uint8(ramp()[::-1].copy()), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(Refused, match="cannot be written"):
        save_png(from_uint8(ramp()), tmp_path / "missing" / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_every_format_gives_the_same_picture(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp()).save(path, **({"quality": 98} if suffix in ("jpg", "webp") else {}))
    loaded = load(path, size=40)
    assert loaded.image.shape == (1, 3, 40, 40) and loaded.notes == ()
    assert (loaded.image - from_uint8(ramp())).abs().mean() < (0.1 if suffix == "gif" else 0.03)


def test_format_is_told_by_content_not_by_name(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.txt", format="PNG")
    assert torch.equal(load(tmp_path / "a.txt", size=40).image, from_uint8(ramp()))


@pytest.mark.parametrize(
    ("mode", "note"),
    [
        ("1", 0),
        ("L", 0),
        ("P", 0),
        ("CMYK", 1),
        ("YCbCr", 0),
        ("LAB", None),
        ("I", None),
        ("F", None),
    ],
)
def test_modes(tmp_path, mode, note):
    source = Image.fromarray(ramp())
    path = tmp_path / "a.tiff"
    if mode == "LAB":
        Image.merge("LAB", source.split()).save(path)
    elif mode == "F":
        Image.fromarray(ramp()[..., 0].astype(np.float32)).save(path)
    elif mode == "YCbCr":
        source.convert(mode).save(path, compression="raw")
    else:
        source.convert(mode).save(path)
    if note is None:
        assert "16-bit PNG" in refused(path)
        return
    loaded = load(path, size=40)
    assert len(loaded.notes) == note and loaded.image.std() > 0.1
    assert loaded.image.min() >= -1 and loaded.image.max() <= 1


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk_keeps_its_colours(tmp_path, suffix):
    """Inks multiply: r = (255 - c)(255 - k) / 255, whatever way round a file stores them."""
    inks = {
        "red": ((0, 255, 255, 0), (1, -1, -1)),
        "dark grey": ((0, 0, 0, 191), (-0.5, -0.5, -0.5)),
        "paper": ((0, 0, 0, 0), (1, 1, 1)),
    }
    for cmyk, expected in inks.values():
        Image.new("CMYK", (32, 32), cmyk).save(tmp_path / f"a.{suffix}")
        loaded = load(tmp_path / f"a.{suffix}", size=32)
        assert (
            torch.allclose(
                loaded.image.mean((0, 2, 3)), torch.tensor(expected, dtype=torch.float32), atol=0.03
            )
            and "CMYK" in loaded.notes[0]
        )


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.indices((32, 32)).sum(0) % 2 == 0
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert torch.equal(
        load(tmp_path / "a.png", size=32).image,
        torch.from_numpy(bits).float().mul(2).sub(1).expand(1, 3, -1, -1),
    )


def test_float_tiff_with_nan_is_refused(tmp_path):
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "a.tiff")
    assert "floating point" in refused(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_keeps_its_levels(tmp_path, suffix):
    levels = (np.arange(256 * 256, dtype=np.uint32) % 65536).astype(np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    image = load(tmp_path / f"a.{suffix}", size=256).image
    assert len(np.unique(to_uint8(image))) == 256
    expected = torch.from_numpy(levels.astype(np.float32) / 65535 * 2 - 1)
    assert torch.allclose(image, expected.expand(1, 3, -1, -1), atol=1e-6)


@pytest.mark.parametrize(("order", "photometric"), [("<", 1), (">", 1), ("<", 0)])
def test_16_bit_tiff_by_hand(tmp_path, order, photometric):
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    tags = [
        (256, 32),
        (257, 32),
        (258, 16),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, 32),
        (279, 2048),
    ]
    ifd = (
        struct.pack(order + "H", len(tags))
        + b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
        + bytes(4)
    )
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + 2048)
    (tmp_path / "a.tiff").write_bytes(header + levels.astype(order + "u2").tobytes() + ifd)
    image = load(tmp_path / "a.tiff", size=32).image
    expected = torch.from_numpy(levels.astype(np.float32) / 65535 * 2 - 1) * (
        1 if photometric else -1
    )
    assert torch.allclose(image[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "mode", ["RGBA", "LA", "P", "RGB with tRNS", "L with tRNS", "I;16 with tRNS"]
)
def test_transparency_is_composited_and_said(tmp_path, mode):
    path = tmp_path / "a.png"
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, 16:] = 255
    if mode == "I;16 with tRNS":
        Image.fromarray(np.where(alpha == 0, 1000, 30000).astype(np.uint16)).save(
            path, transparency=1000
        )
    elif mode.endswith("tRNS"):
        base = Image.fromarray(np.where(alpha == 0, 10, 120).astype(np.uint8))
        base.convert(mode.split()[0]).save(
            path, transparency=(10, 10, 10) if mode.startswith("RGB") else 10
        )
    elif mode == "P":
        palette = Image.fromarray((alpha // 255).astype(np.uint8)).convert("L")
        palette.putpalette([10, 10, 10, 120, 120, 120])
        palette.save(path, transparency=0)
    else:
        image = Image.new("RGB", (32, 32), (10, 10, 10)).convert(mode)
        image.putalpha(Image.fromarray(alpha))
        image.save(path)
    loaded = load(path, size=32)
    assert len(loaded.notes) == 1 and "composited over white" in loaded.notes[0]
    assert (loaded.image[..., :16] == 1).all() and (loaded.image[..., 16:] < 0).all()
    grey, notes = read(path, background=(0, 0, 0))
    assert (grey[..., :16] == 0).all() and "background colour" in notes[0]


def test_opaque_alpha_is_not_mentioned(tmp_path):
    Image.fromarray(ramp()).convert("RGBA").save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png", size=40)
    assert loaded.notes == () and torch.equal(loaded.image, from_uint8(ramp()))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_orientation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the file's left column is the top row
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    loaded = load(tmp_path / f"a.{suffix}", size=40, fit="squash")
    assert "EXIF" in loaded.notes[0] and "is 20x40 px" in loaded.notes[-1]
    assert loaded.image[..., :19, :].mean() > 0.9 and loaded.image[..., 21:, :].mean() < -0.9


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(
        tmp_path / f"a.{suffix}",
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if suffix == "webp" else {}),
    )
    loaded = load(tmp_path / f"a.{suffix}", size=32)
    assert "first is used" in loaded.notes[0]
    assert torch.equal(loaded.image.mean((0, 2, 3)), torch.tensor([1.0, -1.0, -1.0]))


def test_crop_is_central_and_said(tmp_path):
    pixels = np.zeros((300, 451, 3), np.uint8)
    pixels[:, 75:375] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    loaded = load(tmp_path / "photo.png", size=256)
    assert loaded.notes == (
        "photo.png is 451x300 px: centre-cropped to 300x300, then resized to 256x256",
    )
    assert torch.allclose(loaded.image, torch.ones(1, 3, 256, 256), atol=1e-5)


def test_pad_and_squash(tmp_path):
    Image.new("RGB", (64, 32), (255, 255, 255)).save(tmp_path / "a.png")
    padded = load(tmp_path / "a.png", size=64, fit="pad")
    assert padded.notes == ("a.png is 64x32 px: padded with grey to 64x64",)
    assert (
        (padded.image[..., :16, :] == 0).all()
        and (padded.image[..., 16:48, :] == 1).all()
        and (padded.image[..., 48:, :] == 0).all()
    )
    squashed = load(tmp_path / "a.png", size=64, fit="squash")
    assert (squashed.image == 1).all() and "squashed to 64x64" in squashed.notes[0]
    assert "crop, pad, squash" in refused(tmp_path / "a.png", fit="stretch")


def test_a_mask_is_what_is_lighter_than_mid_grey(tmp_path):
    """Noise of a lossy file is no mask; what is padded must stay.

    A new pixel may change if any part of it may.
    """
    pixels = np.full((16, 32), 3, dtype=np.uint8)
    pixels[1, 9] = 250
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask, size = images.load_mask(tmp_path / "mask.png", size=4)
    assert (
        size == (32, 16)
        and mask.shape == (1, 1, 4, 4)
        and mask.sum() == 1
        and mask[0, 0, 0, 0] == 1
    )
    padded, _ = images.load_mask(tmp_path / "mask.png", size=32, fit="pad")
    assert padded.sum() == 1 and padded[0, 0, 9, 9] == 1
    larger, _ = images.load_mask(tmp_path / "mask.png", size=32)
    assert larger.sum() == 4
