"""Statistics of scores against closed forms."""

import itertools
import math

import numpy as np
import pytest
from one_edit import record
from scipy import stats

from unitune.metrics.statistics import (
    ENOUGH,
    FEWEST,
    Interval,
    applying,
    bounds,
    by_image,
    group_by,
    interval,
    measured,
    paired,
    sign_flip,
    verdict,
    wilcoxon,
)
from unitune.types import Refused


def test_edits_of_an_image_are_averaged_first():
    records = [
        record(scores={"up": 1.0}),
        record(seed=1, scores={"up": 3.0}),
        record(prompt="b", scores={"up": None}),
        record(example="hat", scores={"up": 8.0}),
    ]
    assert by_image(records, "up") == {"cat": 2.0, "hat": 8.0}
    assert interval(by_image(records, "up")).mean == 5.0  # not 4, the mean over records
    with pytest.raises(Refused, match=r"no record has the score 'down'; these records have up"):
        by_image(records, "down")


def test_groups_keep_the_order_in_which_their_keys_appear():
    records = [record(seed=seed, method=method) for seed, method in ((0, "b"), (1, "a"), (2, "b"))]
    groups = group_by(records, lambda one: one.method)
    assert {key: [one.seed for one in found] for key, found in groups.items()} == {
        "b": [0, 2],
        "a": [1],
    }
    assert [*groups] == ["b", "a"]


def test_interval_is_that_of_the_normal_law_for_many_images():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found[1:] == pytest.approx((found.mean - half, found.mean + half), abs=0.02)
    assert interval(values.tolist()) == found


def test_interval_is_student_s():
    values = [0.3, 0.1, 0.4, 0.1, 0.5, 0.9, 0.2, 0.6]
    ends = stats.t.interval(0.95, 7, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values)[1:] == pytest.approx(ends)
    assert interval({str(k): value for k, value in enumerate(values)}) == interval(values)


def test_there_is_no_interval_below_eight_images():
    for n in (1, 2, FEWEST - 1):
        for within in (None, (0.0, 1.0)):
            found = interval([0.25 * (k % 2) for k in range(n)], within=within)
            assert math.isnan(found.low) and math.isnan(found.high)
            assert str(found) == f"{found.mean:.3g}"
    assert not math.isnan(interval([0.25 * (k % 2) for k in range(FEWEST)]).low)


def test_images_that_all_agree():
    """Errors of exactly 0 are known exactly; eight failures of eight leave room for successes."""
    assert interval([2.0] * 9) == (2.0, 2.0, 2.0)
    none, every = (interval([value] * 24, within=(0.0, 1.0)) for value in (0.0, 1.0))
    assert none[:2] == (0.0, 0.0)
    assert none.high == pytest.approx(0.1513, abs=1e-3)  # quantile^2 / (24 + quantile^2)
    assert every.mean == every.high == 1.0 and every.low == pytest.approx(1 - none.high)
    never = interval([0.0] * 24, within=(-1.0, 1.0))  # two methods that do alike on each image
    assert never.high == pytest.approx(none.high) and never.low == pytest.approx(-none.high), (
        "as many images as that may be unlike these, in either direction"
    )


def test_the_interval_of_a_rate_is_wilson_s_for_one_draw_an_image():
    values = [1.0] * 6 + [0.0] * 34
    quantile, n, share = stats.t.ppf(0.975, 39), 39, 0.15  # 39: its variance is divided by n - 1
    centre = share + quantile**2 / 2 / n
    spread = quantile * math.sqrt(share * (1 - share) / n + quantile**2 / 4 / n**2)
    ends = [(centre + side * spread) / (1 + quantile**2 / n) for side in (-1, 1)]
    assert interval(values, within=(0.0, 1.0))[1:] == pytest.approx(ends)


def test_what_a_sum_of_rates_cannot_leave():
    assert bounds("both") == (0, 1) and bounds("both", (1, -1)) == (-1, 1)
    assert bounds("appear", (1, -1, -1, 1)) == (-2, 2)
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
    as_far = np.mean(np.array(flipped) >= abs(d.mean()) - 1e-12)
    assert sign_flip(d.tolist()) == pytest.approx(as_far)


def test_sign_flip_of_many_images_is_near_the_t_test_and_repeats():
    d = np.random.default_rng(3).normal(0.3, 1, 60).tolist()
    assert sign_flip(d) == sign_flip(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert sign_flip([1.0] * 10) == pytest.approx(2 / 2**10)
    assert sign_flip([0.0, 0.0]) == sign_flip([1.0]) == 1.0


def test_wilcoxon_of_equal_signs():
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 0.0]) == pytest.approx(2 / 2**4)
    assert wilcoxon([0.0, 0.0]) == 1.0


def test_paired_differences_and_wins():
    a, b = {"i": 1.0, "j": 2.0, "k": 3.0, "l": 4.0}, {"l": 4.0, "i": 0.0, "j": 1.0, "k": 4.0}
    found = paired(a, b)
    assert (found.difference.mean, found.images, found.wins.mean) == (0.25, 4, 0.625)
    assert paired(a, b, higher_is_better=False).wins.mean == 0.375
    with pytest.raises(Refused, match="only one of the two has m"):
        paired(a, {**b, "m": 1.0})


def test_progress_is_of_the_errors_of_an_image_summed():
    """Not the mean of two edits' progress, -0.5 and 0.75: much to change weighs more."""
    pairs = [
        ("cat", 0.3, 0.2),
        ("cat", 0.2, 0.8),
        ("hat", 0.5, 0.5),
        ("still", 0.1, 0.0),
        ("odd", None, 0.2),
        ("nan", math.nan, 0.2),
    ]
    records = [
        record(example=image, seed=k, scores=errors(inside, of_base, both=1.0))
        for k, (image, inside, of_base) in enumerate(pairs)
    ]
    assert by_image(records, "progress") == {"cat": pytest.approx(0.5), "hat": 0.0}
    assert len(applying(records, "progress")) == 3
    assert measured(records) == ["both", "progress"], "the two raw errors are hidden"
    alone = [record(scores=errors(0.1, 0.2, up=1.0))]
    assert measured(alone) == ["up"], "never without the success beside it"
    assert measured([record(scores=errors(0.1, 0.2, both=None))]) == []
    with pytest.raises(Refused, match="no record has the score 'progress'; these records have up"):
        by_image([record()], "progress")


def errors(inside: float | None, of_base: float, **more: float | None) -> dict[str, float | None]:
    return {"error_inside": inside, "base_error_inside": of_base, **more}


@pytest.mark.parametrize(
    ("found", "above", "said"),
    [
        ((1.0, 0.5, 1.5), 0.0, "held"),
        ((1.0, -0.1, 1.5), 0.0, "undecided"),
        ((1.0, 0.5, 1.5), 0.7, "undecided"),
        ((1.0, 0.0, 1.5), 0.0, "undecided"),
        ((0.0, 0.0, 0.0), 0.0, "undecided"),
        ((1.0, 0.5, 1.5), 1.6, "contradicted"),
        ((-1.0, -1.5, -0.5), 0.0, "contradicted"),
    ],
)
def test_verdicts(found, above, said):
    assert verdict(Interval(*found), images=ENOUGH, above=above) == said
    assert verdict(Interval(*found), images=ENOUGH - 1) == "too few for a verdict"
