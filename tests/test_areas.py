"""What is special to some claims: the best of many samples, and areas under fronts."""

import itertools
from dataclasses import replace

import pytest
from claim_records import record
from claims import areas, best_of_n, sweeps
from claims.table import ENTRIES

from unitune.errors import Refused


def copy(image: str = "image-0", level: float = 0.0):
    run = "tradeoff/reference=copy"
    return record(run, image, method="", row="copy", scores={"alignment": level})


def test_the_best_of_n_costs_what_all_of_them_did():
    found = [record(seed=seed, scores={"choosing": seed / 8}) for seed in range(4)]
    pairs = [one for one in best_of_n.chosen(found) if one.run.endswith("N=2")]
    assert [(one.seed, one.cost["seconds"]) for one in pairs] == [(1, 2.0), (3, 2.0)]


def test_an_area_is_above_what_the_copy_of_the_same_image_has():
    """Else an interval over images would be one of how their base images align."""
    levels = {f"image-{k}": (0.9, 0.1)[k % 2] for k in range(8)}
    found = [
        record("tradeoff/snapshot=64", image, scores={"alignment": level + 0.05, "stlpips": 0.5})
        for image, level in levels.items()
    ]
    found += [copy(image, level) for image, level in levels.items()]
    swept = areas.front(found, "unitune", "alignment")
    assert swept.settings == ((64.0, 6.0),) and swept.x == pytest.approx(0.05)
    assert areas.area(swept, corner=areas.CORNER) == pytest.approx((0.025,) * 3)
    turned = [replace(one, scores=one.scores | {"direction": 0.1}) for one in found]
    assert "|UniTune|0.025 [0.025, 0.025]|" in areas.covered(turned)
    with pytest.raises(Refused, match=r"tradeoff/snapshot=64 does not say its sampler\.text\.eta"):
        areas.front([replace(one, method="imagic") for one in found], "imagic", "direction")


def test_a_dial_whose_best_setting_is_an_end_is_told_below_the_areas():
    levels = {0.7: (0.3, 0.2), 0.8: (0.2, 0.4), 1.0: (0.1, 0.6)}  # the best is the earliest start
    found = [
        record(
            "t/x", method="untuned", start=at, scores={"direction": x, "alignment": x, "stlpips": y}
        )
        for at, (x, y) in levels.items()
    ]
    said = areas.covered([*found, copy()])
    assert said.endswith(
        "\n\nSDEdit, direction: the best setting, start 0.7, is an end of the range: widen it."
    )
    turned = [replace(one, start={0.7: 1.0, 1.0: 0.7}.get(one.start, one.start)) for one in found]
    beyond = areas.covered([*turned, copy()])
    assert "widen it" not in beyond, "start 1 is pure noise: there is nothing beyond"


def test_of_several_dials_each_is_told_by_its_own_range():
    best = {(64, 8): 0.9}  # the middle of the steps, the end of the weights
    found = [copy()]
    for steps, weight in itertools.product((32, 64, 128), (1.0, 2.0, 4.0, 8.0)):
        x = best.get((steps, weight), 0.1)
        scores = {"direction": x, "alignment": x, "stlpips": 0.5}
        found.append(record(f"t/snapshot={steps}", weight=weight, scores=scores))
    said = areas.covered(found)
    assert "snapshot" not in said and said.endswith(
        "\n\nUniTune, direction: the best setting, weight 8, is an end of the range: widen it."
    )


def test_every_method_has_as_many_settings_in_the_trade_off_as_its_sweep():
    swept = [cell for sweep in ENTRIES["tradeoff"].sweeps for cell in sweeps.cells(sweep)]
    for method, dials in areas.DIALS.items():
        cells = [cell for cell in swept if cell["method"] == method]
        assert len(list(itertools.product(*dials.values()))) == len(cells) == 12
        for cell, (dial, values) in itertools.product(cells, dials.items()):
            (asked,) = [value for key, value in cell.items() if key.endswith(dial)]
            assert float(asked) in values
