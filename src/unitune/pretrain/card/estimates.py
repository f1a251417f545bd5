"""Numbers with their uncertainty and their target: the lines of the pocket models' card, and the law that a learning curve follows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

NAN = float("nan")
LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One number of a part from `n` cases, with an interval [low, high] (NaN where it has none) and the target to reach or the chance to beat."""

    part: str
    what: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    at_least: float | None = None
    at_most: float | None = None
    chance: float | None = None

    @property
    def target(self) -> str:
        """What is asked of the number, in words; empty where nothing is."""
        asked = (("at least", self.at_least), ("at most", self.at_most), ("above chance,", self.chance))
        return next((f"{words} {bound:g}" for words, bound in asked if bound is not None), "")

    @property
    def verdict(self) -> str:
        """Whether the value reaches its bound, or its whole interval lies above chance; empty without a target."""
        if not self.target:
            return ""
        if math.isnan(self.value):
            return "not measured"
        if self.chance is not None:
            return "reached" if self.low > self.chance else "not reached"
        met = (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)
        return "reached" if met else "not reached"


def share(part: str, what: str, hits: Sequence[bool], *, at_least: float | None = None, chance: float | None = None) -> Row:
    """Make a Row of the share of hits with Wilson's interval; no cases give NaN."""
    if not hits:
        return Row(part, what, NAN, at_least=at_least, chance=chance)
    low, high = stats.binomtest(sum(hits), len(hits)).proportion_ci(LEVEL, method="wilson")
    return Row(part, what, sum(hits) / len(hits), float(low), float(high), len(hits), at_least=at_least, chance=chance)


def average(part: str, what: str, values: Sequence[float], *, at_least: float | None = None) -> Row:
    """Make a Row of the mean with its bootstrap interval over cases."""
    low, high = _bootstrap(lambda x, axis=-1: x.mean(axis=axis), values)
    return Row(part, what, float(np.mean(values)), low, high, len(values), at_least=at_least)


def ratio(part: str, what: str, over: Sequence[float], under: Sequence[float], *, at_most: float | None = None) -> Row:
    """Make a Row of the ratio of two means over the same cases, with its bootstrap interval over pairs."""
    low, high = _bootstrap(lambda x, y, axis=-1: x.mean(axis=axis) / y.mean(axis=axis), over, under)
    return Row(part, what, float(np.mean(over) / np.mean(under)), low, high, len(over), at_most=at_most)


def spread(part: str, what: str, values: Sequence[float], *, n: int) -> Row:
    """Make a Row of the mean of repeated estimates with the percentiles of the estimates themselves (not of their mean)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Row(part, what, float(np.mean(values)), float(low), float(high), n)


def _bootstrap(statistic: Callable, *samples: Sequence[float]) -> tuple[float, float]:
    if len(samples[0]) < 2:
        return NAN, NAN
    data = tuple(np.asarray(sample, float) for sample in samples)
    found = stats.bootstrap(
        data, statistic, paired=True, vectorized=True, confidence_level=LEVEL, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class PowerLaw:
    """y = scale * samples^exponent, fitted to the last `points` points of a curve."""

    scale: float
    exponent: float
    points: int

    @property
    def per_doubling(self) -> float:
        """The factor that y is multiplied by when samples double."""
        return 2.0**self.exponent

    def reaches(self, y: float) -> float:
        """Return the samples at which the law gives y; infinite where it does not fall."""
        return (y / self.scale) ** (1 / self.exponent) if self.exponent < 0 else math.inf


def power_law(curve: Sequence[tuple[float, float]]) -> PowerLaw | None:
    """Fit a power law by least squares on logarithms to the later half of a curve (samples, y); None where fewer than 3 positive points remain."""
    points = sorted(point for point in curve if min(point) > 0)
    late = points[len(points) // 2 :]
    if len({s for s, _ in late}) < 3:
        return None
    logs = np.log(np.array(late))
    exponent, constant = np.polyfit(logs[:, 0], logs[:, 1], 1)
    return PowerLaw(float(np.exp(constant)), float(exponent), len(late))
