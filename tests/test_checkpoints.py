"""A tuning that is killed, at whatever moment, goes on where it was and ends as undisturbed."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unitune.models import cascade as backend
from unitune.tuning import finetune, interrupt
from unitune.tuning.adapters import Lora
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import checkpoint_file, fit, keep, snapshot_file
from unitune.tuning.interrupt import WholeCheckpoints
from unitune.tuning.optimizers import Adafactor
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Request

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TUNING = Tuning(lr=1e-2, steps=4, batch_size=2)


class Killed(BaseException):
    """The process ends here."""


def data(cascade: backend.Cascade, tuning: Tuning) -> OneImage:
    return OneImage(cascade.stages[0], EXAMPLE, cascade.encode(["beikkpic"]), 0, tuning)


def weights(folder: Path, step: int = TUNING.steps) -> dict[str, torch.Tensor]:
    return load_file(snapshot_file(folder, "base", step))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "whole", tmp_path / "killed"
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.parametrize(
    "tuning",
    [TUNING, replace(TUNING, optimizer=Adafactor()), replace(TUNING, adapter=Lora())],
    ids=["adamw", "adafactor", "lora"],
)
def test_killed_between_snapshots_and_resumed_is_bitwise_as_undisturbed(
    cascade, folders, monkeypatch, tuning
):
    whole, killed = folders
    fit(data(cascade, tuning), folder=whole)
    monkeypatch.setattr(finetune, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(finetune, "CHECKPOINT_SHARE", 1e9)

    def kill(stage: str, step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(data(cascade, tuning), folder=killed, report=kill)
    told: list[int] = []
    fit(data(cascade, tuning), folder=killed, report=lambda *now: told.append(now[1]))
    assert told == [3, 4] and same(weights(killed), weights(whole))
    assert not checkpoint_file(killed, "base").exists()


@pytest.mark.parametrize(
    ("seconds", "share", "count"),
    [(0.0, 1e9, 3), (1e9, 1e9, 0), (0.0, 1e-9, 1)],
    ids=["always due", "never due", "the first took long"],
)
def test_how_often_a_checkpoint_is_written(cascade, tmp_path, monkeypatch, seconds, share, count):
    """Not after the last step, whose weights are kept themselves."""
    saved: list[float] = []
    save = WholeCheckpoints.save_checkpoint

    def counted(*arguments: Any, **more: Any) -> None:
        saved.append(time.monotonic())
        save(*arguments, **more)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", counted)
    monkeypatch.setattr(finetune, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(finetune, "CHECKPOINT_SHARE", share)
    fit(data(cascade, TUNING), folder=tmp_path)
    assert len(saved) == count


@pytest.fixture(scope="module")
def snapshots(cascade: backend.Cascade, tmp_path_factory) -> dict[int, dict[str, torch.Tensor]]:
    """The weights after two steps and after the last, of a tuning that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(data(cascade, replace(TUNING, snapshots=(2,))), folder=folder)
    return {step: weights(folder, step) for step in (2, 4)}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_at_any_write_no_snapshot_is_missing(cascade, tmp_path, monkeypatch, snapshots, at):
    """Of a kept step there are the curve, the weights and, before the last, a checkpoint."""
    tuning, writes, write = replace(TUNING, snapshots=(2,)), iter(range(99)), finetune.write_whole

    def fails(*arguments: Any) -> None:
        if next(writes) == at:
            raise Killed
        write(*arguments)

    with monkeypatch.context() as patched:
        for module in (finetune, interrupt):
            patched.setattr(module, "write_whole", fails)
        with pytest.raises(Killed):
            fit(data(cascade, tuning), folder=tmp_path)
    fit(data(cascade, tuning), folder=tmp_path)
    assert all(same(weights(tmp_path, step), kept) for step, kept in snapshots.items())
    entry = tmp_path / "entry"
    entry.mkdir()
    keep(data(cascade, tuning), scratch=tmp_path, folder=entry, base=None)
    kept = sorted(file.name for file in entry.glob("*.safetensors"))
    assert kept == ["base-2.safetensors", "base-4.safetensors"]
