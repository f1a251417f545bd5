"""The table of claims: every entry is whole, answers from records alone, and runs what lacks."""

import importlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from claim_records import HERE, KINDS, ROOT, SCORED, of_image, record, write
from claims import answer, sweeps
from claims.table import CLAIMS, ENTRIES, entry
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

import unitune.cli.main  # noqa: F401  # registers what conf/ names, as ${noted:...}
from unitune.errors import Refused
from unitune.storage import names, records
from unitune.storage.records import Record

every = importlib.import_module("all")
BESIDE = {name: entry for name, entry in ENTRIES.items() if name not in CLAIMS}


def conf(sweep: str) -> dict:
    return yaml.safe_load((ROOT / f"conf/experiment/{sweep}.yaml").read_text())


def synthetic(claim: str) -> list[Record]:
    """What a finished sweep of two images leaves, with numbers that differ from cell to cell."""
    found = []
    for sweep in ENTRIES[claim].sweeps:
        planned = conf(sweep).get("plan", {}).get("starts", [0.9])
        for k, cell in enumerate(sweeps.cells(sweep)):
            starts = [float(cell["sampler.start"])] if "sampler.start" in cell else planned
            seeds = range(8 if claim == "best_of_n" else 1)
            for image, (kind, alike), seed, start in itertools.product(
                range(2), KINDS, seeds, starts
            ):
                level = 0.1 * k + 0.01 * image + 0.001 * seed
                scores = dict.fromkeys(SCORED, level) | {"both": 0.5, "appear": 0.5, "stay": 1.0}
                scores |= {"error_inside": 0.1 + level / 100, "base_error_inside": 0.2}
                if claim == "best_of_n":
                    scores["choosing"] = seed / 8
                found.append(
                    record(
                        f"{sweep}/{sweeps.label(cell)}", f"image-{image}", kind, alike,
                        cell.get("method", "unitune"), seed=seed, start=start, scores=scores,
                        weight=float(cell.get("sampler.guidance.weight", 6.0)),
                    )
                )  # fmt: skip
    for row, image, (kind, alike) in itertools.product(("copy", "target"), range(2), KINDS):
        found.append(record(f"{claim}/reference={row}", f"image-{image}", kind, alike, "", row=row))
    return found


def test_every_claim_has_sweeps_and_every_sweep_a_claim():
    named = {sweep for entry in ENTRIES.values() for sweep in entry.sweeps}
    files = (ROOT / "conf/experiment").glob("*.yaml")
    ours = {file.stem for file in files if "quick" in conf(file.stem).get("defaults", ())}
    assert ours == named
    sizes = {name: conf(name)["benchmark"]["limit"] for name in BESIDE}
    assert sizes == {name: entry.images for name, entry in BESIDE.items()}


@pytest.mark.parametrize("name", ENTRIES)
def test_headers_say_what_a_reader_needs(name):
    header = ENTRIES[name].header
    told = re.findall(r"^(Command|Claim|Expected|Minutes): +\S", header, re.MULTILINE)
    assert told == ["Command", "Claim", "Expected", "Minutes"]
    assert all(f"experiment={sweep}" in header for sweep in ENTRIES[name].sweeps)


def test_a_new_claim_is_an_entry():
    data = {
        "title": "T", "claim": "C", "expected": "E", "minutes": "1", "over": {"k": [1, 2]},
        "rows": {"row {k}": "a={k}"}, "scores": ["psnr"],
        "asked": {"row 2 is nearer": {"metric": "psnr", "of": "row 2", "over": ["row 1"]}},
    }  # fmt: skip
    made = entry("mine", data)
    assert made.rows == {"row 1": "a=1", "row 2": "a=2"} and made.sweeps == ("mine",)
    (claim,) = made.claims
    assert claim.number.terms == {"a=2": 1, "a=1": -1} and claim.about == "fidelity"
    with pytest.raises(TypeError, match="colour"):
        entry("mine", data | {"colour": "red"})


