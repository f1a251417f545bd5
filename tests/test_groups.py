"""Groups of records: what stands together, what it is called, and where its numbers come from."""

from dataclasses import replace
from pathlib import Path

import finished
import pytest

from unitune.metrics.statistics import interval
from unitune.report import saved_runs, tables
from unitune.report.groups import Group, higher_is_better, make_groups
from unitune.storage import records
from unitune.types import Refused


@pytest.fixture
def sweep(tmp_path):
    finished.run(tmp_path / "0-unitune", images=3)
    finished.run(tmp_path / "1-untuned", method="untuned", sampler="sdedit", images=3, shift=-0.05)
    return tmp_path


def groups(folder: Path) -> dict[str, Group]:
    read = saved_runs.load(folder)
    return {group.label: group for group in make_groups(read.records, settings=read.settings)}


def edit_labels(folder: Path) -> list[str]:
    return [label for label, group in groups(folder).items() if group.row == "edit"]


def first_edit(folder: Path) -> records.Record:
    return next(record for record in saved_runs.load(folder).records if record.row == "edit")


def test_a_group_of_each_method_and_of_each_reference_once(sweep):
    found = groups(sweep)
    copy, target = "copy of the base", "exact target"
    assert list(found) == ["unitune + unitune", "untuned + sdedit", copy, target]
    tuned = found["unitune + unitune"]
    assert (tuned.images, len(tuned.records), tuned.runs) == (3, 6, ("0-unitune",))
    assert tuned.scores["alignment"] == interval([0.0, 0.1, 0.2])
    assert len(found[target].records) == 3  # both runs have them
    assert "stlpips" not in found[target].scores and not found[target].costs


def test_references_are_of_the_edits_that_were_made(sweep):
    """plan=dials makes the first edit of an image, while its references are of all."""
    one = first_edit(sweep)
    copy = replace(one, row="copy", method="", sampler="")
    copies = [copy, replace(copy, prompt="never made")]
    assert [record.prompt for record in make_groups([one, *copies])[-1].records] == [one.prompt]
    assert len(make_groups(copies)[-1].records) == 2
    target = replace(copies[1], row="target")  # known of an edit alone that was not made
    assert [group.row for group in make_groups([one, *copies, target])] == ["edit", "copy"]


def test_every_reference_is_a_group_in_the_order_of_their_table_and_an_oracle_has_seeds(sweep):
    one = first_edit(sweep)
    kinds = reversed(records.REFERENCES)
    made = [replace(one, row=row, method="", sampler="") for row in kinds]
    sweeps = [(seed, run) for seed in (0, 1) for run in ("a", "b")]
    found = make_groups([one, *made, *(replace(made[0], seed=s, run=run) for s, run in sweeps)])
    assert [group.label for group in found[1:]] == [*records.REFERENCES.values()]
    assert [len(group.records) for group in found] == [1, 1, 1, 1, 1, 2]
    assert [group.is_reference for group in found] == [False] + [True] * 5


def test_unitune_stands_first_whatever_its_folder_is_called(tmp_path):
    finished.run(tmp_path / "dreambooth", method="dreambooth", sampler="dreambooth", images=3)
    finished.run(tmp_path / "unitune", images=3)
    found = make_groups(saved_runs.load(tmp_path).records)
    assert [group.method for group in found if group.row == "edit"] == ["unitune", "dreambooth"]


def test_costs_of_an_edit(sweep):
    assert groups(sweep)["unitune + unitune"].costs == {
        "tuning s": 30,
        "sampling s": 2,
        "peak MiB": 900,
        "optimiser steps": 128,
        "tuning evaluations": 512,
        "sampling evaluations": 40,
        "stored MiB": 3,
    }


def test_tunings_of_an_image_are_added_where_every_prompt_has_its_own(tmp_path):
    """Two prompts of one image cost one tuning of one method, and two of another."""
    finished.run(tmp_path / "a")
    one = first_edit(tmp_path)
    seconds = {"a dog": 30.0, "a cat": 31.0}
    shared = [
        replace(one, prompt=prompt, seed=seed, example=image)
        for prompt in seconds
        for seed in (0, 1)
        for image in ("i0", "i1")
    ]
    apart = [
        replace(r, method="imagic", cost={**r.cost, "tuning_seconds": seconds[r.prompt]})
        for r in shared
    ]
    ours, theirs = make_groups([*shared, *apart])
    assert (ours.costs["tuning s"], theirs.costs["tuning s"]) == (30, 61)
    assert (ours.costs["stored MiB"], theirs.costs["stored MiB"]) == (3, 6)
    assert (ours.costs["optimiser steps"], theirs.costs["optimiser steps"]) == (128, 256)
    assert ours.costs["sampling s"] == theirs.costs["sampling s"] == 2
    notes = tables.comparison([ours, theirs], cards={}).notes
    assert any("of all its tunings" in note for note in notes)


