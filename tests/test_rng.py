import itertools

import pytest
import torch

from unitune import rng

NAMES = {"seed": 0, "example": "cat", "stage": "base", "role": "tune", "step": 3}
OTHERS = [
    {**NAMES, "seed": 1},
    {**NAMES, "example": "dog"},
    {**NAMES, "stage": "sr256"},
    {**NAMES, "role": "sample"},
    {**NAMES, "step": 4},
]


def test_same_names_same_tensor_whatever_was_drawn_before():
    first = rng.noise((2, 3, 8, 8), **NAMES)
    torch.randn(7)
    rng.noise((5,), **OTHERS[0])
    assert torch.equal(first, rng.noise((2, 3, 8, 8), **NAMES))
    assert first.dtype == torch.float32 and first.device.type == "cpu"


def test_no_global_generator_is_touched():
    state = torch.get_rng_state()
    rng.noise((4, 4), **NAMES)
    rng.uniform_levels(4, 1000, **NAMES)
    assert torch.equal(state, torch.get_rng_state())


def test_global_seed_does_not_matter():
    torch.manual_seed(1)
    first = rng.noise((4, 4), **NAMES)
    torch.manual_seed(2)
    assert torch.equal(first, rng.noise((4, 4), **NAMES))


def test_noise_is_standard_normal():
    x = rng.noise((100_000,), **NAMES)
    assert abs(x.mean()) < 0.015 and abs(x.var() - 1) < 0.02
    assert abs((x**4).mean() - 3) < 0.15


def test_names_are_independent():
    drawn = [rng.noise((20_000,), **names) for names in [NAMES, *OTHERS]]
    for a, b in itertools.combinations(drawn, 2):
        assert abs((a * b).mean()) < 5 / 20_000**0.5


def test_names_are_not_run_together():
    a = rng.noise((16,), **{**NAMES, "example": "ab", "stage": "c"})
    b = rng.noise((16,), **{**NAMES, "example": "a", "stage": "bc"})
    assert not torch.equal(a, b)


def test_levels_are_uniform_and_independent_of_the_noise():
    t = rng.uniform_levels(20_000, 10, **NAMES)
    assert t.dtype == torch.int64 and t.min() == 0 and t.max() == 9
    counts = torch.bincount(t, minlength=10).double()
    assert ((counts - 2000) ** 2 / 2000).sum() < 35  # chi-square, 9 degrees of freedom: P < 1e-4
    of_the_noise = rng.generator(*NAMES.values())
    assert not torch.equal(t, torch.randint(0, 10, (20_000,), generator=of_the_noise))
    assert torch.equal(t, rng.uniform_levels(20_000, 10, **NAMES))


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_integer_is_a_seed(seed):
    assert rng.noise((3,), **{**NAMES, "seed": seed}).isfinite().all()
