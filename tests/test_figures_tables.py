"""Tables: what stands in a line, where its numbers come from, and that what cannot be compared is not."""

import csv
import dataclasses
import io
import json
import math
import re

import finished
import pytest

from unitune.metrics.statistics import Interval, interval
from unitune.report import source, tables
from unitune.report.comparison import conclude
from unitune.storage import records
from unitune.types import Refused


@pytest.fixture
def sweep(tmp_path):
    finished.run(tmp_path / "0-unitune", images=3)
    finished.run(tmp_path / "1-untuned", method="untuned", sampler="sdedit", images=3, shift=-0.05)
    return tmp_path


def lines(folder) -> dict[str, tables.Line]:
    read = source.load(folder)
    return {line.label: line for line in tables.lines(read.records, settings=read.settings)}


def test_a_line_of_each_method_and_of_each_reference_once(sweep):
    found = lines(sweep)
    assert list(found) == [
        "unitune + unitune",
        "untuned + sdedit",
        "copy of the base",
        "exact target",
    ]
    tuned = found["unitune + unitune"]
    assert (
        tuned.images == 3
        and len(tuned.records) == 6
        and tuned.scores["alignment"] == interval([0.0, 0.1, 0.2])
        and tuned.runs == ("0-unitune",)
    )
    assert len(found["exact target"].records) == 3  # both runs have them
    assert "stlpips" not in found["exact target"].scores and not found["exact target"].costs


def test_references_are_of_the_edits_that_were_made(sweep):
    """plan=dials makes the first edit of an image, while its references are of all."""
    (one, *_) = [record for record in source.load(sweep).records if record.row == "edit"]
    copies = [
        dataclasses.replace(one, row="copy", method="", sampler="", prompt=prompt)
        for prompt in (one.prompt, "never made")
    ]
    assert [record.prompt for record in tables.lines([one, *copies])[-1].records] == [one.prompt]
    assert len(tables.lines(copies)[-1].records) == 2
    target = dataclasses.replace(
        copies[1], row="target"
    )  # known of an edit alone that was not made
    assert [line.row for line in tables.lines([one, *copies, target])] == ["edit", "copy"]


def test_every_reference_is_a_line_in_the_order_of_their_table_and_an_oracle_has_seeds(sweep):
    (one, *_) = [record for record in source.load(sweep).records if record.row == "edit"]
    made = [
        dataclasses.replace(one, row=row, method="", sampler="")
        for row in reversed(records.REFERENCES)
    ]
    made += [
        dataclasses.replace(made[0], seed=seed, run=run) for seed in (0, 1) for run in ("a", "b")
    ]  # of two runs of a sweep
    found = tables.lines([one, *made])
    assert [line.label for line in found[1:]] == [*records.REFERENCES.values()] and [
        len(line.records) for line in found
    ] == [1, 1, 1, 1, 1, 2]
    assert all(line.is_reference for line in found[1:]) and not found[0].is_reference


def test_unitune_stands_first_whatever_its_folder_is_called(tmp_path):
    finished.run(tmp_path / "dreambooth", method="dreambooth", sampler="dreambooth", images=3)
    finished.run(tmp_path / "unitune", images=3)
    read = source.load(tmp_path)
    found = tables.lines(read.records)
    assert [line.method for line in found if line.row == "edit"] == ["unitune", "dreambooth"]
    assert any(
        note.startswith("Differences to unitune")
        for note in tables.differences(found, cards=read.cards).notes
    )


def test_costs_of_an_edit(sweep):
    costs = lines(sweep)["unitune + unitune"].costs
    assert costs == {
        "tuning s": 30, "sampling s": 2, "peak MiB": 900, "optimiser steps": 128, "tuning evaluations": 512, "sampling evaluations": 40, "stored MiB": 3,
    }  # fmt: skip


