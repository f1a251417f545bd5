"""What may be said of scores: means with intervals, paired differences with tests, or nothing.

The unit is the base image: edits and seeds of one image share its tuning, so they are averaged
first. Intervals are of 95 % and are given from 8 images on, as with fewer none covers the true
mean as often as it says. tests/test_coverage.py holds how often these cover it: 90 to 98 % at 8
and at 24 images.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import special, stats

from unitune.storage.records import Record
from unitune.types import Refused

FEWEST = 8  # images; with fewer the mean stands alone
ENOUGH = 24  # images; with fewer an interval is shown, but no claim is decided
EXACT, FLIPS = 16, 9999  # up to so many images every flip of signs is tried, else so many at random
SHARES = frozenset({"appear", "stay", "both"})  # metrics that are 0 or 1: their means are rates
# A derived metric is 1 - numerator / denominator, each summed over an image.
DERIVED: Mapping[str, tuple[str, str]] = {"progress": ("error_inside", "base_error_inside")}
# The success of edits. A derived score stands beside it only, as a blurred picture makes progress.
BESIDE = "both"
# The success of a copy of the base: it tells why an edit has no success, and no table shows it.
OF_BASE = "both_base"

NOTHING = 1e-9  # rounding of equal pictures, written as 0
Bounds = tuple[float, float]
ByImage = Mapping[str, float]  # a number for each base image
Key = TypeVar("Key", bound=Hashable)


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN where there are too few images for one."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = (f"{0.0 if abs(value) < NOTHING else value:.3g}" for value in self)
        return mean if math.isnan(self.low) else f"{mean} [{low}, {high}]"


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same images.

    Tests are two-sided; `wins` is the share of images where the first is better (a tie is half).
    """

    difference: Interval
    images: int
    sign_flip: float
    wilcoxon: float
    wins: Interval


