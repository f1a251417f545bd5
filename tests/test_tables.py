"""Tables: what stands in a cell and below, and that what cannot be compared is not."""

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import finished
import pytest

from unitune.metrics.statistics import Interval
from unitune.report import saved_runs, tables
from unitune.report.differences import differences
from unitune.report.groups import make_groups
from unitune.report.summary import of_sweep
from unitune.report.table_formats import Table
from unitune.storage.records import Record

Scores = dict[str, float | None]


@pytest.fixture
def sweep(tmp_path):
    finished.run(tmp_path / "0-unitune", images=3)
    finished.run(tmp_path / "1-untuned", method="untuned", sampler="sdedit", images=3, shift=-0.05)
    return tmp_path


def scored(tmp_path: Path, every: list[Scores]) -> list[Record]:
    """Edits with these scores, two of each image."""
    (one, *_) = saved_runs.load(finished.run(tmp_path / "scored")).records
    return [
        replace(one, example=f"i{k // 2}", prompt=f"p{k % 2}", scores=scores)
        for k, scores in enumerate(every)
    ]


def success_notes(table: Table) -> list[str]:
    return [note for note in table.notes if "Edit success" in note]


def test_what_a_nan_score_is_in_a_table(tmp_path):
    made = scored(tmp_path, [{"psnr": float("nan"), "up": 1.0}] * 4)
    (group,) = make_groups(made)
    assert group.counts == {"up": 4} and list(group.scores) == ["up"]
    assert tables.cell(group, "psnr") == "-"


def test_markdown_latex_and_csv_say_the_same(sweep):
    read = saved_runs.load(sweep)
    groups = make_groups(read.records)
    table = tables.comparison(groups, cards=read.cards)
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    markdown = [re.split(r" \| ", line.strip("| ")) for line in lines]
    assert markdown[0] == [*table.head] and len(markdown) == 2 + len(groups)
    latex = table.latex().splitlines()
    assert latex[-1] == r"\end{tabular}"
    assert sum(line.endswith(r"\\") for line in latex) == 1 + len(groups)
    assert r"image 100\% a\_b" in Table(("image 100% a_b",), ()).latex()
    first, *_, last = csv.DictReader(io.StringIO(tables.as_csv(groups)))
    assert float(first["alignment"]) == pytest.approx(0.1)
    assert first["alignment_low"] == first["alignment_high"] == "", "three images: no interval"
    assert (first["alignment_n"], first["tuning s"], first["runs"]) == ("6", "30.0", "0-unitune")
    assert last["stlpips"] == ""


def test_ends_of_intervals_from_eight_images_on(tmp_path):
    groups = make_groups(saved_runs.load(finished.run(tmp_path / "a", images=8)).records)
    (row, *_) = csv.DictReader(io.StringIO(tables.as_csv(groups)))
    _, low, high = groups[0].scores["alignment"]
    assert (float(row["alignment_low"]), float(row["alignment_high"])) == (low, high)
    assert "[0.145, 0.555]" in tables.cell(groups[0], "alignment")
    assert "from 8 images on" in tables.comparison(groups, cards={}).notes[0]
    assert str(Interval(3e-14, 1e-14, 5e-14)) == "0 [0, 0]"


def test_progress_stands_beside_success_and_both_say_over_what_they_go(tmp_path):
    apart = [(0.1, 0.4, 1.0), (0.2, 0.2, None), (0.1, 0.2, 0.0), (0.0, 0.0, 0.0)]
    scores: list[Scores] = [
        {"both": both, "error_inside": a, "base_error_inside": b, "psnr": 20.0}
        for a, b, both in apart
    ]
    made = scored(tmp_path, scores)
    (group,) = make_groups(made)
    assert group.counts == {"both": 3, "progress": 4, "psnr": 4}
    assert [*group.scores] == ["both", "progress", "psnr"] and group.scores["both"].mean == 0.5
    progress = (1 - 0.3 / 0.6 + 1 - 0.1 / 0.2) / 2
    assert group.scores["progress"].mean == pytest.approx(progress)
    said = f"Edit success goes over 3 of 4 edits; not over 1 {UNKNOWN}."
    table = tables.comparison([group], cards={})
    assert said in table.notes and said in tables.by_prompt(made).notes
    assert said in tables.text([group]).splitlines()
    assert table.head[4:7] == ("both ↑", "progress ↑", "psnr ↑")
    assert tables.cell(group, "both") == "0.5 (3)"
    whole = scored(tmp_path / "whole", [{"both": 1.0}, {"both": 0.0}])
    assert not success_notes(tables.comparison(make_groups(whole), cards={}))