def test_tunings_of_an_image_are_added_where_every_prompt_has_its_own(tmp_path):
    """Like with like: two prompts of one image cost one tuning of one method, and two of another."""
    (one, *_) = source.load(finished.run(tmp_path / "a")).records
    seconds = {"a dog": 30.0, "a cat": 31.0}
    shared = [
        dataclasses.replace(one, prompt=p, seed=k, example=e)
        for p in seconds
        for k in (0, 1)
        for e in ("i0", "i1")
    ]
    apart = [
        dataclasses.replace(
            record, method="imagic", cost={**record.cost, "tuning_seconds": seconds[record.prompt]}
        )
        for record in shared
    ]
    ours, theirs = tables.lines([*shared, *apart])
    assert (ours.costs["tuning s"], theirs.costs["tuning s"]) == (30, 61) and theirs.costs[
        "stored MiB"
    ] == 2 * ours.costs["stored MiB"] == 6
    assert (ours.costs["optimiser steps"], theirs.costs["optimiser steps"]) == (
        128,
        256,
    ) and ours.costs["sampling s"] == theirs.costs["sampling s"] == 2
    assert any(
        "of all its tunings" in note for note in tables.comparison([ours, theirs], cards={}).notes
    )


def test_cells_of_two_sweeps_have_the_same_names_and_stay_apart(tmp_path):
    for sweep, lr in (("monday", 1e-4), ("tuesday", 1e-3)):
        finished.run(tmp_path / sweep / "0-unitune-unitune", lr=lr)
    read = source.load(tmp_path)
    assert set(read.folders) == {"monday/0-unitune-unitune", "tuesday/0-unitune-unitune"} and len(
        records.merge(read.records)
    ) == len(read.records)
    assert all(
        read.folders[run] == tmp_path / run and f"lr: {lr}" in read.configs[run]
        for run, lr in zip(sorted(read.folders), (0.0001, 0.001), strict=True)
    )
    assert [
        line.label
        for line in tables.lines(read.records, settings=read.settings)
        if line.row == "edit"
    ] == [f"unitune + unitune (lr={lr})" for lr in (0.0001, 0.001)]
    bare = [
        line for line in tables.lines(read.records) if line.row == "edit"
    ]  # nothing else tells them apart
    assert [line.label for line in bare] == [
        f"unitune + unitune ({sweep}/0-unitune-unitune)" for sweep in ("monday", "tuesday")
    ]
    assert records.read(tmp_path / "monday" / "0-unitune-unitune")[0].run == "0-unitune-unitune"


def test_cells_of_a_sweep_are_told_apart_by_what_was_set(tmp_path):
    for k, (lr, start) in enumerate(((1e-4, 0.8), (1e-4, 0.9), (1e-3, 0.9))):
        finished.run(tmp_path / f"{k}", lr=lr, start=start)
    labels = [label for label in lines(tmp_path) if "+" in label]
    assert labels == [
        f"unitune + unitune (lr={lr}, start={start})"
        for lr, start in ((0.0001, 0.8), (0.0001, 0.9), (0.001, 0.9))
    ]


def test_a_setting_that_names_another_is_told_by_its_value(tmp_path):
    for name, tuned in (
        ("a", "${model.stages}"),
        ("b", "[base]"),
        ("c", "${c}"),
        ("d", "${nothing.there}"),
    ):
        (finished.run(tmp_path / name) / "config.yaml").write_text(
            f"model: {{stages: [base, sr256]}}\nstage:\n  tuned: {tuned}\nc: ${{stage.tuned}}\n"
        )
    labels = [label for label in lines(tmp_path) if "+" in label]
    assert labels == [
        f"unitune + unitune (tuned={said})"
        for said in ("['base', 'sr256']", "['base']", "${stage.tuned}", "${nothing.there}")
    ]


def test_cells_without_settings_are_told_apart_by_dials_or_by_run(tmp_path):
    (one, *_) = source.load(finished.run(tmp_path / "a")).records
    dials = [
        dataclasses.replace(one, run=run, start=start)
        for run, start in (("x/0", 0.8), ("x/1", 0.9))
    ]
    assert [line.label for line in tables.lines(dials)] == [
        "unitune + unitune (start 0.8)",
        "unitune + unitune (start 0.9)",
    ]
    runs = [dataclasses.replace(one, run=run) for run in ("x/lr=1", "x/lr=2")]
    assert [line.label for line in tables.lines(runs)] == [
        "unitune + unitune (lr=1)",
        "unitune + unitune (lr=2)",
    ]
    apart = [
        dataclasses.replace(one, row=row, saw_mask=mask)
        for row, mask in (("edit", ""), ("edit", "file"), ("selected", ""))
    ]
    assert [(line.label, line.saw_mask) for line in tables.lines(apart)] == [
        ("unitune + unitune", ""), ("unitune + unitune", "file"), ("unitune + unitune (selected)", "")
    ]  # fmt: skip
    with pytest.raises(Refused, match="a table needs records, and there are none"):
        tables.lines([])


