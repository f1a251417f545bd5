"""Statistics against closed forms, and what must not be compared."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from unitune.metrics.statistics import (
    ENOUGH,
    FEWEST,
    Interval,
    applying,
    bounds,
    by_image,
    check_budgets,
    edits,
    interval,
    measured,
    paired,
    sign_flip,
    verdict,
    wilcoxon,
)
from unitune.report.fronts import Sweep, area, area_difference, at_an_end, best, sweep
from unitune.storage.records import Record
from unitune.types import Refused

RECORD = Record(
    run="a", method="unitune", sampler="cfg", model="tiny", example="cat", kind="", local=None, composed_alike=None, prompt="a dog", text="a dog", seed=0,
    weight=4.0, start=0.9, steps=8, image="x.png", scores={"up": 1.0}, cost={}, environment={},
)  # fmt: skip


def with_(**changes) -> Record:
    return dataclasses.replace(RECORD, **changes)


def grid(
    method: str,
    images: int = 3,
    prompts: int = 2,
    seeds: int = 2,
    starts: tuple[float, ...] = (0.9,),
) -> list[Record]:
    cells = itertools.product(range(images), range(prompts), range(seeds), starts)
    return [
        with_(
            method=method, example=f"i{i}", prompt=f"p{p}", seed=s, start=d, scores={"up": float(i)}
        )
        for i, p, s, d in cells
    ]


def test_edits_of_an_image_are_averaged_first():
    lines = [
        with_(scores={"up": 1.0}),
        with_(seed=1, scores={"up": 3.0}),
        with_(prompt="b", scores={"up": None}),
        with_(example="hat", scores={"up": 8.0}),
    ]
    assert by_image(lines, "up") == {"cat": 2.0, "hat": 8.0}
    assert interval(by_image(lines, "up")).mean == 5.0  # not 4, the mean over records
    with pytest.raises(Refused, match=r"no record has the score 'down'; these records have up"):
        by_image(lines, "down")


def test_interval_is_that_of_the_normal_law_for_many_images():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, low, high = interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean == pytest.approx(values.mean()) and (low, high) == (
        pytest.approx(mean - half, abs=0.02),
        pytest.approx(mean + half, abs=0.02),
    )
    assert interval(values.tolist()) == (mean, low, high)


def test_interval_is_student_s():
    values = [0.3, 0.1, 0.4, 0.1, 0.5, 0.9, 0.2, 0.6]
    ends = stats.t.interval(0.95, 7, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values)[1:] == pytest.approx(ends) and interval(
        dict(enumerate(values))
    ) == interval(values)  # type: ignore[arg-type]


def test_there_is_no_interval_below_eight_images():
    for n in (1, 2, FEWEST - 1):
        for within in (None, (0.0, 1.0)):
            found = interval([0.25 * (k % 2) for k in range(n)], within=within)
            assert (
                math.isnan(found.low)
                and math.isnan(found.high)
                and str(found) == f"{found.mean:.3g}"
            )
    assert not math.isnan(interval([0.25 * (k % 2) for k in range(FEWEST)]).low)


def test_images_that_all_agree():
    """Errors of exactly 0 are known exactly; that eight of eight edits fail leaves room for some that succeed."""
    assert interval([2.0] * 9) == (2.0, 2.0, 2.0)
    none, every = (interval([value] * 24, within=(0.0, 1.0)) for value in (0.0, 1.0))
    assert none[:2] == (0.0, 0.0) and none.high == pytest.approx(
        0.1513, abs=1e-3
    )  # quantile^2 / (24 + quantile^2)
    assert every.mean == every.high == 1.0 and every.low == pytest.approx(1 - none.high)
    never = interval([0.0] * 24, within=(-1.0, 1.0))  # two methods that do alike on each image
    assert never.high == pytest.approx(none.high) and never.low == pytest.approx(-none.high), (
        "as many images as that may be unlike these, in either direction"
    )


def test_the_interval_of_a_rate_is_wilson_s_for_one_draw_an_image():
    values = [1.0] * 6 + [0.0] * 34
    quantile, n, share = stats.t.ppf(0.975, 39), 39, 0.15  # 39: its variance is divided by n - 1
    centre, spread = (
        share + quantile**2 / 2 / n,
        quantile * math.sqrt(share * (1 - share) / n + quantile**2 / 4 / n**2),
    )
    assert interval(values, within=(0.0, 1.0))[1:] == pytest.approx(
        [(centre + side * spread) / (1 + quantile**2 / n) for side in (-1, 1)]
    )


def test_what_a_sum_of_rates_cannot_leave():
    assert (
        bounds("both") == (0, 1)
        and bounds("both", (1, -1)) == (-1, 1)
        and bounds("appear", (1, -1, -1, 1)) == (-2, 2)
    )
    assert bounds("psnr") is bounds("progress") is None


def test_interval_of_equal_images_and_of_nothing():
    assert str(Interval(0.5, 0.25, 0.75)) == "0.5 [0.25, 0.75]"
    for nothing in ([], [1.0, math.nan]):
        with pytest.raises(Refused, match="finite numbers"):
            interval(nothing)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flip_is_exact_for_few_images(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    flipped = [abs(np.mean(d * signs)) for signs in itertools.product((1, -1), repeat=n)]
    assert sign_flip(d.tolist()) == pytest.approx(
        np.mean(np.array(flipped) >= abs(d.mean()) - 1e-12)
    )


def test_sign_flip_of_many_images_is_near_the_t_test_and_repeats():
    d = np.random.default_rng(3).normal(0.3, 1, 60).tolist()
    assert sign_flip(d) == sign_flip(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert (
        sign_flip([1.0] * 10) == pytest.approx(2 / 2**10)
        and sign_flip([0.0, 0.0]) == sign_flip([1.0]) == 1.0
    )


def test_wilcoxon_of_equal_signs():
    assert (
        wilcoxon([1.0, 2.0, 3.0, 4.0, 0.0]) == pytest.approx(2 / 2**4)
        and wilcoxon([0.0, 0.0]) == 1.0
    )


def test_paired_differences_and_wins():
    a, b = {"i": 1.0, "j": 2.0, "k": 3.0, "l": 4.0}, {"l": 4.0, "i": 0.0, "j": 1.0, "k": 4.0}
    found = paired(a, b)
    assert found.difference.mean == 0.25 and found.images == 4 and found.wins.mean == 0.625
    assert paired(a, b, higher_is_better=False).wins.mean == 0.375
    with pytest.raises(Refused, match="only one of the two has m"):
        paired(a, {**b, "m": 1.0})


def test_rows_are_kept_apart():
    lines = [RECORD, with_(row="copy", method="", sampler=""), with_(sampler="sdedit")]
    assert {name: len(found) for name, found in edits(lines).items()} == {
        "unitune + cfg": 1,
        "unitune + sdedit": 1,
    }
    assert [*edits(lines, row="copy")] == ["copy of the base"]
    with pytest.raises(Refused, match="no record with row='edit'"):
        edits(lines[1:2])


def test_equal_budgets_are_said():
    groups = edits(grid("one") + grid("two"))
    assert check_budgets(groups) == "6 edits of 3 images, 2 seeds at 1 setting"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seeds": 1}, "2 seeds against 1 seed"),
        ({"images": 2}, "3 images against 2 images"),
        ({"prompts": 1}, "6 edits against 3 edits"),
        ({"starts": (0.8, 0.9)}, "1 setting against 2 settings"),
    ],
)
def test_unequal_budgets_are_refused(other, said):
    with pytest.raises(Refused, match=rf"one \+ cfg and two \+ cfg have unequal budgets: {said}"):
        check_budgets(edits(grid("one") + grid("two", **other)))
    moved = [
        dataclasses.replace(record, example=f"other {record.example}") for record in grid("two")
    ]
    with pytest.raises(Refused, match=r"3 images against 3 images \(not the same ones\)"):
        check_budgets(edits(grid("one") + moved))


def turned(points: dict[float, tuple[float, float]], images: int = 1) -> Sweep:
    lines = [
        with_(start=dial, example=f"i{i}", scores={"x": x, "y": y})
        for dial, (x, y) in points.items()
        for i in range(images)
    ]
    return sweep(lines, x="x", y="y", dial=lambda record: record.start)


def test_area_of_steps():
    found = turned(
        {0.5: (1.0, 3.0), 0.6: (2.0, 2.0), 0.7: (3.0, 1.0), 0.8: (1.5, 1.5), 0.9: (-1.0, 9.0)}
    )
    assert found.settings == (0.5, 0.6, 0.7, 0.8, 0.9) and found.x.shape == (5, 1)
    assert (
        area(found, corner=(0.0, 0.0)).mean == 6.0
    )  # a stair of 1 + 2 + 3; a dominated point and one beyond the corner add nothing
    assert area(found, corner=(1.0, 1.0)).mean == 1.0
    assert area(turned({0.5: (0.5, 1.0)}), corner=(1.0, 0.0)).mean == 0.0


def test_area_has_an_interval_over_images_and_is_compared_in_pairs():
    level = np.random.default_rng(0).normal(1.0, 0.1, 30)
    one, two = (
        Sweep((0,), tuple(map(str, range(30))), np.ones((1, 30)), (level + shift)[None])
        for shift in (0.05, 0.0)
    )
    mean, low, high = area(one, corner=(0.0, 0.0))
    assert (
        mean == pytest.approx(level.mean() + 0.05)
        and 0.02 < high - low < 0.2
        and (low, high) == pytest.approx(interval((level + 0.05).tolist())[1:])
    )
    assert (
        area_difference(one, two, corner=(0.0, 0.0)) == (pytest.approx(0.05),) * 3
    )  # the images' own differences cancel
    few = dataclasses.replace(one, images=one.images[:7], x=one.x[:, :7], y=one.y[:, :7])
    assert math.isnan(area(few, corner=(0.0, 0.0)).low)
    with pytest.raises(Refused, match="same images"):
        area_difference(
            one, dataclasses.replace(two, images=("other", *two.images[1:])), corner=(0.0, 0.0)
        )


def test_a_sweep_turns_signs_and_needs_every_image_at_every_setting():
    lines = [
        with_(start=dial, example=image, scores={"x": 2.0, "y": 1.0})
        for dial in (0.5, 0.9)
        for image in ("a", "b")
    ]
    assert (sweep(lines, x="x", y="y", dial=lambda r: r.start, signs=(-1, 1)).x == -2).all()
    with pytest.raises(Refused, match=r"setting 0\.9 lacks some of the 2"):
        sweep(lines[:3], x="x", y="y", dial=lambda r: r.start)


def test_the_best_setting_at_an_end_of_the_range_is_told():
    corner = (0.0, 0.0)
    middle = turned({0.9: (3.0, 1.0), 0.7: (1.0, 3.0), 0.8: (2.0, 2.0)})
    assert (
        best(middle, corner=corner) == 0.8 and at_an_end(middle, corner=corner, dial="start") == ""
    )
    low = turned({0.7: (2.0, 3.0), 0.8: (2.0, 2.0), 1.0: (3.0, 1.0)})
    assert (
        at_an_end(low, corner=corner, dial="start")
        == "the best setting, start 0.7, is an end of the range: widen it"
    )
    high = turned({0.7: (1.0, 1.0), 1.0: (3.0, 1.0)})
    assert "start 1, is an end" in at_an_end(high, corner=corner, dial="start")
    assert at_an_end(high, corner=corner, dial="start", limits=(0.0, 1.0)) == "", (
        "the dial itself ends there"
    )
    assert (
        best(high, corner=(9.0, 9.0)) is None
        and at_an_end(high, corner=(9.0, 9.0), dial="start") == ""
    )


def test_progress_is_of_the_errors_of_an_image_summed():
    """Not the mean of two edits' progress, -0.5 and 0.75: the edit with much to change weighs more."""
    pairs = [
        ("cat", 0.3, 0.2),
        ("cat", 0.2, 0.8),
        ("hat", 0.5, 0.5),
        ("still", 0.1, 0.0),
        ("odd", None, 0.2),
        ("nan", math.nan, 0.2),
    ]
    lines = [
        with_(
            example=image, seed=k, scores={"error_inside": a, "base_error_inside": b, "both": 1.0}
        )
        for k, (image, a, b) in enumerate(pairs)
    ]
    found = by_image(lines, "progress")
    assert (
        found == {"cat": pytest.approx(0.5), "hat": 0.0} and len(applying(lines, "progress")) == 3
    )
    assert measured(lines) == ["both", "progress"], "the two raw errors are hidden"
    assert measured([with_(scores={"error_inside": 0.1, "base_error_inside": 0.2, "up": 1.0})]) == [
        "up"
    ], "never without the success beside it"
    assert (
        measured([with_(scores={"error_inside": 0.1, "base_error_inside": 0.2, "both": None})])
        == []
    )
    with pytest.raises(Refused, match="no record has the score 'progress'; these records have up"):
        by_image([RECORD], "progress")


def test_verdicts():
    assert verdict(Interval(1.0, 0.5, 1.5), images=ENOUGH) == "held"
    assert (
        verdict(Interval(1.0, -0.1, 1.5), images=ENOUGH)
        == verdict(Interval(1.0, 0.5, 1.5), images=ENOUGH, above=0.7)
        == "undecided"
    )
    assert (
        verdict(Interval(1.0, 0.0, 1.5), images=ENOUGH)
        == verdict(Interval(0.0, 0.0, 0.0), images=ENOUGH)
        == "undecided"
    )
    assert (
        verdict(Interval(1.0, 0.5, 1.5), images=ENOUGH, above=1.6)
        == verdict(Interval(-1.0, -1.5, -0.5), images=ENOUGH)
        == "contradicted"
    )
    assert verdict(Interval(1.0, 0.5, 1.5), images=ENOUGH - 1) == "too few for a verdict"
