"""Trade-off fronts: two scores of a method while its dial is turned.

How much they cover, and whether the dial was turned far enough.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from unitune.metrics.statistics import FEWEST, Interval, by_image, group_by, half_width
from unitune.storage.records import Record
from unitune.types import Refused

Corner = tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """Two scores of one method at its settings: (settings, images), larger is better in both."""

    settings: tuple[Hashable, ...]
    images: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray


def sweep(
    records: Iterable[Record],
    *,
    x: str,
    y: str,
    dial: Callable[[Record], Hashable],
    signs: tuple[int, int] = (1, 1),
) -> Sweep:
    """Collect two metrics by setting of a dial and image, in order of first appearance.

    A sign of -1 turns a metric that is better when lower.
    """
    turned = group_by(records, dial)
    scores = [[by_image(group, name) for group in turned.values()] for name in (x, y)]
    images = tuple(dict.fromkeys(image for means in scores[0] for image in means))
    for setting, *both in zip(turned, *scores, strict=True):
        if any(set(means) != set(images) for means in both):
            raise Refused(
                "a trade-off needs every image at every setting; "
                f"setting {setting!r} lacks some of the {len(images)}"
            )
    arrays = [
        sign * np.array([[means[image] for image in images] for means in found])
        for sign, found in zip(signs, scores, strict=True)
    ]
    return Sweep(tuple(turned), images, *arrays)


def area(swept: Sweep, *, corner: Corner) -> Interval:
    """Return the hypervolume: the area between a front and a corner that is worse in both scores.

    Its interval is over images. Steps, not lines, join the settings: only what was tried counts.
    Settings that are worse than the corner add nothing.
    """
    return _jackknife(lambda chosen: _area(swept, chosen, corner), len(swept.images))


def area_difference(first: Sweep, second: Sweep, *, corner: Corner) -> Interval:
    """Return the area of the first sweep less that of the second, of the same images."""
    if first.images != second.images:
        raise Refused(
            "fronts are compared on the same images in the same order, "
            f"got {len(first.images)} and {len(second.images)} that differ"
        )
    return _jackknife(
        lambda chosen: _area(first, chosen, corner) - _area(second, chosen, corner),
        len(first.images),
    )


def best(swept: Sweep, *, corner: Corner) -> Hashable | None:
    """Name the setting that covers most by itself; None where each is worse than the corner."""
    x, y = (
        np.maximum(scores.mean(axis=1) - least, 0)
        for scores, least in zip((swept.x, swept.y), corner, strict=True)
    )
    covered = x * y
    return swept.settings[int(covered.argmax())] if covered.max() > 0 else None


def at_an_end(
    swept: Sweep, *, corner: Corner, dial: str, limits: tuple[float, float] = (-math.inf, math.inf)
) -> str:
    """Say that the best setting, a number, is an end of what was tried; "" where it is none.

    An end that is one of the dial's own limits (start 1 is pure noise) cannot be widened, and is
    not told.
    """
    found = best(swept, corner=corner)
    ends = {min(swept.settings), max(swept.settings)} - {*limits}  # type: ignore[type-var]
    if found not in ends:
        return ""
    return f"the best setting, {dial} {found:g}, is an end of the range: widen it"


def _area(swept: Sweep, chosen: np.ndarray, corner: Corner) -> np.ndarray:
    """Areas of the images that are chosen, indices (..., n)."""
    x = np.maximum(swept.x[:, chosen].mean(-1) - corner[0], 0)  # (settings, ...)
    y = np.where(x > 0, np.maximum(swept.y[:, chosen].mean(-1) - corner[1], 0), 0)
    order = np.argsort(-x, axis=0, kind="stable")
    x = np.take_along_axis(x, order, 0)
    y = np.maximum.accumulate(np.take_along_axis(y, order, 0), axis=0)
    return (y * -np.diff(x, axis=0, append=0)).sum(0)


def _jackknife(statistic: Callable[[np.ndarray], np.ndarray], n: int) -> Interval:
    """Student's interval over the pseudo-values of n images, each of which is left out once.

    Tukey, Bias and confidence in not-quite large samples, 1958.
    """
    whole = float(statistic(np.arange(n)))
    if n < FEWEST:
        return Interval(whole, math.nan, math.nan)
    others = np.array([np.delete(np.arange(n), out) for out in range(n)])
    half = half_width(n * whole - (n - 1) * statistic(others))
    return Interval(whole, whole - half, whole + half)
