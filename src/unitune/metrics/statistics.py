"""What may be said of scores: means with intervals, paired differences with tests, and when nothing may be said.

The unit is the base image: edits and seeds of one image share its tuning, so they are averaged first. Intervals are of 95 % and are given from 8 images on, as
with fewer none covers the true mean as often as it says. tests/test_coverage.py holds how often these cover it: 90 to 98 % at 8 and at 24 images.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from unitune.storage.records import REFERENCES, Record, merge
from unitune.types import Refused

FEWEST = 8  # images; with fewer the mean stands alone
ENOUGH = 24  # images; with fewer an interval is shown, but no claim is decided
EXACT, FLIPS = 16, 9999  # up to so many images every flip of signs is tried, else so many at random
SHARES = frozenset(
    {"appear", "stay", "both"}
)  # metrics of which an edit has 0 or 1: their means are rates
DERIVED: Mapping[str, tuple[str, str]] = {
    "progress": ("error_inside", "base_error_inside")
}  # 1 - numerator / denominator, each summed over an image
BESIDE = "both"  # the success of edits; a derived score is told with it only, as a blurred picture makes progress too
OF_BASE = "both_base"  # the same of a copy of the base: where an edit has no success it tells why, and no table shows it

NOTHING = 1e-9  # rounding of equal pictures, written as 0
Bounds = tuple[float, float]


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
    """One method against another on the same images; tests are two-sided, `wins` is the share of images where the first is better (a tie is half)."""

    difference: Interval
    images: int
    sign_flip: float
    wilcoxon: float
    wins: Interval


def edits(records: Iterable[Record], *, row: str = "edit") -> dict[str, list[Record]]:
    """Group the records of one kind of row by what made them, "method + sampler", or a reference's label; an empty choice is refused."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in merge(records):
        if record.row == row:
            made = f"{record.method} + {record.sampler}" if record.sampler else record.method
            groups[REFERENCES.get(row, made)].append(record)
    if not groups:
        raise Refused(
            f"there is no record with row={row!r} to compare; name the records of a finished run, or another row"
        )
    return dict(groups)


def applying(records: Iterable[Record], metric: str) -> list[Record]:
    """List the records that an average of the metric goes over: those that have the score, a derived one only where its image's denominator is not 0."""
    of: tuple[str, ...] = DERIVED.get(metric, (metric,))
    known = [
        record
        for record in records
        if all(
            (value := record.scores.get(name)) is not None and not math.isnan(value) for name in of
        )
    ]
    if metric not in DERIVED:
        return known
    whole: dict[str, float] = defaultdict(float)
    for record in known:
        whole[record.example] += record.scores[of[-1]] or 0.0
    return [record for record in known if whole[record.example] > 0]


def measured(records: Sequence[Record]) -> list[str]:
    """Name the metrics that apply to some record, as tables show them: derived scores in place of those that they are made of, after the success of edits."""
    names = dict.fromkeys(name for record in records for name in record.scores)
    parts = {OF_BASE, *(name for pair in DERIVED.values() for name in pair)}
    shown = [
        part
        for name in names
        if name not in parts
        for part in ((name, *DERIVED) if name == BESIDE and applying(records, BESIDE) else (name,))
    ]
    return [name for name in shown if applying(records, name)]


def by_image(records: Iterable[Record], metric: str) -> dict[str, float]:
    """Average a metric over the edits and seeds of each base image; records without that score do not count. A metric that no record has is refused.

    Of a derived metric the numerators and the denominators of an image are summed before dividing: an edit with little to change weighs little.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    records = list(records)
    for record in applying(records, metric):
        found[record.example].append(record)
    if not found:
        known = ", ".join(
            sorted(
                {
                    name
                    for record in records
                    for name, value in record.scores.items()
                    if value is not None
                }
            )
        )
        raise Refused(
            f"no record has the score {metric!r}; these records have {known or 'no scores'}"
        )
    sums = {
        image: [
            math.fsum(member.scores[name] or 0.0 for member in members)
            for name in DERIVED.get(metric, (metric,))
        ]
        for image, members in found.items()
    }
    return {
        image: 1 - some[0] / some[1] if metric in DERIVED else some[0] / len(found[image])
        for image, some in sums.items()
    }


def bounds(metric: str, weights: Iterable[float] = (1.0,)) -> Bounds | None:
    """Say what a weighted sum of a metric's means cannot leave: (0, 1) for a rate, (-1, 1) for the difference of two; None for what is no rate."""
    if metric not in SHARES:
        return None
    weights = list(weights)
    return math.fsum(weight for weight in weights if weight < 0), math.fsum(
        weight for weight in weights if weight > 0
    )