SATISFIES = "that a copy of the base satisfies"
FAILS = "that the judge fails on the exact target"
UNKNOWN = (
    "without facts, satisfied by a copy of the base, or failed by the judge on the exact target "
    "(these records do not say which)"
)
LEFT = {  # success, and that of a copy of the base
    "facts": (None, None),
    "copy": (None, 1.0),
    "target": (None, 0.0),
    "none": (1.0, 0.0),
    "failed": (0.0, 0.0),
}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            ("none", "facts", "facts", "copy", "target", "failed"),
            f"2 of 6 edits; not over 2 without facts, 1 {SATISFIES}, 1 {FAILS}.",
        ),
        (("facts", "none"), "1 of 2 edits; not over 1 without facts."),
        (("facts",), "0 of 1 edits; not over 1 without facts."),
        (("copy", "target", "target"), f"0 of 3 edits; not over 1 {SATISFIES}, 2 {FAILS}."),
        (("none", "failed"), None),
    ],
)
def test_a_table_says_why_edits_have_no_success(tmp_path, of, said):
    """Also where none has one, so that the columns are not there; the raw score is no column."""
    scores = [{"both": LEFT[name][0], "psnr": 20.0, "both_base": LEFT[name][1]} for name in of]
    in_memory = [  # as a run holds them
        {name: math.nan if value is None else value for name, value in one.items()}
        for one in scores
    ]
    made = scored(tmp_path, scores) + scored(tmp_path / "again", in_memory)
    copies = [replace(record, row="copy", method="", sampler="", cost={}) for record in made]
    groups = make_groups([*made, *copies])
    expected = [] if said is None else [f"Edit success goes over {said}"]
    for table in (tables.comparison(groups, cards={}), tables.by_prompt(made)):
        assert success_notes(table) == expected
        assert not any("both_base" in head for head in table.head)
        assert any("psnr" in head for head in table.head)
    assert ("Edit success" in tables.text(groups)) == (said is not None)


def test_records_that_know_better_say_why_an_edit_has_no_success(tmp_path):
    old = scored(tmp_path, [{"both": None}, {"both": None}])
    made = old + scored(tmp_path / "b", [{"both": None, "both_base": 1.0}])
    assert tables.counting(made) == (
        f"Edit success goes over 0 of 2 edits; not over 1 {SATISFIES}, 1 {UNKNOWN}.",
    )
    assert tables.counting([]) == ()
    assert tables.counting(scored(tmp_path / "c", [{"psnr": 20.0}])) == ()


def test_a_rate_of_0_of_24_images_has_an_interval_and_an_error_of_0_has_none(tmp_path):
    made = scored(tmp_path, [{"both": 0.0, "mse_outside": 0.0}] * 48)
    (group,) = make_groups(made)
    assert tables.cell(group, "both") == "0 [0, 0.151]"
    assert tables.cell(group, "mse_outside") == "0 [0, 0]"
    other = [replace(record, method="untuned") for record in made]
    table = differences(make_groups([*made, *other]), cards={})
    assert table.rows[0][1].startswith("0 [-0.151, 0.151];")


def test_the_table_of_a_run_has_a_row_for_each_prompt(tmp_path):
    (one, *_) = saved_runs.load(finished.run(tmp_path / "run")).records
    one = replace(one, scores={"clip": 0.25, "psnr": 19.5}, prompt="a dog")
    made = [
        one,
        replace(one, seed=1, scores={"clip": 0.75}),
        replace(one, method="untuned", sampler="sdedit", prompt="x", scores={}),
        replace(one, row="copy", method="", sampler="", cost={}),
    ]
    assert tables.by_prompt(made).plain().splitlines() == [
        "method             prompt  n  clip      psnr  sampling s  peak MiB",
        "unitune + unitune  a dog   2   0.5  19.5 (1)           2       900",
        "copy of the base   a dog   1  0.25      19.5           -         -",
        "untuned + sdedit   x       1     -         -           2       900",
    ]
    nothing = tables.by_prompt([])
    assert nothing.rows == () and nothing.plain() == "method  prompt  n"
    twice = tables.by_prompt([one, replace(one, scores={"judge": 1.0})])  # scored again
    assert twice.rows == (("unitune + unitune", "a dog", "1", "0.25", "19.5", "1", "2", "900"),)


def test_numbers_for_loggers(tmp_path):
    made = saved_runs.load(finished.run(tmp_path / "run", prompts=("a", "b"))).records
    columns, data = tables.numbers(made)
    assert columns == ["row", "method", "sampler", "prompt", "n", "alignment", "stlpips"]
    assert len(data) == 6
    assert data[0] == ["edit", "unitune", "unitune", "a", 4, pytest.approx(0.05), 0.5]
    assert data[2][:2] == ["target", ""] and data[2][-1] is None
    means = tables.overall(made)
    assert means["unitune + unitune/alignment"] == pytest.approx(0.05)
    assert means["exact target/alignment"] == pytest.approx(0.9)


def test_a_bar_in_a_prompt_keeps_the_columns():
    text = Table(("a|b",), (("c\nd",),)).markdown()
    assert text.splitlines() == [r"| a\|b |", "| --- |", "| c d |"]


def test_the_table_leads_to_record_settings_pictures_and_card(sweep):
    said = of_sweep(sweep, began=0.0)
    text = (sweep / "comparison.md").read_text()
    places = (f"2 files scores.jsonl below {sweep}", "config.yaml", "cards.json", "| 1-untuned |")
    assert all(place in text for place in places)
    assert "3 images, fewer than 24: too few for a verdict." in text
    assert any(line.startswith("The sweep took ") for line in said)
    assert f"comparison: {sweep}/comparison.md" in said
    written = {file.name for file in sweep.iterdir()}
    assert {"comparison.md", "comparison.csv", "comparison.tex", "report.html"} <= written
    assert of_sweep(sweep.parent / "nothing") == []


def test_groups_for_a_terminal_stand_side_by_side(sweep):
    read = saved_runs.load(sweep)
    edits, references = tables.text(make_groups(read.records), columns=2).split("\n\n")
    assert edits.splitlines()[0].split("  ")[-1].strip() == "untuned + sdedit"
    assert "tuning s" in edits and "tuning s" not in references
