"""Paste-back: an edit returns to its place in the photograph; outside the mask nothing moves."""

from pathlib import Path

import numpy as np
import profiles
import pytest
import torch
from PIL import Image

from unitune import images
from unitune.runs import pictures
from unitune.runs.paste import Paste, paste, region
from unitune.types import Edit, Example, Refused, Request

SHAPES = [(40, 64), (64, 40), (33, 57), (48, 48), (200, 310)]


def photo(height: int, width: int) -> torch.Tensor:
    return images.from_uint8(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_mask_leaves_the_photograph_bitwise(shape, fit):
    whole = photo(*shape)
    assert torch.equal(
        paste(whole, torch.ones(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), fit=fit, feather=0.01),
        whole,
    )


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_edit_lies_where_its_square_was_cut(shape, fit, tmp_path: Path):
    """A white quarter of the square, pasted, lies in that quarter of the photograph's square."""
    height, width = shape
    images.save_png(torch.zeros(1, 3, height, width), tmp_path / "p.png")
    edit, mask = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    edit[..., 8:24, 4:20] = 1
    mask[..., 8:24, 4:20] = 1
    back = paste(torch.zeros(1, 3, height, width), edit, mask, fit=fit, feather=0.0)
    assert back.shape == (1, 3, height, width)
    images.save_png(back, tmp_path / "back.png")
    again = images.load(tmp_path / "back.png", size=32, fit=fit).image
    inside = torch.zeros(1, 3, height, width)
    images.save_png(inside, tmp_path / "in.png")
    assert (again - edit).abs().mean() < 0.06
    assert (again - edit)[..., 10:22, 6:18].abs().max() < 0.15


@pytest.mark.parametrize("fit", images.FITS)
def test_outside_the_mask_pixels_stay_bitwise_and_the_edge_softens_inwards(fit):
    whole = photo(64, 96)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    hard, soft = (
        paste(whole, torch.ones(1, 3, 32, 32), mask, fit=fit, feather=feather)
        for feather in (0.0, 0.03)
    )
    untouched = (hard == whole).all(dim=1, keepdim=True).expand_as(whole)
    assert bool(untouched.any()) and torch.equal(soft[untouched], whole[untouched])
    assert bool((soft == 1).any()) and not torch.equal(soft, hard)


def test_the_box_is_where_load_cuts(tmp_path: Path):
    for height, width in SHAPES[:3]:
        whole = photo(height, width)
        images.save_png(whole, tmp_path / "p.png")
        top, left, side, _ = images.box(height, width, "crop")
        assert torch.equal(
            images.load(tmp_path / "p.png", size=side).image,
            whole[..., top : top + side, left : left + side],
        )
        top, left, side, _ = images.box(height, width, "pad")
        padded = images.load(tmp_path / "p.png", size=side, fit="pad").image
        assert torch.equal(padded[..., -top : height - top, -left : width - left], whole)


def test_what_is_pasted_is_what_sampling_might_change_else_kept_else_what_changed():
    base, ones = torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    edit = Edit(
        Example("x", base, ()),
        Request("a dog"),
        0,
        1.0,
        1.0,
        "",
        base.clone(),
        mask=ones * 0.5,
        allowed=ones,
    )
    assert torch.equal(region(edit), ones)
    edit = Edit(
        Example("x", base, ()), Request("a dog"), 0, 1.0, 1.0, "", base.clone(), mask=ones * 0.5
    )
    assert torch.equal(region(edit), ones * 0.5)
    changed = base.clone()
    changed[..., 8:16, 8:16] = 1
    edit = Edit(Example("x", base, ()), Request("a dog"), 0, 1.0, 1.0, "", changed)
    assert region(edit)[..., 10, 10] == 1 and region(edit)[..., 28, 28] == 0


def test_feather_out_of_range_and_a_benchmark_of_squares_are_refused(typed):
    with pytest.raises(Refused, match="feather must be in"):
        Paste(Path("p.png"), feather=0.5)
    said = typed("paste=true")
    assert said.code == 2 and "paste=true puts edits back into one's own picture" in said.err


@pytest.mark.parametrize("name", profiles.RGB)
def test_a_photograph_keeps_its_profile_and_the_edit_its_colours(tmp_path: Path, name):
    """Outside the edit no number changes; inside, the profile means what the edit shows."""
    pixels = np.random.default_rng(0).integers(80, 170, (48, 64, 3), dtype=np.uint8)
    profile = profiles.of_rgb(name)
    Image.fromarray(pixels).save(tmp_path / "p.png", icc_profile=profile)
    example = Example("x", torch.zeros(1, 3, 32, 32), (Request("a dog"),))
    allowed = torch.zeros(1, 1, 32, 32)
    allowed[..., 8:24, 8:24] = 1
    edit = Edit(example, example.requests[0], 0, 1.0, 1.0, "", edited(), allowed=allowed)
    paster = Paste(tmp_path / "p.png", feather=0.0)
    pictures.save([edit], {id(edit): "e.png"}, tmp_path, paste=paster)
    with Image.open(tmp_path / "e-full.png") as full:
        written, embedded = np.asarray(full).copy(), full.info["icc_profile"]
    assert embedded == profile
    outside = np.ones((48, 64), bool)
    outside[12:36, 20:44] = False
    assert (written[outside] == pixels[outside]).all()
    again = images.to_uint8(images.read(tmp_path / "e-full.png")[0])[14:34, 22:42]
    assert np.abs(again.astype(int) - images.to_uint8(edit.image)[16, 16]).max() <= 3
    assert np.abs(written[14:34, 22:42].astype(int) - again).max() > 5


def edited() -> torch.Tensor:
    return torch.tensor([0.4, -0.2, 0.1])[None, :, None, None].expand(1, 3, 32, 32).contiguous()


@pytest.mark.parametrize(
    ("mode", "profile"), [("L", profiles.of_grey(1.0)), ("RGB", b"?"), ("RGB", None)]
)
def test_a_photograph_without_a_profile_of_rgb_is_written_as_srgb(tmp_path: Path, mode, profile):
    pixels = np.random.default_rng(0).integers(80, 170, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "p.png", icc_profile=profile)
    example = Example("x", torch.zeros(1, 3, 32, 32), (Request("a dog"),))
    nothing = torch.zeros(1, 1, 32, 32)
    edit = Edit(example, example.requests[0], 0, 1.0, 1.0, "", edited(), allowed=nothing)
    pictures.save([edit], {id(edit): "e.png"}, tmp_path, paste=Paste(tmp_path / "p.png"))
    with Image.open(tmp_path / "e-full.png") as full:
        assert "icc_profile" not in full.info
        assert torch.equal(images.from_uint8(np.asarray(full)), images.read(tmp_path / "p.png")[0])