def group_by(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Group records by a key, in the order in which the keys appear first."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def score_of(record: Record, name: str) -> float | None:
    """Return a score; None where the record lacks it or it is NaN: the metric does not apply."""
    value = record.scores.get(name)
    return None if value is None or math.isnan(value) else value


def applying(records: Iterable[Record], metric: str) -> list[Record]:
    """List the records that an average of the metric goes over: those that have the score.

    Of a derived metric they are those whose image has a denominator above 0.
    """
    names = DERIVED.get(metric, (metric,))
    known = [r for r in records if all(score_of(r, name) is not None for name in names)]
    if metric not in DERIVED:
        return known
    positive = {r.example for r in known if (r.scores[names[-1]] or 0.0) > 0}
    return [record for record in known if record.example in positive]


def measured(records: Sequence[Record]) -> list[str]:
    """Name the metrics that apply to some record, as tables show them.

    Derived scores stand after the success of edits, in place of those that they are made of.
    """
    names = dict.fromkeys(name for record in records for name in record.scores)
    hidden = {OF_BASE, *(name for pair in DERIVED.values() for name in pair)}
    shown = [name for name in names if name not in hidden and applying(records, name)]
    if BESIDE in shown:
        after = shown.index(BESIDE) + 1
        shown[after:after] = [name for name in DERIVED if applying(records, name)]
    return shown


def by_image(records: Iterable[Record], metric: str) -> dict[str, float]:
    """Average a metric over the edits and seeds of each base image.

    Records without that score do not count; a metric that no record has is refused. Of a derived
    metric the numerators and the denominators of an image are summed before dividing: an edit with
    little to change weighs little.
    """
    records = list(records)
    images = group_by(applying(records, metric), lambda record: record.example)
    if not images:
        known = {name for r in records for name, value in r.scores.items() if value is not None}
        has = ", ".join(sorted(known)) or "no scores"
        raise Refused(f"no record has the score {metric!r}; these records have {has}")

    def total(members: list[Record], name: str) -> float:
        return math.fsum(member.scores[name] or 0.0 for member in members)

    if metric not in DERIVED:
        return {image: total(members, metric) / len(members) for image, members in images.items()}
    top, bottom = DERIVED[metric]
    return {image: 1 - total(found, top) / total(found, bottom) for image, found in images.items()}


def bounds(metric: str, weights: Iterable[float] = (1.0,)) -> Bounds | None:
    """Say what a weighted sum of a metric's means cannot leave; None for what is no rate.

    It is (0, 1) for a rate and (-1, 1) for the difference of two.
    """
    if metric not in SHARES:
        return None
    weights = list(weights)
    return math.fsum(min(w, 0.0) for w in weights), math.fsum(max(w, 0.0) for w in weights)


def interval(values: ByImage | Sequence[float], *, within: Bounds | None = None) -> Interval:
    """Return the mean over images with its 95 % interval; below 8 images the mean alone.

    The interval is Student's t. `within` says what values cannot leave, as `bounds` gives it; then
    it is Wilson's with the effective number of draws, which says something too where all images
    agree (24 failures do not show that every edit fails). Real numbers that all agree, as errors
    of exactly 0, have no width.
    """
    each = [*(values.values() if isinstance(values, Mapping) else values)]
    numbers = np.asarray(each, dtype=np.float64)
    if not each or not np.isfinite(numbers).all():
        raise Refused(f"an interval needs finite numbers, one an image, got {numbers.tolist()}")
    mean = float(numbers.mean())
    if len(numbers) < FEWEST:
        return Interval(mean, math.nan, math.nan)
    if within is not None:
        return Interval(mean, *_wilson(numbers, *within))
    half = half_width(numbers)
    return Interval(mean, mean - half, mean + half)


def half_width(values: np.ndarray) -> float:
    """Half of Student's 95 % interval of a mean."""
    return float(_student(len(values)) * values.std(ddof=1) / math.sqrt(len(values)))


def _student(n: int) -> float:
    """Student's quantile of a two-sided 95 % interval of n values."""
    return float(special.stdtrit(n - 1, 0.975))


def _wilson(values: np.ndarray, least: float, most: float) -> tuple[float, float]:
    """Wilson's interval with Student's quantile, of the mean of values in [least, most].

    Its number of draws is the one whose binomial variance is what is seen between images (Dean and
    Pagano, Evaluating confidence interval methods for binomial proportions in clustered surveys,
    2015, after Kish). Where all images agree none is seen: then the share of images that are unlike
    them may be as large as Wilson's interval of 0 in n allows, and as far away as values go.
    Student's own interval covers 85 % where few images succeed.
    """
    n, mean, width = len(values), float(values.mean()), most - least
    quantile = _student(n)
    share = (mean - least) / width
    seen = float(values.var(ddof=1)) / n / width**2
    if seen <= NOTHING**2:
        unlike = quantile**2 / (n + quantile**2)
        return mean - unlike * (mean - least), mean + unlike * (most - mean)
    draws = share * (1 - share) / seen
    centre = share + quantile**2 / (2 * draws)
    spread = quantile * math.sqrt(share * (1 - share) / draws + (quantile / (2 * draws)) ** 2)
    low, high = ((centre + side * spread) / (1 + quantile**2 / draws) for side in (-1, 1))
    return least + width * max(low, 0.0), least + width * min(high, 1.0)


def paired(
    first: ByImage, second: ByImage, *, higher_is_better: bool = True, within: Bounds | None = None
) -> Comparison:
    """Compare two methods image by image, first less second; `within` is of the differences."""
    if alone := sorted(set(first) ^ set(second)):
        some = ", ".join(alone[:3]) + (" ..." if len(alone) > 3 else "")
        same = "methods are compared on the same images"
        raise Refused(f"{same}, but only one of the two has {some}")
    d = [first[image] - second[image] for image in first]
    wins = [(np.sign(value if higher_is_better else -value) + 1) / 2 for value in d]
    difference, share = interval(d, within=within), interval(wins, within=(0.0, 1.0))
    return Comparison(difference, len(d), sign_flip(d), wilcoxon(d), share)


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean of 0 where signs are by chance: exact up to 16 images."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not d.any():
        return 1.0
    found = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        n_resamples=2**EXACT if len(d) <= EXACT else FLIPS,
        batch=4096,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def wilcoxon(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, without images that do not differ."""
    d = np.asarray(differences, dtype=np.float64)
    return float(stats.wilcoxon(d[d != 0]).pvalue) if d.any() else 1.0  # type: ignore[attr-defined]


def verdict(found: Interval, *, images: int, above: float = 0.0) -> str:
    """Decide, from 24 images on, the claim that a number is above another: by both ends."""
    if images < ENOUGH:
        return "too few for a verdict"
    if found.low > above:
        return "held"
    return "contradicted" if found.high < above else "undecided"