def interval(
    by_image: Mapping[str, float] | Sequence[float], *, within: Bounds | None = None
) -> Interval:
    """Return the mean over images with its 95 % interval, Student's t; below 8 images the mean alone.

    `within` says what values cannot leave, as `bounds` gives it, and chooses the interval: Wilson's with the effective number of draws, which says something
    too where all images agree (24 failures do not show that every edit fails). Real numbers that all agree, as errors of exactly 0, have no width.
    """
    values = np.asarray(
        [*by_image.values()] if isinstance(by_image, Mapping) else by_image, dtype=np.float64
    )
    if not len(values) or not np.isfinite(values).all():
        raise Refused(f"an interval needs finite numbers, one an image, got {values.tolist()}")
    mean = float(values.mean())
    if len(values) < FEWEST:
        return Interval(mean, math.nan, math.nan)
    if within is None:
        half = half_width(values)
        return Interval(mean, mean - half, mean + half)
    return Interval(mean, *_wilson(values, *within))


def half_width(values: np.ndarray) -> float:
    """Half of Student's 95 % interval of a mean."""
    return float(
        special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values))
    )


def _wilson(values: np.ndarray, least: float, most: float) -> tuple[float, float]:
    """Wilson's interval with Student's quantile, of the mean of values in [least, most].

    Its number of draws is the one whose binomial variance is what is seen between images (Dean and Pagano, Evaluating confidence interval methods for binomial
    proportions in clustered surveys, 2015, after Kish). Where all images agree none is seen: then the share of images that are unlike them may be as large as
    Wilson's interval of 0 in n allows, and as far away as values go. Student's own interval covers 85 % where few images succeed.
    """
    n, quantile, mean = (
        len(values),
        float(special.stdtrit(len(values) - 1, 0.975)),
        float(values.mean()),
    )
    share, seen = (
        (mean - least) / (most - least),
        float(values.var(ddof=1)) / n / (most - least) ** 2,
    )
    if seen <= NOTHING**2:
        unlike = quantile**2 / (n + quantile**2)
        return mean - unlike * (mean - least), mean + unlike * (most - mean)
    draws = share * (1 - share) / seen
    centre, spread = (
        share + quantile**2 / (2 * draws),
        share * (1 - share) / draws + (quantile / (2 * draws)) ** 2,
    )
    low, high = (
        (centre + side * quantile * math.sqrt(spread)) / (1 + quantile**2 / draws)
        for side in (-1, 1)
    )
    return least + (most - least) * max(low, 0.0), least + (most - least) * min(high, 1.0)


def paired(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    higher_is_better: bool = True,
    within: Bounds | None = None,
) -> Comparison:
    """Compare two methods image by image: the mean of first less second, whether chance explains it, and how often the first is better.

    `within` is of the differences.
    """
    if alone := sorted(set(first) ^ set(second)):
        raise Refused(
            f"methods are compared on the same images, but only one of the two has {', '.join(alone[:3])}{' ...' if len(alone) > 3 else ''}"
        )
    d = np.array([first[image] - second[image] for image in first])
    wins = (np.sign(d if higher_is_better else -d) + 1) / 2
    difference = interval(d.tolist(), within=within)
    return Comparison(
        difference,
        len(d),
        sign_flip(d.tolist()),
        wilcoxon(d.tolist()),
        interval(wins.tolist(), within=(0.0, 1.0)),
    )


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean of 0 when every difference is as likely to have the other sign: exact up to 16 images, else from random flips."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not d.any():
        return 1.0
    flips = 2**EXACT if len(d) <= EXACT else FLIPS
    found = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=flips,
        batch=4096,
        rng=np.random.default_rng(0),
    )
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
                raise Refused(
                    f"{first} and {other} have unequal budgets: {told[0]} against {told[1]}{same}; run them with the same images, seeds and settings"
                )
    has = budgets[first]
    edits, images, seeds, settings = (
        _counted(has[what], what) for what in ("edits", "images", "seeds", "settings")
    )
    return f"{edits} of {images}, {seeds} at {settings}"


def _budget(records: Sequence[Record]) -> dict[str, frozenset]:
    """What a method was given: its images, its edits, and the numbers of seeds and of dial settings that its edits had."""
    seeds, settings = defaultdict(set), defaultdict(set)
    for record in records:
        edit = (record.example, record.prompt)
        seeds[edit].add(record.seed)
        settings[edit].add((record.run, record.weight, record.start, record.steps))
    counts = {
        "seeds": frozenset(len(found) for found in seeds.values()),
        "settings": frozenset(len(found) for found in settings.values()),
    }
    return {
        "images": frozenset(example for example, _ in seeds),
        "edits": frozenset(seeds),
        **counts,
    }


def _counted(value: frozenset, what: str) -> str:
    number = (
        str(len(value)) if what in ("images", "edits") else " or ".join(map(str, sorted(value)))
    )
    return f"{number} {what.removesuffix('s') if number == '1' else what}"


def verdict(found: Interval, *, images: int, above: float = 0.0) -> str:
    """Decide the claim that a number is above another, with 24 images or more: by the whole interval, which must lie on one side."""
    if images < ENOUGH:
        return "too few for a verdict"
    if found.low > above:
        return "held"
    return "contradicted" if found.high < above else "undecided"
