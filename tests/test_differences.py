"""What is compared image by image, and that what had unequal budgets is not."""

import itertools

import finished
import pytest
from one_edit import record

from unitune.metrics.statistics import group_by
from unitune.report import saved_runs
from unitune.report.differences import check_budgets, differences
from unitune.report.groups import made_by, make_groups
from unitune.report.summary import of_sweep
from unitune.storage.records import Record
from unitune.types import Refused


def test_differences_are_paired_and_name_their_budget(tmp_path):
    finished.run(tmp_path / "0-unitune", images=3)
    finished.run(tmp_path / "1-untuned", method="untuned", sampler="sdedit", images=3, shift=-0.05)
    read = saved_runs.load(tmp_path)
    table = differences(make_groups(read.records), cards=read.cards)
    assert table.head == ("method", "alignment ↑", "stlpips ↓")
    assert table.rows == (
        ("untuned + sdedit", "-0.05; p 0.25, 0.25; wins 0 %", "0.05; p 0.25, 0.25; wins 0 %"),
    )
    assert table.notes[0].startswith("Differences to unitune + unitune on the same images")
    assert "Equal budgets: 3 edits of 3 images, 2 seeds at 1 setting each." in table.notes
    with pytest.raises(Refused, match="the edits of two methods, samplers or settings"):
        differences(make_groups(read.records)[1:], cards=read.cards)


def test_differences_are_to_unitune_whatever_its_folder_is_called(tmp_path):
    finished.run(tmp_path / "dreambooth", method="dreambooth", sampler="dreambooth", images=3)
    finished.run(tmp_path / "unitune", images=3)
    read = saved_runs.load(tmp_path)
    table = differences(make_groups(read.records), cards=read.cards)
    assert any(note.startswith("Differences to unitune") for note in table.notes)


def test_unequal_budgets_are_said_in_place_of_differences(tmp_path):
    finished.run(tmp_path / "a", seeds=2)
    finished.run(tmp_path / "b", method="untuned", sampler="sdedit", seeds=1)
    assert "report: " in "\n".join(of_sweep(tmp_path))
    said = "unitune + unitune and untuned + sdedit have unequal budgets: 2 seeds against 1 seed"
    assert f"No differences are shown: {said}" in (tmp_path / "comparison.md").read_text()


def grid(
    method: str,
    images: int = 3,
    prompts: int = 2,
    seeds: int = 2,
    starts: tuple[float, ...] = (0.9,),
    name: str = "i",
) -> list[Record]:
    cells = itertools.product(range(images), range(prompts), range(seeds), starts)
    return [
        record(method=method, example=f"{name}{i}", prompt=f"p{p}", seed=seed, start=start)
        for i, p, seed, start in cells
    ]


def budget(*grids: list[Record]) -> str:
    return check_budgets(group_by(itertools.chain(*grids), made_by))


def test_equal_budgets_are_said():
    assert budget(grid("one"), grid("two")) == "6 edits of 3 images, 2 seeds at 1 setting"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seeds": 1}, "2 seeds against 1 seed"),
        ({"images": 2}, "3 images against 2 images"),
        ({"prompts": 1}, "6 edits against 3 edits"),
        ({"starts": (0.8, 0.9)}, "1 setting against 2 settings"),
        ({"name": "other"}, r"3 images against 3 images \(not the same ones\)"),
    ],
)
def test_unequal_budgets_are_refused(other, said):
    with pytest.raises(Refused, match=rf"one \+ cfg and two \+ cfg have unequal budgets: {said}"):
        budget(grid("one"), grid("two", **other))
