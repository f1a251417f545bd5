"""A run: tuning, samples, records, grids, curves and reference rows."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import small_run
import torch
from small_run import SIZE, Brightness, Curves, example, picture, run, setting, tuned

from unitune import images
from unitune.methods.untuned import Untuned
from unitune.models.cascade import Cascade, weights_digest
from unitune.report import tables
from unitune.runs import preflight
from unitune.runs.plans import Seeds
from unitune.runs.selection import Choice, Redraw
from unitune.storage import records
from unitune.types import Draw, Edit, Example, Refused, Request, Stopped


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Cascade:
    return small_run.cascade(tmp_path_factory.mktemp("experiment"))


def test_a_run_writes_pictures_scores_and_a_grid(model, tmp_store, tmp_path):
    curves = Curves()
    done = run(setting(model, tmp_store, logger=curves), [example()], tmp_path)
    assert records.read(tmp_path) == done
    edits, references = (
        [r for r in done if r.row in rows] for rows in (("edit",), records.REFERENCES)
    )
    assert [(r.prompt, r.seed, r.method, r.sampler, r.model, r.steps) for r in edits] == [
        (prompt, seed, "untuned", "quick", "tiny", 0)
        for prompt in ("a dog", "a cat in the snow")
        for seed in (0, 1)
    ]
    assert {(r.weight, r.start) for r in edits} == {(2.0, 0.8)}
    for record in done:
        saved = images.load(tmp_path / record.image, size=SIZE).image
        assert record.scores["brightness"] == pytest.approx(float(saved.mean()), abs=2 / 255)
    assert [(r.row, r.prompt) for r in references[3:]] == [
        (f"{row} through super-resolution", "a cat in the snow") for row in ("copy", "target")
    ]
    assert [(r.row, r.prompt, r.scores["brightness"]) for r in references[:3]] == [
        ("copy", "a dog", 0.5),
        ("copy", "a cat in the snow", 0.5),
        ("target", "a cat in the snow", -0.5),
    ]
    assert len({r.image for r in done}) == len(done) and (tmp_path / "grid.png").is_file()
    assert (
        edits[0].environment["batch"] == 4
        and edits[0].environment["dtype"] == "float32"
        and edits[0].environment["device"] == "cpu"
    )
    # per item: base 2 steps x 2 (guidance), super-resolution 2 steps x 1
    assert edits[0].cost["evaluations"] == 6 and edits[0].cost["optimizer_steps"] == 0
    assert curves.ended == "success"
    assert tables.overall(done)["copy of the base/brightness"] == 0.5


def test_tuning_is_shared_and_leaves_the_base_weights_alone(model, tmp_store, tmp_path):
    before = weights_digest(model.stage("base").network)
    curves = Curves()
    base = setting(model, tmp_store, method=tuned(), plan=Seeds(1))
    first = run(replace(base, logger=curves), [example()], tmp_path / "a")
    assert [step for line, step in curves.lines if "cat/base/loss" in line] == [1, 2, 3, 4]
    again = run(
        replace(base, sampler=replace(base.sampler, start=1.0)),
        [example("cat", Request("a bird"))],
        tmp_path / "b",
    )
    untouched = run(replace(base, snapshot=0), [example()], tmp_path / "c")
    middle = run(replace(base, snapshot=2), [example()], tmp_path / "d")
    assert (
        len(list(tmp_store.path.glob("tuned-*"))) == 1
        and weights_digest(model.stage("base").network) == before
    )
    assert [done[0].steps for done in (first, again, untouched, middle)] == [4, 4, 0, 2]
    assert (
        first[0].text == "beikkpic a dog"
        and first[0].cost["optimizer_steps"] == again[0].cost["optimizer_steps"] == 4
    )
    levels = {done[0].scores["brightness"] for done in (first, untouched, middle)}
    assert len(levels) == 3  # each state of the weights samples differently


def test_the_same_run_gives_the_same_bytes(model, tmp_store, tmp_path):
    for name in ("a", "b"):
        run(setting(model, tmp_store), [example()], tmp_path / name)
    pictures = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert len(pictures) == 4 + 3 + 2 + 1 and all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in pictures
    )


def test_several_examples_get_a_grid_each(model, tmp_store, tmp_path):
    done = run(setting(model, tmp_store, plan=Seeds(1)), [example("one"), example("two")], tmp_path)
    assert [r.example for r in done if r.row == "edit"] == ["one", "one", "two", "two"]
    assert sorted(path.name for path in tmp_path.glob("grid*.png")) == [
        "grid-000.png",
        "grid-001.png",
    ]


def test_a_picture_of_another_size_is_refused(model, tmp_store, tmp_path):
    wrong = replace(example(), image=torch.zeros(1, 3, 64, 64))
    with pytest.raises(Refused, match=r"read at 64 px.*model\.resolution=32"):
        run(setting(model, tmp_store), [wrong], tmp_path)
    assert not list(tmp_path.glob("*.*"))


@dataclass(frozen=True)
class Last:
    """A selection that takes the last sample of all, alone."""

    name: str = "last"

    def check(self, draws: Sequence[Draw]) -> None: ...

    def __call__(self, edits: Sequence[Edit], *, example: Example, redraw: Redraw) -> list[Choice]:
        return [Choice(edits[-1], edits[-1], edits)]


def test_means_of_chosen_samples_stand_apart_from_those_of_all(model, tmp_store, tmp_path):
    done = run(
        setting(model, tmp_store, selection=Last()),
        [example("cat", Request("a dog"))],
        tmp_path,
    )
    means = tables.overall(done)
    scores = [record.scores["brightness"] or 0.0 for record in done if record.row == "edit"]
    assert (
        means["untuned + quick/brightness"] == pytest.approx(sum(scores) / 2)
        and means["untuned + quick (selected)/brightness"] == scores[-1] != scores[0]
    )


def test_a_run_that_is_stopped_keeps_its_curves(model, tmp_store, tmp_path, monkeypatch):
    class Stops(Brightness):
        def __call__(self, edits: list[Edit]) -> list[float]:
            raise Stopped(15)

    curves = Curves()
    with pytest.raises(Stopped):
        run(
            setting(model, tmp_store, metrics=[Stops()], method=tuned(), logger=curves),
            [example()],
            tmp_path,
        )
    assert curves.ended == "failed" and any(
        "loss" in name for line, _ in curves.lines for name in line
    )
    monkeypatch.setattr(Curves, "finalize", lambda self, status: 1 / 0)
    with pytest.raises(Stopped):  # a logger that cannot end does not hide what stopped the run
        run(
            setting(model, tmp_store, metrics=[Stops()], logger=Curves()),
            [example()],
            tmp_path / "again",
        )


def test_a_real_logger_takes_the_curves(model, tmp_store, tmp_path):
    from pytorch_lightning.loggers import CSVLogger

    logger = CSVLogger(str(tmp_path), name="", version="curves")
    run(setting(model, tmp_store, method=tuned(), logger=logger), [example()], tmp_path)
    with Path(tmp_path / "curves/metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines if line["cat/base/loss"]] == ["1", "2", "3", "4"]


def test_draws_are_what_the_sampler_gets(model, tmp_store, tmp_path):
    class One:
        def draws(self, example: Example, seed: int) -> list[Draw]:
            return [Draw(example.requests[1], 5, weight=3.0, start=0.9)]

        def layout(self, edits):
            return {"row": {"column": edits[0]}}

    (record, *_) = run(setting(model, tmp_store, plan=One()), [example()], tmp_path)
    assert (record.prompt, record.seed, record.weight, record.start) == (
        "a cat in the snow",
        5,
        3.0,
        0.9,
    )


def test_the_oracle_has_untouched_weights_and_seeds_of_its_own_run(model, tmp_store, tmp_path):
    base = setting(model, tmp_store, plan=Seeds(1), oracle=2)
    plain, tuning = (
        run(base, [example()], tmp_path / "a"),
        run(replace(base, method=tuned()), [example()], tmp_path / "b"),
    )
    for row in ("oracle", "copy through super-resolution", "target through super-resolution"):
        ours, theirs = (
            [(tmp_path / folder / r.image).read_bytes() for r in done if r.row == row]
            for folder, done in (("a", plain), ("b", tuning))
        )
        assert ours == theirs and len(ours) == (2 if row == "oracle" else 1)
    edits = [
        [(tmp_path / folder / r.image).read_bytes() for r in done if r.row == "edit"]
        for folder, done in (("a", plain), ("b", tuning))
    ]
    assert edits[0] != edits[1]
    assert [r.seed for r in plain if r.row == "oracle"] == [0, 1]
    other = run(replace(base, seed=1), [example()], tmp_path / "c")
    assert [r.seed for r in other if r.row == "oracle"] == [2, 3]
    none = run(replace(base, oracle=0), [example()], tmp_path / "d")
    assert not [r for r in none if r.row == "oracle"] and [
        r for r in none if r.row == "target through super-resolution"
    ]


def test_the_room_for_pictures_counts_every_reference(model, tmp_store, tmp_path, monkeypatch):
    needs: list[dict] = []
    monkeypatch.setattr("unitune.storage.disk.check_space", needs.append)
    one = example("cat", Request("a cat in the snow", target=picture(-0.5)))
    sampler, store = setting(model, tmp_store).sampler, tmp_path / "s"
    preflight.check(
        preflight.Inputs(
            Untuned(), sampler, Seeds(1), [one], folder=tmp_path, store=store, oracle=3
        )
    )
    made = {
        record.image
        for record in run(
            setting(model, tmp_store, plan=Seeds(1), oracle=3), [one], tmp_path / "run"
        )
    }
    assert (
        len(made) == 1 + 2 + 2 + 3 and needs[0][tmp_path][1] >= 2 * len(made) * one.image.numel()
    ), "the grid is as large as all pictures"
