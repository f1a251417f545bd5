"""How often an interval of 95 % covers the true value.

Simulated for the fewest images that have an interval and for the fewest of a verdict.
"""

import math

import numpy as np
import pytest

from unitune.metrics.statistics import ENOUGH, FEWEST, interval
from unitune.report.fronts import Sweep, area

REPEATS = 10000
DRAWS = 12  # of an image


def rates(rng: np.random.Generator, rate: float, n: int, *, alike: float = 0.0) -> np.ndarray:
    """Shares of successes; `alike` is the correlation of an image's draws.

    They are binomial where it is 0, else beta-binomial.
    """
    own: float | np.ndarray = rate
    if alike:
        concentration = 1 / alike - 1
        own = rng.beta(rate * concentration, (1 - rate) * concentration, (REPEATS, n))
    return rng.binomial(DRAWS, own, (REPEATS, n)) / DRAWS


def share_of(intervals, true: float) -> float:
    return float(np.mean([low <= true <= high for _, low, high in intervals]))


def means(values: np.ndarray, true: float, within=None) -> float:
    return share_of((interval(row.tolist(), within=within) for row in values), true)


def areas(rng: np.random.Generator, n: int) -> float:
    """Four settings with an image's level in common, as in trade-offs of alignment and ST-LPIPS."""
    x, y = np.array([0.05, 0.1, 0.2, 0.25]), np.array([0.6, 0.5, 0.35, 0.2])
    true = area(Sweep((1, 2, 3, 4), ("all",), x[:, None], y[:, None]), corner=(0.0, 0.0)).mean
    found = []
    for _ in range(REPEATS):
        noisy = [
            level[:, None] + rng.normal(0, 0.03, n) + rng.normal(0, 0.03, (4, n))
            for level in (x, y)
        ]
        found.append(
            area(Sweep((1, 2, 3, 4), tuple(map(str, range(n))), *noisy), corner=(0.0, 0.0))
        )
    return share_of(found, true)


# Of the logarithm of pixel errors: half of the images within a factor of 1.4 of the median.
SPREAD = 0.5
CASES = {
    "mean of normal scores": lambda rng, n: means(rng.normal(2.0, 1.0, (REPEATS, n)), 2.0),
    "log-normal errors": lambda rng, n: means(
        rng.lognormal(0.0, SPREAD, (REPEATS, n)), math.exp(SPREAD**2 / 2)
    ),
    "success of 0.05": lambda rng, n: means(rates(rng, 0.05, n), 0.05, (0.0, 1.0)),
    "success of 0.3": lambda rng, n: means(rates(rng, 0.3, n), 0.3, (0.0, 1.0)),
    "success of 0.9": lambda rng, n: means(rates(rng, 0.9, n), 0.9, (0.0, 1.0)),
    "success of 0.05, images differ": lambda rng, n: means(
        rates(rng, 0.05, n, alike=0.05), 0.05, (0.0, 1.0)
    ),
    "success of 0.3, images differ": lambda rng, n: means(
        rates(rng, 0.3, n, alike=0.1), 0.3, (0.0, 1.0)
    ),
    "success of 0.9, images differ": lambda rng, n: means(
        rates(rng, 0.9, n, alike=0.1), 0.9, (0.0, 1.0)
    ),
    "paired difference of scores": lambda rng, n: means(
        rng.normal(0, 3, (REPEATS, n))
        + rng.normal(0.5, 1, (REPEATS, n))
        - rng.normal(0, 3, (REPEATS, n)),
        0.5,
    ),
    "paired difference of success": lambda rng, n: means(
        rates(rng, 0.3, n, alike=0.1) - rates(rng, 0.1, n, alike=0.1), 0.2, (-1.0, 1.0)
    ),
    "paired difference of rare success": lambda rng, n: means(
        rates(rng, 0.1, n) - rates(rng, 0.05, n), 0.05, (-1.0, 1.0)
    ),
    "area under a front": areas,
}


@pytest.mark.parametrize("n", [FEWEST, ENOUGH])
@pytest.mark.parametrize("case", CASES)
def test_an_interval_covers_the_true_value_as_often_as_it_says(case, n):
    covered = CASES[case](np.random.default_rng(7), n)
    assert 0.90 <= covered <= 0.98, f"{case}, {n} images: {covered:.3f}"
