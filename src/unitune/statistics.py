"""What may be said of scores: means with intervals, paired differences with tests, areas under trade-off fronts, and when nothing may be said.

The unit is the base image: edits and seeds of one image share its tuning, so they are averaged first and images are resampled. Every number repeats, as the
generator of a resampling is fixed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from unitune.records import Record, merge
from unitune.types import Refused

ENOUGH = 24  # images; with fewer an interval is shown, but no claim is decided
RESAMPLES = 9999
EXACT, FLIPS = 16, 9999  # up to so many images every flip of signs is tried, else so many at random

NOTHING = 1e-9  # rounding of equal pictures, written as 0


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN where one image alone gives none."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = (f"{0.0 if abs(value) < NOTHING else value:.3g}" for value in self)
        return mean if math.isnan(self.low) else f"{mean} [{low}, {high}]"


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same images; tests are two-sided, `wins` is the share of images where the first is better (a tie is half)."""

    difference: Interval
    images: int
    sign_flip: float
    wilcoxon: float
    wins: Interval


def edits(records: Iterable[Record], *, row: str = "edit") -> dict[str, list[Record]]:
    """Group the records of one kind of row by what made them, "method + sampler"; an empty choice is refused."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in merge(records):
        if record.row == row:
            groups[f"{record.method} + {record.sampler}" if record.sampler else record.method].append(record)
    if not groups:
        raise Refused(f"there is no record with row={row!r} to compare; name the records of a finished run, or another row")
    return dict(groups)


def by_image(records: Iterable[Record], metric: str) -> dict[str, float]:
    """Average a metric over the edits and seeds of each base image; records without that score do not count. A metric that no record has is refused."""
    found: dict[str, list[float]] = defaultdict(list)
    records = list(records)
    for record in records:
        if (value := record.scores.get(metric)) is not None and not math.isnan(value):
            found[record.example].append(value)
    if not found:
        known = ", ".join(sorted({name for record in records for name, value in record.scores.items() if value is not None}))
        raise Refused(f"no record has the score {metric!r}; these records have {known or 'no scores'}")
    return {image: math.fsum(values) / len(values) for image, values in found.items()}


def interval(by_image: Mapping[str, float] | Sequence[float]) -> Interval:
    """Return the mean over images with its 95 % bootstrap interval (bias-corrected and accelerated; images are resampled)."""
    values = np.asarray([*by_image.values()] if isinstance(by_image, Mapping) else by_image, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise Refused(f"an interval needs finite numbers, one an image, got {values.tolist()}")
    return _bootstrap(lambda chosen, axis=-1: values[chosen].mean(axis), len(values))


def paired(first: Mapping[str, float], second: Mapping[str, float], *, higher_is_better: bool = True) -> Comparison:
    """Compare two methods image by image: the mean of first less second, whether chance explains it, and how often the first is better."""
    if alone := sorted(set(first) ^ set(second)):
        raise Refused(f"methods are compared on the same images, but only one of the two has {', '.join(alone[:3])}{' ...' if len(alone) > 3 else ''}")
    d = np.array([first[image] - second[image] for image in first])
    better = d if higher_is_better else -d
    return Comparison(interval(d.tolist()), len(d), sign_flip(d.tolist()), wilcoxon(d.tolist()), interval(((np.sign(better) + 1) / 2).tolist()))


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean of 0 when every difference is as likely to have the other sign: exact up to 16 images, else from random flips."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not d.any():
        return 1.0
    flips = 2**EXACT if len(d) <= EXACT else FLIPS
    found = stats.permutation_test((d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=flips, batch=4096, rng=np.random.default_rng(0))
    return float(found.pvalue)


def wilcoxon(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; images without a difference are left out."""
    d = np.asarray(differences, dtype=np.float64)
    if not d.any():
        return 1.0
    return float(stats.wilcoxon(d[d != 0]).pvalue)  # type: ignore[attr-defined]


def check_budgets(groups: Mapping[str, Sequence[Record]]) -> str:
    """Say what each method was given, "24 edits of 8 images, 4 seeds at 1 setting"; methods that were given different amounts are refused."""
    budgets = {name: _budget(records) for name, records in groups.items()}
    first, *others = budgets
    for other in others:
        for what in budgets[first]:
            if (a := budgets[first][what]) != (b := budgets[other][what]):
                same = " (not the same ones)" if len(a) == len(b) else ""
                told = [_counted(value, what) for value in (a, b)]
                raise Refused(f"{first} and {other} have unequal budgets: {told[0]} against {told[1]}{same}; run them with the same images, seeds and settings")
    has = budgets[first]
    edits, images, seeds, settings = (_counted(has[what], what) for what in ("edits", "images", "seeds", "settings"))
    return f"{edits} of {images}, {seeds} at {settings}"


