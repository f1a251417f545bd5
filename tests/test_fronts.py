"""Trade-off fronts: their areas, and dials that should be turned farther."""

import dataclasses
import math

import numpy as np
import pytest
from one_edit import record

from unitune.metrics.statistics import interval
from unitune.report.fronts import Sweep, area, area_difference, at_an_end, best, sweep
from unitune.types import Refused

ORIGIN = (0.0, 0.0)


def turned(points: dict[float, tuple[float, float]]) -> Sweep:
    made = [record(start=dial, scores={"x": x, "y": y}) for dial, (x, y) in points.items()]
    return sweep(made, x="x", y="y", dial=lambda one: one.start)


def test_area_of_steps():
    found = turned(
        {0.5: (1.0, 3.0), 0.6: (2.0, 2.0), 0.7: (3.0, 1.0), 0.8: (1.5, 1.5), 0.9: (-1.0, 9.0)}
    )
    assert found.settings == (0.5, 0.6, 0.7, 0.8, 0.9) and found.x.shape == (5, 1)
    # A stair of 1 + 2 + 3; a dominated point and one beyond the corner add nothing.
    assert area(found, corner=ORIGIN).mean == 6.0
    assert area(found, corner=(1.0, 1.0)).mean == 1.0
    assert area(turned({0.5: (0.5, 1.0)}), corner=(1.0, 0.0)).mean == 0.0


def test_area_has_an_interval_over_images_and_is_compared_in_pairs():
    level = np.random.default_rng(0).normal(1.0, 0.1, 30)
    names = tuple(map(str, range(30)))
    one, two = (Sweep((0,), names, np.ones((1, 30)), (level + k)[None]) for k in (0.05, 0.0))
    mean, low, high = area(one, corner=ORIGIN)
    assert mean == pytest.approx(level.mean() + 0.05) and 0.02 < high - low < 0.2
    assert (low, high) == pytest.approx(interval((level + 0.05).tolist())[1:])
    # The images' own differences cancel.
    assert area_difference(one, two, corner=ORIGIN) == (pytest.approx(0.05),) * 3
    few = dataclasses.replace(one, images=one.images[:7], x=one.x[:, :7], y=one.y[:, :7])
    assert math.isnan(area(few, corner=ORIGIN).low)
    other = dataclasses.replace(two, images=("other", *two.images[1:]))
    with pytest.raises(Refused, match="same images"):
        area_difference(one, other, corner=ORIGIN)


def test_a_sweep_turns_signs_and_needs_every_image_at_every_setting():
    made = [
        record(start=dial, example=image, scores={"x": 2.0, "y": 1.0})
        for dial in (0.5, 0.9)
        for image in ("a", "b")
    ]
    assert (sweep(made, x="x", y="y", dial=lambda one: one.start, signs=(-1, 1)).x == -2).all()
    with pytest.raises(Refused, match=r"setting 0\.9 lacks some of the 2"):
        sweep(made[:3], x="x", y="y", dial=lambda one: one.start)


def test_the_best_setting_at_an_end_of_the_range_is_told():
    middle = turned({0.9: (3.0, 1.0), 0.7: (1.0, 3.0), 0.8: (2.0, 2.0)})
    assert best(middle, corner=ORIGIN) == 0.8
    assert at_an_end(middle, corner=ORIGIN, dial="start") == ""
    low = turned({0.7: (2.0, 3.0), 0.8: (2.0, 2.0), 1.0: (3.0, 1.0)})
    said = "the best setting, start 0.7, is an end of the range: widen it"
    assert at_an_end(low, corner=ORIGIN, dial="start") == said
    high = turned({0.7: (1.0, 1.0), 1.0: (3.0, 1.0)})
    assert "start 1, is an end" in at_an_end(high, corner=ORIGIN, dial="start")
    ends_there = at_an_end(high, corner=ORIGIN, dial="start", limits=(0.0, 1.0))
    assert ends_there == "", "the dial itself ends there"
    assert best(high, corner=(9.0, 9.0)) is None
    assert at_an_end(high, corner=(9.0, 9.0), dial="start") == ""