def test_what_a_nan_score_is_in_a_table(tmp_path):
    every = [
        dataclasses.replace(record, scores={"psnr": float("nan"), "up": 1.0})
        for record in source.load(finished.run(tmp_path / "a")).records
    ]
    (line, *_) = tables.lines(every)
    assert (
        line.counts == {"up": 4}
        and list(line.scores) == ["up"]
        and tables.cell(line, "psnr") == "-"
    )


def test_differences_are_paired_and_name_their_budget(sweep):
    read = source.load(sweep)
    table = tables.differences(tables.lines(read.records), cards=read.cards)
    assert table.head == ("method", "alignment ↑", "stlpips ↓")
    assert table.rows == (
        ("untuned + sdedit", "-0.05; p 0.25, 0.25; wins 0 %", "0.05; p 0.25, 0.25; wins 0 %"),
    )
    assert "Equal budgets: 3 edits of 3 images, 2 seeds at 1 setting each." in table.notes


def test_unequal_budgets_are_said_in_place_of_differences(tmp_path):
    finished.run(tmp_path / "a", seeds=2)
    finished.run(tmp_path / "b", method="untuned", sampler="sdedit", seeds=1)
    said = "\n".join(conclude(tmp_path))
    text = (tmp_path / "comparison.md").read_text()
    assert (
        "No differences are shown: unitune + unitune and untuned + sdedit have unequal budgets: 2 seeds against 1 seed"
        in text
        and "report: " in said
    )


def test_markdown_latex_and_csv_say_the_same(sweep):
    read = source.load(sweep)
    found = tables.lines(read.records)
    table = tables.comparison(found, cards=read.cards)
    markdown = [
        re.split(r" \| ", line.strip("| "))
        for line in tables.markdown(table).splitlines()
        if line.startswith("|")
    ]
    assert [*markdown[0]] == [*table.head] and len(markdown) == 2 + len(found)
    latex = tables.latex(table).splitlines()
    assert (
        latex[-1] == r"\end{tabular}"
        and sum(line.endswith(r"\\") for line in latex) == 1 + len(found)
        and r"image 100\% a\_b" in tables.latex(tables.Table(("image 100% a_b",), ()))
    )
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(found))))
    assert (
        float(rows[0]["alignment"]) == pytest.approx(0.1)
        and rows[0]["alignment_low"] == rows[0]["alignment_high"] == ""
    ), "three images have no interval"
    assert (rows[0]["alignment_n"], rows[0]["tuning s"], rows[0]["runs"], rows[3]["stlpips"]) == (
        "6",
        "30.0",
        "0-unitune",
        "",
    )


def test_ends_of_intervals_from_eight_images_on(tmp_path):
    found = tables.lines(source.load(finished.run(tmp_path / "a", images=8)).records)
    (row, *_) = csv.DictReader(io.StringIO(tables.as_csv(found)))
    assert (float(row["alignment_low"]), float(row["alignment_high"])) == found[0].scores[
        "alignment"
    ][1:] and "[0.145, 0.555]" in tables.cell(found[0], "alignment")
    assert "from 8 images on" in tables.comparison(found, cards={}).notes[0]


def scored(tmp_path, every: list[dict[str, float | None]]) -> list[records.Record]:
    (one, *_) = source.load(finished.run(tmp_path / "scored")).records
    return [
        dataclasses.replace(one, example=f"i{k // 2}", prompt=f"p{k % 2}", scores=scores)
        for k, scores in enumerate(every)
    ]