def test_cells_of_two_sweeps_have_the_same_names_and_stay_apart(tmp_path):
    for sweep, lr in (("monday", 1e-4), ("tuesday", 1e-3)):
        finished.run(tmp_path / sweep / "0-unitune-unitune", lr=lr)
    read = saved_runs.load(tmp_path)
    names = ["monday/0-unitune-unitune", "tuesday/0-unitune-unitune"]
    assert sorted(read.folders) == names
    assert len(records.merge(read.records)) == len(read.records)
    for run, lr in zip(names, (0.0001, 0.001), strict=True):
        assert read.folders[run] == tmp_path / run and f"lr: {lr}" in read.configs[run]
    assert edit_labels(tmp_path) == [f"unitune + unitune (lr={lr})" for lr in (0.0001, 0.001)]
    bare = [group for group in make_groups(read.records) if group.row == "edit"]
    assert [group.label for group in bare] == [f"unitune + unitune ({name})" for name in names]
    assert records.read(tmp_path / names[0])[0].run == "0-unitune-unitune"


def test_cells_of_a_sweep_are_told_apart_by_what_was_set(tmp_path):
    for k, (lr, start) in enumerate(((1e-4, 0.8), (1e-4, 0.9), (1e-3, 0.9))):
        finished.run(tmp_path / f"{k}", lr=lr, start=start)
    assert edit_labels(tmp_path) == [
        f"unitune + unitune (lr={lr}, start={start})"
        for lr, start in ((0.0001, 0.8), (0.0001, 0.9), (0.001, 0.9))
    ]


def test_a_setting_that_names_another_is_told_by_its_value(tmp_path):
    tuned = {"a": "${model.stages}", "b": "[base]", "c": "${c}", "d": "${nothing.there}"}
    for name, value in tuned.items():
        (finished.run(tmp_path / name) / "config.yaml").write_text(
            f"model: {{stages: [base, sr256]}}\nstage:\n  tuned: {value}\nc: ${{stage.tuned}}\n"
        )
    values = ("['base', 'sr256']", "['base']", "${stage.tuned}", "${nothing.there}")
    assert edit_labels(tmp_path) == [f"unitune + unitune (tuned={value})" for value in values]


def test_cells_without_settings_are_told_apart_by_dials_or_by_run(tmp_path):
    finished.run(tmp_path / "a")
    one = first_edit(tmp_path)

    def labels(*changed: dict) -> list[str]:
        return [group.label for group in make_groups([replace(one, **dials) for dials in changed])]

    assert labels({"run": "x/0", "start": 0.8}, {"run": "x/1", "start": 0.9}) == [
        "unitune + unitune (start 0.8)",
        "unitune + unitune (start 0.9)",
    ]
    assert labels({"run": "x/lr=1"}, {"run": "x/lr=2"}) == [
        "unitune + unitune (lr=1)",
        "unitune + unitune (lr=2)",
    ]
    rows = [("edit", ""), ("edit", "file"), ("selected", "")]
    apart = make_groups([replace(one, row=row, saw_mask=mask) for row, mask in rows])
    assert [(group.label, group.saw_mask) for group in apart] == [
        ("unitune + unitune", ""),
        ("unitune + unitune", "file"),
        ("unitune + unitune (selected)", ""),
    ]


def test_no_record_is_refused():
    with pytest.raises(Refused, match="a table needs records, and there are none"):
        make_groups([])


def test_directions_without_a_card():
    assert higher_is_better("psnr", {}) and not higher_is_better("mse_outside", {})
    assert not higher_is_better("psnr", {"psnr": {"better": "lower"}})


def test_wrong_sources_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"holds no scores\.jsonl"):
        saved_runs.load(tmp_path)
    (tmp_path / records.FILE).write_text("")
    with pytest.raises(Refused, match="holds no record"):
        saved_runs.load(tmp_path)
    run = finished.run(tmp_path / "run")
    (run / "cards.json").write_text("[1")
    with pytest.raises(Refused, match=r"cards\.json cannot be read"):
        saved_runs.load(run)


def test_committed_records_need_no_folder(tmp_path):
    run = finished.run(tmp_path / "run")
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((run / records.FILE).read_bytes())
    read = saved_runs.load(kept)
    assert read.settings == {}
    assert str(kept) in read.provenance and "not kept" in read.provenance
    (tmp_path / "cards.json").write_bytes((run / "cards.json").read_bytes())
    assert saved_runs.load(kept).cards == finished.CARDS
