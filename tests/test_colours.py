"""Colours are what a file's ICC profile says; a profile that cannot be used is said."""

from typing import Any

import numpy as np
import profiles
import pytest
from PIL import Image, ImageCms
from test_images import ramp

from unitune import images
from unitune.images import load_mask, read, to_uint8

MUTED = (ramp() * 0.4 + 70).astype(np.uint8)  # no colour leaves sRGB


def levels(path):
    picture, notes = read(path)
    return to_uint8(picture).astype(float), notes


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp"])
@pytest.mark.parametrize("name", profiles.RGB)
def test_colours_of_wide_profiles_become_srgb_and_that_is_said(tmp_path, name, suffix):
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"quality": 100} if suffix != "tiff" else {}
    options |= {"subsampling": 0} if suffix == "jpg" else {}
    options |= {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(MUTED).save(path, icc_profile=profiles.of_rgb(name), **options)
    with Image.open(path) as im:
        stored = np.asarray(im).astype(float)
        by_littlecms = ImageCms.profileToProfile(im, _file(tmp_path, name), _srgb())
    found, notes = levels(path)
    assert notes == [f"a.{suffix}: converted from its colour profile (test) to sRGB"]
    assert np.abs(found - np.asarray(by_littlecms)).max() <= 1
    assert np.abs(found - profiles.in_srgb(stored, name)).max() <= 2
    assert np.abs(found - stored).mean() > 3


def _srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _file(folder, name):
    (folder / "p.icc").write_bytes(profiles.of_rgb(name))
    return str(folder / "p.icc")


def test_the_profile_of_srgb_itself_changes_no_byte(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png", icc_profile=_srgb().tobytes())
    found, notes = levels(tmp_path / "a.png")
    assert notes == [] and (found == ramp()).all()


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        profiles.of_rgb("ProPhoto")[:200],
        profiles.of_grey(1.0),
        profiles.of_inks(),
        profiles.profile(b"RGB ", {}),
        profiles.profile(b"Lab ", {}),
    ],
    ids=["text", "cut", "of grey", "of inks", "without curves", "of Lab"],
)
def test_a_profile_that_cannot_be_used_is_said_and_changes_nothing(tmp_path, profile):
    Image.fromarray(ramp()).save(tmp_path / "a.png", icc_profile=profile)
    found, (note,) = levels(tmp_path / "a.png")
    assert "colour profile cannot be used" in note and note.endswith("taken as sRGB")
    assert "\n" not in note and (found == ramp()).all()


GREY = np.arange(1024).reshape(32, 32) * 64  # of 16 bits
LIGHT = GREY // 257 / 255