def test_progress_stands_beside_success_and_both_say_over_what_they_go(tmp_path):
    apart = [(0.1, 0.4, 1.0), (0.2, 0.2, None), (0.1, 0.2, 0.0), (0.0, 0.0, 0.0)]
    made = scored(
        tmp_path,
        [
            {"both": both, "error_inside": a, "base_error_inside": b, "psnr": 20.0}
            for a, b, both in apart
        ],
    )
    (line,) = tables.lines(made)
    assert (
        [*line.scores] == ["both", "progress", "psnr"]
        and line.scores["both"].mean == 0.5
        and line.counts == {"both": 3, "progress": 4, "psnr": 4}
    )
    assert line.scores["progress"].mean == pytest.approx((1 - 0.3 / 0.6 + 1 - 0.1 / 0.2) / 2)
    untold = "without facts, satisfied by a copy of the base, or failed by the judge on the exact target (these records do not say which)"
    said = f"Edit success goes over 3 of 4 edits; not over 1 {untold}."
    for notes in (
        tables.comparison([line], cards={}).notes,
        tables.by_prompt(made).notes,
        tables.text([line]).splitlines(),
    ):
        assert said in notes
    assert (
        tables.comparison([line], cards={}).head[4:7] == ("both ↑", "progress ↑", "psnr ↑")
        and tables.cell(line, "both") == "0.5 (3)"
    )
    whole = scored(tmp_path / "whole", [{"both": 1.0}, {"both": 0.0}])
    assert not [
        note
        for note in tables.comparison(tables.lines(whole), cards={}).notes
        if "Edit success" in note
    ]


SATISFIES = "that a copy of the base satisfies"
LEFT = {
    "facts": (None, None),
    "copy": (None, 1.0),
    "target": (None, 0.0),
    "none": (1.0, 0.0),
    "failed": (0.0, 0.0),
}  # success, and that of a copy of the base


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            ("none", "facts", "facts", "copy", "target", "failed"),
            f"2 of 6 edits; not over 2 without facts, 1 {SATISFIES}, 1 that the judge fails",
        ),
        (("facts", "none"), "1 of 2 edits; not over 1 without facts."),
        (("facts",), "0 of 1 edits; not over 1 without facts."),
        (
            ("copy", "target", "target"),
            f"0 of 3 edits; not over 1 {SATISFIES}, 2 that the judge fails on the exact target.",
        ),
        (("none", "failed"), None),
    ],
)
def test_a_table_says_why_edits_have_no_success(tmp_path, of, said):
    """Also where none has one, so that the columns are not there; the raw score that tells is no column."""
    scores = [{"both": LEFT[name][0], "psnr": 20.0, "both_base": LEFT[name][1]} for name in of]
    unwritten = [
        {name: math.nan if value is None else value for name, value in one.items()}
        for one in scores
    ]  # as a run holds them
    made = scored(tmp_path, scores) + scored(tmp_path / "again", unwritten)
    found = tables.lines(
        [
            *made,
            *(
                dataclasses.replace(record, row="copy", method="", sampler="", cost={})
                for record in made
            ),
        ]
    )
    for table in (tables.comparison(found, cards={}), tables.by_prompt(made)):
        told = [note for note in table.notes if "Edit success" in note]
        assert [f"Edit success goes over {said}" in note for note in told] == (
            [] if said is None else [True]
        )
        assert not any("both_base" in head for head in table.head) and any(
            "psnr" in head for head in table.head
        )
    assert ("Edit success" in tables.text(found)) == (said is not None)


def test_records_that_know_better_say_why_an_edit_has_no_success(tmp_path):
    made = scored(tmp_path, [{"both": None}, {"both": None}]) + scored(
        tmp_path / "b", [{"both": None, "both_base": 1.0}]
    )
    assert tables.counting(made) == (
        f"Edit success goes over 0 of 2 edits; not over 1 {SATISFIES}, "
        "1 without facts, satisfied by a copy of the base, or failed by the judge on the exact target (these records do not say which).",
    )
    assert (
        tables.counting([]) == ()
        and tables.counting(scored(tmp_path / "c", [{"psnr": 20.0}])) == ()
    )


def test_a_rate_of_0_of_24_images_has_an_interval_and_an_error_of_0_has_none(tmp_path):
    made = scored(tmp_path, [{"both": 0.0, "mse_outside": 0.0}] * 48)
    (line,) = tables.lines(made)
    assert (
        tables.cell(line, "both") == "0 [0, 0.151]"
        and tables.cell(line, "mse_outside") == "0 [0, 0]"
    )
    other = [dataclasses.replace(record, method="untuned") for record in made]
    assert (
        tables.differences(tables.lines([*made, *other]), cards={})
        .rows[0][1]
        .startswith("0 [-0.151, 0.151];")
    )


