"""Sweeps as a person meets them: the same command runs only what is missing."""

import json
from pathlib import Path

import pytest
import yaml
from hostile import SMALL

from unitune.errors import Stopped
from unitune.models import tiny
from unitune.runs import experiment

QUICK = [one for one in SMALL if not one.startswith(("method.", "steps="))]
QUICK = ["method=untuned", "oracle=0", *QUICK]
COMMAND = [*QUICK, "edit=a dog"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return f"model.path={tiny.floyd(tmp_path_factory.mktemp('sweep') / 'tiny')}"


@pytest.fixture
def ran(monkeypatch) -> list[Path]:
    """The cells that were run, in order."""
    real, found = experiment.run, []

    def run(setting, examples, *, folder):
        found.append(folder)
        return real(setting, examples, folder=folder)

    monkeypatch.setattr(experiment, "run", run)
    return found


def results(here: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(here.rglob("scores.jsonl"))}


def test_the_same_command_runs_only_what_is_missing(typed, here, model, ran, monkeypatch):
    command = (model, "-m", *COMMAND, "sampler=cfg,sdedit", "sampler.guidance.weight=1.0,2.0")
    real = experiment.note

    def note(folder, done):  # the process ends before its third result
        if len(ran) == 3:
            raise Stopped(15)
        real(folder, done)

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "note", note)
        answer = typed(*command)
    assert answer.code == 143 and "2 of 4 cells are kept in outputs/sweeps/" in answer.err
    kept = results(here)
    assert len(kept) == 2 and len(ran) == 3

    answer = typed(*command)
    assert answer.code == 0, answer.err
    assert len(ran) == 5 and "sweep: 2 of 4 cells are done already" in answer.err
    assert {name: results(here)[name] for name in kept} == kept and len(results(here)) == 4
    (table,) = here.rglob("comparison.md")
    before = table.read_text()

    assert typed(*command).code == 0 and len(ran) == 5
    untimed = [line for line in before.splitlines() if "took" not in line]
    assert [line for line in table.read_text().splitlines() if "took" not in line] == untimed
    (folder,) = here.glob("outputs/sweeps/*")
    listed = yaml.safe_load((folder / "sweep.yaml").read_text())
    assert sorted(listed["cells"]) == sorted(path.name for path in folder.glob("*/"))
    assert all("weight=" in name and "sampler=" in name for name in listed["cells"])


def test_a_failed_cell_runs_again_and_its_reason_goes(typed, here, model, ran, monkeypatch):
    command = (model, "-m", *COMMAND, "sampler.guidance.weight=1.0,2.0", "sweep=mine")
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "finish", lambda folder: 1 / 0)
        answer = typed(*command)
    assert answer.code == 1 and "2 runs of the sweep failed" in answer.err
    (first, second) = sorted((here / "outputs/sweeps/mine").glob("*/failed.json"))
    assert json.loads(first.read_text()) == {"said": "division by zero", "refused": False}
    answer = typed(*command)
    assert answer.code == 0, answer.err
    assert not first.exists() and not second.exists()
    # What each image had recorded was kept: nothing was sampled again.
    assert "cat-city-0 is here already" in answer.err


def test_more_values_may_come_and_other_settings_may_not(typed, here, model, ran):
    command = (model, "-m", *COMMAND, "sweep=mine")
    answer = typed(*command, "sampler.guidance.weight=1.0,2.0")
    assert answer.code == 0, answer.err
    assert typed(*command, "sampler.guidance.weight=1.0,2.0,3.0").code == 0
    assert len(ran) == 3
    kept = results(here)
    answer = typed(*command, "sampler.guidance.weight=1.0,2.0", "seed=5")
    assert answer.code == 2 and "sweep of other settings (seed: 0 there, 5 here)" in answer.err
    assert results(here) == kept and len(ran) == 3


def test_a_run_in_its_own_folder_is_shown_again_and_in_another_s_refused(typed, here, model, ran):
    command = (model, *COMMAND, "hydra.run.dir=mine")
    first = typed(*command)
    assert first.code == 0, first.err
    kept = {file: file.read_bytes() for file in (here / "mine").iterdir() if file.is_file()}
    again = typed(*command)
    assert again.code == 0 and "nothing is done again" in again.err and len(ran) == 1
    assert again.out == first.out
    other = typed(*command, "seeds=2")
    assert other.code == 2 and "seeds: 1 there, 2 here" in other.err
    assert {file: file.read_bytes() for file in kept} == kept and len(ran) == 1


def test_an_interrupted_run_keeps_whole_images_and_goes_on(typed, here, model, ran, monkeypatch):
    command = (
        model, *QUICK, "hydra.run.dir=mine", "benchmark=scenes", "benchmark.limit=2",
    )  # fmt: skip
    real = experiment.note

    def note(folder, done):
        real(folder, done)
        raise Stopped(15)

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "note", note)
        answer = typed(*command)
    assert answer.code == 143 and not (here / "mine/scores.jsonl").exists()
    assert (here / "mine/scores.unfinished.jsonl").exists()
    answer = typed(*command)
    assert answer.code == 0, answer.err
    assert answer.err.count("is here already") == 1
    lines = [json.loads(line) for line in (here / "mine/scores.jsonl").read_text().splitlines()]
    edits = [(line["example"], line["prompt"], line["seed"], line["row"]) for line in lines]
    assert len({*edits}) == len(edits) and len({line["example"] for line in lines}) == 2


@pytest.mark.parametrize("setting", ["launcher=local", "sweep=mine"])
def test_settings_of_a_sweep_without_one_are_refused(refused, model, setting):
    assert "add -m" in refused(model, *COMMAND, setting)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["seed=range(3,3)"], "this sweep has no cell"),
        (["seed=1,2", "hydra.sweep.subdir=one"], "two cells of this sweep would share the folder"),
        (["seed=1,2", "sweep=.."], "sweep=.. is no name"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(typed, here, model, more, said):
    answer = typed(model, "-m", *COMMAND, *more)
    assert answer.code == 2 and said in answer.err, answer.err
    assert "one" in more[-1] or not list(here.rglob("*"))  # the first of two runs


def test_another_store_makes_no_other_cells(typed, here, model, ran):
    command = (model, "-m", *COMMAND, "sampler.guidance.weight=1.0,2.0", "sweep=./mine")
    assert typed(*command).code == 0 and (here / "mine/sweep.yaml").is_file()
    assert typed(*command, "store.path=other").code == 0
    assert len(ran) == 2 == len(list(here.glob("mine/*/")))


def test_cells_that_are_refused_leave_nothing(typed, here, model):
    answer = typed(model, "-m", *COMMAND, "seeds=0,-2")
    assert answer.code == 2 and "2 runs of the sweep failed" in answer.err
    assert not list(here.rglob("config.yaml")), list(here.rglob("*"))