def test_the_new_claim_that_the_page_shows_is_a_sweep_and_its_entry():
    page = (HERE / "README.md").read_text()
    sweep, table = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S))
    ((name, data),) = table.items()
    ((setting, values),) = sweep["hydra"]["sweeper"]["params"].items()
    made = entry(name, data)
    assert f"conf/experiment/{name}.yaml" in page and sweep["defaults"] == ["quick"]
    assert list(made.rows.values()) == [f"{setting}={value}" for value in values.split(",")]
    assert [claim.about for claim in made.claims] == ["edit"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_cells_are_named_as_hydra_names_them(claim):
    for sweep in ENTRIES[claim].sweeps:
        overrides = [f"{key}={','.join(values)}" for key, values in sweeps.grid(sweep).items()]
        parsed = OverridesParser.create().parse_overrides(overrides)
        (cells,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        named = [sweeps.label(cell) for cell in sweeps.cells(sweep)]
        assert [",".join(sorted(cell)) for cell in cells] == named
        assert [names.file_name(name) for name in named] == named


def test_a_sweep_s_folder_is_the_one_that_is_looked_into():
    overrides = ["experiment=cost", "benchmark.limit=7", "snapshot=64", "sampler.steps=8"]
    overrides += ["launcher=local", "launcher.workers=2", "store.path=elsewhere"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = compose("config", overrides=overrides, return_hydra_config=True).hydra
    assert hydra.sweep.dir == str(sweeps.folder("cost", 7)) == "outputs/experiments/cost-7"
    assert hydra.sweep.subdir == sweeps.label({"snapshot": "64", "sampler.steps": "8"})


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_answer_from_records(claim, tmp_path, capsys):
    sweeps.keep(synthetic(claim), tmp_path / "records.jsonl")
    answer.main([claim, "--from-records", str(tmp_path / "records.jsonl")])
    said = capsys.readouterr().out
    assert said.startswith(f"## {ENTRIES[claim].title}") and "2 images" in said
    assert re.search(r"\| copy of the base( of these edits)? \|", said)
    assert said.count("**too few for a verdict**") == said.count("\n- ") >= 1
    assert "not asked" not in said


def test_claims_answer_from_the_committed_records(capsys):
    """Whichever are kept: records of another version are removed, and made again one by one."""
    for name in (name for name in ENTRIES if (HERE / f"records/{name}.jsonl").is_file()):
        answer.main([name, "--from-records"])
        assert capsys.readouterr().out.count("\n- ") >= 1, name


@pytest.mark.parametrize(("tunings", "said"), [(3, "too few for a verdict"), (24, "held")])
def test_prior_preservation_decides_nothing_from_a_few_tunings(tunings, said):
    preservation = importlib.import_module("prior_preservation")
    lines = [
        {"pres": pres, "div": 0.3 - gap, **dict.fromkeys(preservation.APART, gap)}
        for pres, gap in [(0.9, 0.2), (0.6, 0.1)] * tunings
    ]
    told = list(preservation.told(lines, {"pres": 0.5, "div": 0.3}))
    assert len(told) == 5
    assert all(line.endswith(f"in {tunings} of {tunings} tunings: {said}") for line in told)
    assert told[0].startswith(
        "pres: 0.9000 without, 0.6000 with, 0.5000 of the untouched model; "
        "nearer with the prior by 0.3"
    )


def test_the_comparison_of_six_images_needs_no_names_of_cells(tmp_path, capsys):
    """Its rows go by method and sampler: a plain sweep with cells 0-a-b is read as well."""
    others = [(name, name) for name in ("untuned", "dreambooth", "textual_inversion", "imagic")]
    rows = [("unitune", "unitune"), ("unitune", "late_start"), *others]
    made = [
        record("baselines/0-a-b", f"image-{k}", method=method, sampler=sampler)
        for method, sampler in rows
        for k in range(6)
    ]
    copy = "baselines/reference=copy"
    made += [record(copy, f"image-{k}", method="", row="copy") for k in range(6)]
    sweeps.keep(made, tmp_path / "records.jsonl")
    answer.main(["baselines", "--from-records", str(tmp_path / "records.jsonl")])
    said = capsys.readouterr().out
    assert said.count("**too few for a verdict**") == 4
    assert "6 images" in said and "not asked" not in said


def test_a_claim_is_asked_by_a_command(tmp_path):
    sweeps.keep(synthetic("guidance"), file := tmp_path / "records.jsonl")
    command = [sys.executable, "-m", "experiments.claims", "guidance", "--from-records", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and done.stdout.startswith("## Paper Fig. 4"), done.stderr


def test_a_sweep_that_was_not_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = (
        "guidance: no sweep in outputs/experiments/guidance-2; "
        "make it: python run.py -m experiment=guidance benchmark"
    )
    with pytest.raises(SystemExit, match=re.escape(said)):
        answer.main(["guidance"])


def test_all_runs_the_sweeps_then_asks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called, question = [], ["-m", "experiments.claims", "stages", "--images=2"]
    sweep = ["run.py", "-m", "experiment=stages", "benchmark.limit=2"]
    assert every.ask(ENTRIES["stages"], 2, lambda command: called.append(command) or 0) == []
    assert called == [sweep, question]
    failed = every.ask(ENTRIES["stages"], 2, lambda command: 1)
    assert failed == [" ".join(sweep), " ".join(question)], "a failure is told, the rest goes on"


def test_the_kept_records_are_told_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "RECORDS", tmp_path)
    (tmp_path / "cost.jsonl").touch()
    called, question = [], ["-m", "experiments.claims", "cost", "--from-records"]
    entries = [ENTRIES["stages"], ENTRIES["cost"]]
    failed = every.tell(entries, lambda command: called.append(command) or 1)
    assert failed == [" ".join(question)] and called == [question]
    said = capsys.readouterr().out
    assert said.startswith("# Claims") and "(1 of 2 claims)" in said
    command = "python run.py -m experiment=stages && python -m experiments.claims stages"
    assert f"\n- `stages`: `{command}`\n" in said


def test_without_any_records_that_is_said_and_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "RECORDS", tmp_path)
    assert every.tell([ENTRIES[name] for name in CLAIMS], lambda command: 1) == []
    assert capsys.readouterr().out.count("\n- `") == len(CLAIMS)


def test_the_page_of_claims_is_what_its_command_writes(capsys):
    every.tell([ENTRIES[name] for name in CLAIMS], lambda command: answer.main(command[2:]) or 0)
    assert capsys.readouterr().out == (ROOT / "docs/claims.md").read_text(encoding="utf-8")


def test_a_recipe_has_every_sweep_and_the_size():
    assert ENTRIES["methods"].recipe == (
        "python run.py -m experiment=methods && python run.py -m experiment=methods_late_start "
        "&& python -m experiments.claims methods"
    )
    assert ENTRIES["scenes_edits"].recipe == (
        "python run.py -m experiment=scenes_edits "
        "&& python -m experiments.claims scenes_edits --images 8"
    )


def test_full_size_takes_more_samples_where_the_claim_needs_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = []
    every.ask(ENTRIES["best_of_n"], every.FULL, lambda command: called.append(command) or 0)
    assert called[0][-1] == "seeds=64" and called[0][3] == "benchmark.limit=24"


def test_a_sweep_is_read_once_with_its_references(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("base", "cascade"):
        twice = of_image(0) + of_image(0)
        write(sweeps.folder("stages", 2) / f"stage={value}", twice)
    found = sweeps.swept("stages", 2)
    runs = [one.run for one in found]
    assert runs.count("stages/stage=base") == 3 and runs.count("stages/reference=target") == 3
    assert found[0].image == "stages-2/stage=base/a.png"
    sweeps.keep(found, tmp_path / "kept.jsonl")
    assert records.read(tmp_path / "kept.jsonl") == found
    with pytest.raises(Refused, match=r"no sweep in outputs/experiments/stages-3"):
        sweeps.swept("stages", 3)


def test_a_sweep_that_failed_leaves_the_others_to_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "RECORDS", tmp_path / "records")
    made = synthetic("tradeoff")
    for cell in sweeps.cells("tradeoff_weight"):
        name = sweeps.label(cell)
        own = [r for r in made if r.run == f"tradeoff_weight/{name}" or r.row != "edit"]
        write(sweeps.folder("tradeoff_weight", 2) / name, own)
    answer.main(["tradeoff"])
    said = capsys.readouterr().out
    assert "UniTune's front covers more than DreamBooth's: **too few" in said
    assert "more than Imagic's: **not asked** (no record has method=imagic" in said
    assert len(records.read(Path(tmp_path / "records/tradeoff.jsonl"))) == 36 * 6 + 2 * 6