def test_the_table_of_a_run_has_a_row_for_each_prompt(tmp_path):
    (one, *_) = source.load(finished.run(tmp_path / "run")).records
    one = dataclasses.replace(one, scores={"clip": 0.25, "psnr": 19.5}, prompt="a dog")
    other = dataclasses.replace(one, method="untuned", sampler="sdedit", prompt="x", scores={})
    made = [
        one,
        dataclasses.replace(one, seed=1, scores={"clip": 0.75}),
        other,
        dataclasses.replace(one, row="copy", method="", sampler="", cost={}),
    ]
    assert tables.plain(tables.by_prompt(made)).splitlines() == [
        "method             prompt  n  clip      psnr  sampling s  peak MiB",
        "unitune + unitune  a dog   2   0.5  19.5 (1)           2       900",
        "copy of the base   a dog   1  0.25      19.5           -         -",
        "untuned + sdedit   x       1     -         -           2       900",
    ]
    assert (
        tables.by_prompt([]).rows == ()
        and tables.plain(tables.by_prompt([])) == "method  prompt  n"
    )
    twice = tables.by_prompt(
        [one, dataclasses.replace(one, scores={"judge": 1.0})]
    )  # an edit that was scored again
    assert twice.rows == (("unitune + unitune", "a dog", "1", "0.25", "19.5", "1", "2", "900"),)


def test_numbers_for_loggers(tmp_path):
    made = source.load(finished.run(tmp_path / "run", prompts=("a", "b"))).records
    columns, data = tables.numbers(made)
    assert (
        columns == ["row", "method", "sampler", "prompt", "n", "alignment", "stlpips"]
        and len(data) == 6
    )
    assert (
        data[0] == ["edit", "unitune", "unitune", "a", 4, pytest.approx(0.05), 0.5]
        and data[2][:2] == ["target", ""]
        and data[2][-1] is None
    )
    means = tables.overall(made)
    assert means["unitune + unitune/alignment"] == pytest.approx(0.05) and means[
        "exact target/alignment"
    ] == pytest.approx(0.9)


def test_a_bar_in_a_prompt_keeps_the_columns():
    assert tables.markdown(tables.Table(("a|b",), (("c\nd",),))).splitlines()[0] == r"| a\|b |"


def test_the_table_leads_to_record_settings_pictures_and_card(sweep):
    said = conclude(sweep, began=0.0)
    text = (sweep / "comparison.md").read_text()
    assert (
        f"2 files scores.jsonl below {sweep}" in text
        and "config.yaml" in text
        and "cards.json" in text
        and "| 1-untuned |" in text
    )
    assert "3 images, fewer than 24: too few for a verdict." in text
    assert (
        any(line.startswith("The sweep took ") for line in said)
        and f"comparison: {sweep}/comparison.md" in said
    )
    assert {"comparison.md", "comparison.csv", "comparison.tex", "report.html"} <= {
        file.name for file in sweep.iterdir()
    }
    assert conclude(sweep.parent / "nothing") == []


def test_lines_for_a_terminal_stand_side_by_side(sweep):
    text = tables.text(list(lines(sweep).values()), columns=2).split("\n\n")
    assert len(text) == 2 and text[0].splitlines()[0].split("  ")[-1].strip() == "untuned + sdedit"
    assert "tuning s" in text[0] and "tuning s" not in text[1]


def test_wrong_sources_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"holds no scores\.jsonl"):
        source.load(tmp_path)
    (tmp_path / records.FILE).write_text("")
    with pytest.raises(Refused, match="holds no record"):
        source.load(tmp_path)
    run = finished.run(tmp_path / "run")
    (run / "cards.json").write_text("[1")
    with pytest.raises(Refused, match=r"cards\.json cannot be read"):
        source.load(run)


def test_committed_records_need_no_folder(tmp_path):
    run = finished.run(tmp_path / "run")
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((run / records.FILE).read_bytes())
    read = source.load(kept)
    assert (
        read.settings == {} and str(kept) in read.provenance[0] and "not kept" in read.provenance[0]
    )
    (tmp_path / "cards.json").write_text(json.dumps(finished.CARDS))
    assert source.load(kept).cards == finished.CARDS


def test_directions_without_a_card():
    assert tables.higher_is_better("psnr", {}) and not tables.higher_is_better("mse_outside", {})
    assert not tables.higher_is_better("psnr", {"psnr": {"better": "lower"}})
    assert str(Interval(3e-14, 1e-14, 5e-14)) == "0 [0, 0]"