@pytest.mark.parametrize(
    ("mode", "exponent"), [("L", 1.0), ("L", 1.8), ("LA", 1.0), ("I;16", 1.0), ("1", 1.8)]
)
def test_grey_has_profiles_too(tmp_path, mode, exponent):
    pixels = Image.fromarray((GREY // 257).astype(np.uint8)).convert(mode.replace("I;16", "L"))
    light = LIGHT
    if mode == "I;16":  # which keeps the shadows of a linear curve apart
        pixels, light = Image.fromarray(GREY.astype(np.uint16)), GREY / 65535
    if mode == "1":
        light = np.asarray(pixels).astype(float)
    pixels.save(tmp_path / "a.png", icc_profile=profiles.of_grey(exponent))
    found, notes = levels(tmp_path / "a.png")
    assert notes[0].endswith("to sRGB")
    # Littlecms goes straight from node to node of a table, which shadows of a linear curve show.
    allowed = 11 if exponent == 1 else 2
    off = np.abs(found - profiles.encoded(light**exponent)[..., None])
    assert off.max() <= allowed and off[light > 0.25].max() <= 2


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "I;16", "P with tRNS"])
def test_a_profile_of_rgb_holds_for_palettes_alpha_and_grey(tmp_path, mode):
    source = Image.fromarray(MUTED)
    if mode == "I;16":
        pixels = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
        stored = source.convert("L").convert("RGB")
    else:
        pixels = source.convert(mode.split()[0])
        stored = pixels.convert("RGB")
    if mode == "RGBA":
        pixels.putalpha(
            Image.fromarray(np.repeat([[0, 255]], 20, 1).repeat(40, 0).astype(np.uint8))
        )
    options: dict[str, Any] = {"transparency": 0} if "tRNS" in mode else {}
    profile = profiles.of_rgb("ProPhoto")
    pixels.save(tmp_path / "a.png", icc_profile=profile, **options)
    found, notes = levels(tmp_path / "a.png")
    expected = profiles.in_srgb(np.asarray(stored).astype(float), "ProPhoto")
    if mode == "RGBA":
        assert (found[:, :20] == 255).all() and "composited" in notes[1]
    if mode == "P with tRNS":
        expected = np.where(np.asarray(pixels)[..., None] == 0, 255, expected)
    if mode == "RGBA":
        expected[:, :20] = 255
    assert "to sRGB" in notes[0] and np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_inks_are_those_of_the_profile(tmp_path, suffix):
    for cmyk, expected in (((0, 0, 0, 0), 255), ((255, 0, 0, 0), 0), ((0, 0, 255, 0), 0)):
        path = tmp_path / f"a.{suffix}"
        Image.new("CMYK", (32, 32), cmyk).save(path, icc_profile=profiles.of_inks())
        found, notes = levels(path)
        assert notes == [f"a.{suffix}: converted from its colour profile (test) to sRGB"]
        assert np.abs(found - expected).max() <= 2


def test_a_mask_is_numbers_not_colours(tmp_path):
    """Level 120 of a linear curve is lighter than mid-grey; of a mask it stays below."""
    pixels = Image.fromarray(np.full((32, 32), 120, np.uint8))
    pixels.save(tmp_path / "m.png", icc_profile=profiles.of_grey(1.0))
    assert levels(tmp_path / "m.png")[0].min() > 150
    assert load_mask(tmp_path / "m.png", size=32)[0].sum() == 0


@pytest.mark.parametrize("name", profiles.RGB)
def test_a_photograph_keeps_its_own_numbers_and_profile(tmp_path, name):
    profile = profiles.of_rgb(name)
    Image.fromarray(MUTED).save(tmp_path / "a.png", icc_profile=profile)
    found = images.photograph(tmp_path / "a.png")
    assert found.profile == profile and (to_uint8(found.pixels) == MUTED).all()
    images.save_png(found.pixels, tmp_path / "b.png", profile=profile)
    assert (levels(tmp_path / "b.png")[0] == levels(tmp_path / "a.png")[0]).all()


@pytest.mark.parametrize(
    ("mode", "suffix", "profile"),
    [
        ("L", "png", profiles.of_grey(1.0)),
        ("CMYK", "tiff", profiles.of_inks()),
        ("RGB", "png", b"?"),
    ],
)
def test_a_profile_that_cannot_be_written_leaves_a_photograph_in_srgb(
    tmp_path, mode, suffix, profile
):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp()).convert(mode).save(path, icc_profile=profile)
    found = images.photograph(path)
    assert found.profile is None and (to_uint8(found.pixels) == levels(path)[0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
@pytest.mark.parametrize("name", profiles.RGB)
def test_inks_with_a_profile_of_rgb_are_a_photograph_in_srgb(tmp_path, name, suffix):
    """The numbers are not those of the profile: it would shift the colours once more."""
    path = tmp_path / f"a.{suffix}"
    pixels = Image.fromarray(MUTED).convert("CMYK")
    pixels.save(path, icc_profile=profiles.of_rgb(name), quality=95)
    found = images.photograph(path)
    assert found.profile is None and (to_uint8(found.pixels) == levels(path)[0]).all()


def test_grey_with_a_profile_of_rgb_keeps_it(tmp_path):
    profile = profiles.of_rgb("ProPhoto")
    Image.fromarray(ramp()).convert("L").save(tmp_path / "a.png", icc_profile=profile)
    assert images.photograph(tmp_path / "a.png").profile == profile