def _budget(records: Sequence[Record]) -> dict[str, frozenset]:
    """What a method was given: its images, its edits, and the numbers of seeds and of dial settings that its edits had."""
    seeds, settings = defaultdict(set), defaultdict(set)
    for record in records:
        edit = (record.example, record.prompt)
        seeds[edit].add(record.seed)
        settings[edit].add((record.run, record.weight, record.start, record.steps))
    counts = {"seeds": frozenset(len(found) for found in seeds.values()), "settings": frozenset(len(found) for found in settings.values())}
    return {"images": frozenset(example for example, _ in seeds), "edits": frozenset(seeds), **counts}


def _counted(value: frozenset, what: str) -> str:
    number = str(len(value)) if what in ("images", "edits") else " or ".join(map(str, sorted(value)))
    return f"{number} {what.removesuffix('s') if number == '1' else what}"


@dataclass(frozen=True)
class Sweep:
    """Two scores of one method while its dial is turned: arrays (settings, images), larger is better in both."""

    settings: tuple[Hashable, ...]
    images: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray


def sweep(records: Iterable[Record], *, x: str, y: str, dial: Callable[[Record], Hashable], signs: tuple[int, int] = (1, 1)) -> Sweep:
    """Collect two metrics by setting of a dial and image, in order of first appearance; a sign of -1 turns a metric that is better when lower."""
    turned: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        turned[dial(record)].append(record)
    scores = [[by_image(group, name) for group in turned.values()] for name in (x, y)]
    images = tuple(dict.fromkeys(image for group in scores[0] for image in group))
    if odd := [setting for k, setting in enumerate(turned) if any(set(found[k]) != set(images) for found in scores)]:
        raise Refused(f"a trade-off needs every image at every setting; setting {odd[0]!r} lacks some of the {len(images)}")
    arrays = [sign * np.array([[group[image] for image in images] for group in found]) for sign, found in zip(signs, scores, strict=True)]
    return Sweep(tuple(turned), images, *arrays)


def area(swept: Sweep, *, corner: tuple[float, float]) -> Interval:
    """Return the area between a sweep's front and a corner that is worse in both scores (the hypervolume), with its interval over images.

    Steps, not lines, join the settings: only what was tried counts. Settings that are worse than the corner add nothing.
    """
    return _bootstrap(lambda chosen, axis=-1: _area(swept, chosen, corner), len(swept.images))


def area_difference(first: Sweep, second: Sweep, *, corner: tuple[float, float]) -> Interval:
    """Return the area of the first sweep less that of the second, the same images resampled in both."""
    if first.images != second.images:
        raise Refused(f"fronts are compared on the same images in the same order, got {len(first.images)} and {len(second.images)} that differ")
    return _bootstrap(lambda chosen, axis=-1: _area(first, chosen, corner) - _area(second, chosen, corner), len(first.images))


def _area(swept: Sweep, chosen: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    x = np.maximum(swept.x[:, chosen].mean(-1) - corner[0], 0)  # (settings, ...)
    y = np.where(x > 0, np.maximum(swept.y[:, chosen].mean(-1) - corner[1], 0), 0)
    order = np.argsort(-x, axis=0, kind="stable")
    x, y = np.take_along_axis(x, order, 0), np.maximum.accumulate(np.take_along_axis(y, order, 0), axis=0)
    return (y * (x - np.concatenate([x[1:], np.zeros_like(x[:1])]))).sum(0)


def verdict(found: Interval, *, images: int, above: float = 0.0) -> str:
    """Decide the claim that a number is above another: it holds where the whole interval is, with 24 images or more."""
    if images < ENOUGH:
        return "too few for a verdict"
    return "held" if found.low > above else "did not hold"


def _bootstrap(statistic: Callable[..., np.ndarray], n: int) -> Interval:
    """Resample n images; the statistic gets their indices, (..., n)."""
    mean = float(statistic(np.arange(n)))
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    once = statistic(np.random.default_rng(1).integers(n, size=(64, n)))
    if np.ptp(once) <= 1e-12 * abs(mean):  # every image says the same
        return Interval(mean, mean, mean)
    found = stats.bootstrap((np.arange(n),), statistic, n_resamples=RESAMPLES, vectorized=True, method="BCa", rng=np.random.default_rng(0))
    low, high = map(float, found.confidence_interval)
    if math.isnan(low) or math.isnan(high):  # the acceleration is not defined where leaving one image out changes nothing
        found = stats.bootstrap((np.arange(n),), statistic, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=np.random.default_rng(0))
        low, high = map(float, found.confidence_interval)
    return Interval(mean, low, high)
