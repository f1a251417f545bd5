"""Blending with the base image: exact at the ends of the mask, and when it applies."""

import pytest
import torch

from unitune.diffusion import hold, interpolation
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.schedule import Schedule
from unitune.types import Refused


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EDIT, BASE = randn(2, 3, 8, 8, seed=0), randn(2, 3, 8, 8, seed=1) * 1e3


def test_mask_zero_is_the_base_and_mask_one_the_edit_bitwise():
    assert torch.equal(interpolation.mix(EDIT, BASE, torch.zeros(2, 1, 8, 8)), BASE)
    assert torch.equal(interpolation.mix(EDIT, BASE, torch.ones(2, 1, 8, 8)), EDIT)


def test_mask_between_is_linear():
    mask = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(0.1, 0.9)
    torch.testing.assert_close(
        interpolation.mix(EDIT, BASE, mask), mask * EDIT + (1 - mask) * BASE, rtol=0, atol=0
    )


def test_each_pixel_has_its_own_mask():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:5, 3:7] = 1
    out, inside = interpolation.mix(EDIT, BASE, mask), mask.expand_as(EDIT) == 1
    assert torch.equal(out[inside], EDIT[inside]) and torch.equal(out[~inside], BASE[~inside])


def test_a_not_finite_edit_does_not_reach_what_is_kept():
    assert torch.equal(
        interpolation.mix(torch.full_like(EDIT, float("nan")), BASE, torch.zeros(2, 1, 8, 8)), BASE
    )


def test_keep_at_the_clean_level_is_the_base_itself():
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    out = hold.keep(
        Schedule.cosine(),
        EDIT,
        BASE,
        mask,
        s=torch.tensor([-1, -1]),
        noise=randn(2, 3, 8, 8, seed=2),
    )
    assert torch.equal(out[:, :, 4:], BASE[:, :, 4:]) and torch.equal(out[:, :, :4], EDIT[:, :, :4])


def test_keep_noises_the_base_to_each_items_level():
    schedule, s, noise = Schedule.cosine(), torch.tensor([300, 800]), randn(2, 3, 8, 8, seed=2)
    out = hold.keep(schedule, EDIT, BASE, torch.zeros(2, 1, 8, 8), s=s, noise=noise)
    assert torch.equal(out, schedule.add_noise(BASE, noise, s))


@pytest.mark.parametrize(
    ("mode", "composed_alike", "applies"),
    [
        ("off", True, False),
        ("off", None, False),
        ("auto", True, True),
        ("auto", False, False),
        ("auto", None, False),
        ("on", False, True),
        ("on", None, True),
        ("on", True, True),
    ],
)
def test_when_interpolation_applies(mode: str, composed_alike: bool | None, applies: bool):
    assert Interpolation(mode).applies(composed_alike) is applies


def test_unknown_mode_and_numbers_out_of_range_are_refused():
    thresholds = ({"low": 0.3, "high": 0.3}, {"low": -0.1})
    shares = ({"grow": -0.1}, {"grow": 1.0}, {"sigma": -0.1}, {"sigma": float("nan")})
    for wrong in ({"mode": "yes"}, *thresholds, *shares):
        with pytest.raises(Refused):
            Interpolation(**wrong)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_preserves_constants_and_mass(sigma: float):
    torch.testing.assert_close(
        interpolation.blur(torch.full((1, 2, 9, 9), 0.7), sigma), torch.full((1, 2, 9, 9), 0.7)
    )
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    out = interpolation.blur(point, sigma)
    assert float(out.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(out, out.transpose(2, 3))
    across = out.sum((0, 1, 2)) @ (torch.arange(33.0) - 16) ** 2
    assert float(across) == pytest.approx(sigma**2, rel=0.05 if sigma >= 1 else 1)


def test_no_blur():
    assert torch.equal(interpolation.blur(EDIT, 0.0), EDIT)


def test_mask_of_equal_pictures_is_zero_and_of_a_changed_patch_is_there():
    base = randn(1, 3, 64, 64, seed=0).clamp(-1, 1)
    assert Interpolation("on").mask(base, base).abs().max() == 0
    edit = base.clone()
    edit[..., 20:40, 20:40] = base[..., 20:40, 20:40] + 1
    mask = Interpolation("on").mask(edit, base)
    assert mask.shape == (1, 1, 64, 64) and mask[..., 20:40, 20:40].min() == 1
    assert mask[..., :14, :].max() == 0 and mask[..., 46:].max() == 0


def test_mask_ignores_changes_below_low_and_keeps_those_above_high():
    base, quiet = torch.zeros(1, 3, 32, 32), Interpolation("on", low=0.1, high=0.3)
    assert quiet.mask(base + 0.09, base).max() == 0
    assert quiet.mask(base + 0.31, base).min() == 1
    torch.testing.assert_close(quiet.mask(base + 0.2, base), torch.full((1, 1, 32, 32), 0.5))
