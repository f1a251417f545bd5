"""Tuning one stage: frozen is frozen, interruption changes nothing, failure stores nothing."""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unitune.models import cascade as backend
from unitune.models.cascade import weights_digest
from unitune.models.stage import UNetStage
from unitune.tuning import finetune
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import checkpoint_file, curve_file, fit, keep, snapshot_file
from unitune.tuning.interrupt import Signals
from unitune.tuning.optimizers import Adafactor, AdamW
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Diverged, Example, Refused, Request, Stopped

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
Tensors = dict[str, torch.Tensor]


@pytest.fixture(params=["base", "sr256"])
def stage(request: pytest.FixtureRequest, cascade: backend.Cascade) -> UNetStage:
    return cascade.stage(request.param)


def data(cascade: backend.Cascade, stage: UNetStage, tuning: Tuning, *, seed: int = 0) -> OneImage:
    return OneImage(stage, EXAMPLE, cascade.encode(["beikkpic"]), seed, tuning)


def tune(
    cascade: backend.Cascade, stage: UNetStage, tuning: Tuning, folder: Path, *, seed: int = 0
) -> Tensors:
    folder.mkdir(exist_ok=True)
    fit(data(cascade, stage, tuning, seed=seed), folder=folder)
    return load_file(snapshot_file(folder, stage.name, tuning.steps))


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclass(frozen=True)
class Counting:
    """AdamW that counts its steps."""

    stepped: list[int] = field(default_factory=list)

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
        optimizer = AdamW().build(parameters, lr=lr)
        optimizer.register_step_post_hook(lambda *_: self.stepped.append(1))
        return optimizer


def test_every_step_is_one_optimizer_step_of_the_whole_batch(
    cascade: backend.Cascade, stage: UNetStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows: list[tuple[int, int, int]] = []
    output, counting = stage.output, Counting()

    def counted(x_t, t, condition):
        rows.append((len(x_t), len(t), len(condition.text)))
        return output(x_t, t, condition)

    monkeypatch.setattr(stage, "output", counted)
    tune(cascade, stage, Tuning(lr=1e-3, steps=5, optimizer=counting), tmp_path)
    assert rows == [(4, 4, 4)] * 5 and len(counting.stepped) == 5


@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor()])
def test_selected_tensors_change_and_all_else_stays_bitwise(
    cascade: backend.Cascade,
    stage: UNetStage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer,
):
    selection = ParameterSelection(freeze=("down_blocks.*", "*norm*"))
    before = {name: p.detach().clone() for name, p in stage.network.named_parameters()}
    during: list[Tensors] = []
    write = finetune.write_whole
    monkeypatch.setattr(
        finetune,
        "write_whole",
        lambda *to: (
            during.append({n: p.detach().clone() for n, p in stage.network.named_parameters()})
            or write(*to)
        ),
    )
    tuned = tune(
        cascade, stage, Tuning(lr=1e-2, steps=3, select=selection, optimizer=optimizer), tmp_path
    )
    frozen = {name for name in before if name.startswith("down_blocks.") or "norm" in name}
    assert 10 < len(frozen) < len(before) and set(tuned) == set(before) - frozen
    assert [name for name in tuned if torch.equal(tuned[name], before[name])] == []
    assert [name for name in frozen if not torch.equal(during[-1][name], before[name])] == []
    assert all(torch.equal(during[-1][name], tuned[name]) for name in tuned)


def test_the_network_ends_as_it_began(cascade: backend.Cascade, stage: UNetStage, tmp_path: Path):
    before, text = weights_digest(stage.network), cascade.encoder(["beikkpic"])
    tune(cascade, stage, Tuning(lr=1e-2, steps=2), tmp_path)
    assert weights_digest(stage.network) == before and torch.equal(
        cascade.encoder(["beikkpic"]), text
    )
    assert not stage.network.training
    assert not any(p.requires_grad or p.grad is not None for p in stage.network.parameters())


def test_the_network_ends_as_it_began_also_on_error(
    cascade: backend.Cascade, stage: UNetStage, tmp_path: Path
):
    before = weights_digest(stage.network)

    def fail(stage: str, step: int, steps: int, loss: float) -> None:
        if step == 2:
            raise KeyError("stop here")

    with pytest.raises(KeyError):
        fit(data(cascade, stage, Tuning(lr=1e-2, steps=4)), folder=tmp_path, report=fail)
    assert weights_digest(stage.network) == before
    assert not any(p.requires_grad or p.grad is not None for p in stage.network.parameters())


def test_snapshots_equal_shorter_runs_bitwise(cascade: backend.Cascade, tmp_path: Path):
    base = cascade.stages[0]
    tune(cascade, base, Tuning(lr=1e-2, steps=6, snapshots=(2, 4, 9)), tmp_path / "long")
    assert sorted(p.name for p in (tmp_path / "long").glob("*.safetensors")) == [
        "base-2.safetensors",
        "base-4.safetensors",
        "base-6.safetensors",
    ]
    short = [
        tune(cascade, base, Tuning(lr=1e-2, steps=steps, snapshots=()), tmp_path / str(steps))
        for steps in (2, 4)
    ]
    for steps, weights in zip((2, 4), short, strict=True):
        assert same(load_file(snapshot_file(tmp_path / "long", "base", steps)), weights)
    assert not same(*short)


def test_the_seed_decides(cascade: backend.Cascade, tmp_path: Path):
    base, tuning = cascade.stages[0], Tuning(lr=1e-2, steps=2)
    first, again, other = (
        tune(cascade, base, tuning, tmp_path / str(i), seed=seed)
        for i, seed in enumerate((0, 0, 1))
    )
    assert same(first, again) and not same(first, other)


def interrupting(at: int, number: int = signal.SIGTERM):
    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if step == at:
            os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor()])
def test_interrupted_at_every_step_and_resumed_is_as_undisturbed(
    cascade: backend.Cascade, tmp_path: Path, optimizer
):
    base, steps = cascade.stages[0], 4
    before, handler = weights_digest(base.network), signal.getsignal(signal.SIGTERM)
    tuning = Tuning(lr=1e-2, steps=steps, snapshots=(2,), optimizer=optimizer)
    undisturbed = tune(cascade, base, tuning, tmp_path / "whole")
    folder = tmp_path / "often"
    folder.mkdir()
    for at in range(1, steps):
        with pytest.raises(Stopped) as stopped:
            fit(data(cascade, base, tuning), folder=folder, report=interrupting(at))
        assert stopped.value.signal == 15 and checkpoint_file(folder, "base").exists()
        assert (
            weights_digest(base.network) == before and signal.getsignal(signal.SIGTERM) == handler
        )
        assert not snapshot_file(folder, "base", steps).exists()
    steps_done: list[int] = []
    fit(
        data(cascade, base, tuning),
        folder=folder,
        report=lambda stage, step, steps, loss: steps_done.append(step),
    )
    assert steps_done == [steps]  # what was done is not done again
    assert same(load_file(snapshot_file(folder, "base", steps)), undisturbed)
    assert same(
        load_file(snapshot_file(folder, "base", 2)),
        load_file(snapshot_file(tmp_path / "whole", "base", 2)),
    )
    parts, whole = (
        json.loads(curve_file(where, "base").read_text()) for where in (folder, tmp_path / "whole")
    )
    assert (
        (parts["losses"], parts["evaluations"]) == (whole["losses"], whole["evaluations"])
        and len(parts["losses"]) == steps
        and parts["evaluations"] == 16
    )
    assert not checkpoint_file(folder, "base").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_stop_too(cascade: backend.Cascade, tmp_path: Path, number: int):
    with pytest.raises(Stopped) as stopped:
        fit(
            data(cascade, cascade.stages[0], Tuning(lr=1e-2, steps=3)),
            folder=tmp_path,
            report=interrupting(1, number),
        )
    assert stopped.value.signal == number


@dataclass(frozen=True)
class Interrupting(AdamW):
    """An interrupt while the trainer still prepares, which it would answer with exit code 1."""

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
        os.kill(os.getpid(), signal.SIGINT)
        return super().build(parameters, lr=lr)


def test_interrupted_while_the_trainer_prepares(cascade: backend.Cascade, tmp_path: Path):
    with pytest.raises(Stopped) as stopped:
        fit(
            data(cascade, cascade.stages[0], Tuning(lr=1e-2, steps=3, optimizer=Interrupting())),
            folder=tmp_path,
        )
    assert stopped.value.signal == signal.SIGINT and checkpoint_file(tmp_path, "base").exists()


def test_what_an_interrupted_tuning_took_is_all_of_its_parts(
    cascade: backend.Cascade, tmp_path: Path
):
    base, tuning = cascade.stages[0], Tuning(lr=1e-2, steps=3)
    with pytest.raises(Stopped):
        fit(data(cascade, base, tuning), folder=tmp_path, report=interrupting(2))
    checkpoint = torch.load(checkpoint_file(tmp_path, "base"), weights_only=True)
    first = checkpoint["curve"]["seconds"]
    torch.save(
        checkpoint | {"curve": checkpoint["curve"] | {"seconds": first + 1000, "peak_mib": 1e9}},
        checkpoint_file(tmp_path, "base"),
    )
    fit(data(cascade, base, tuning), folder=tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    cost = keep(data(cascade, base, tuning), scratch=tmp_path, folder=kept, base=None)
    assert first > 0 and 1000 + first < cost.seconds < 1100 + first and cost.peak_mib == 1e9
    assert (cost.optimizer_steps, cost.network_evaluations) == (
        3,
        12,
    ) and cost.stored_bytes > snapshot_file(kept, "base", 3).stat().st_size


def test_stopped_at_the_last_step_needs_no_step_more(cascade: backend.Cascade, tmp_path: Path):
    base, tuning = cascade.stages[0], Tuning(lr=1e-2, steps=2)
    with pytest.raises(Stopped):
        fit(data(cascade, base, tuning), folder=tmp_path, report=interrupting(2))
    told: list[int] = []
    fit(
        data(cascade, base, tuning),
        folder=tmp_path,
        report=lambda stage, step, steps, loss: told.append(step),
    )
    assert told == [] and snapshot_file(tmp_path, "base", 2).exists()


def test_a_signal_after_the_last_step_stops_too(
    cascade: backend.Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    restore = Signals.restore
    monkeypatch.setattr(
        Signals, "restore", lambda self: os.kill(os.getpid(), signal.SIGTERM) or restore(self)
    )
    with pytest.raises(Stopped) as stopped:
        fit(data(cascade, cascade.stages[0], Tuning(lr=1e-2, steps=1)), folder=tmp_path)
    assert stopped.value.signal == signal.SIGTERM and snapshot_file(tmp_path, "base", 1).exists()


def test_signals_are_given_back(cascade: backend.Cascade, tmp_path: Path):
    """Lightning's own handler, which swallows SIGTERM, must not stay behind either."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(n) for n in numbers]
    tune(cascade, cascade.stages[0], Tuning(lr=1e-2, steps=1), tmp_path)
    assert [signal.getsignal(n) for n in numbers] == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 2])
def test_a_loss_that_is_not_finite_stores_nothing(
    cascade: backend.Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, at: int
):
    base = cascade.stages[0]
    before, output, calls = weights_digest(base.network), base.output, iter(range(99))
    monkeypatch.setattr(
        base, "output", lambda *inputs: output(*inputs) * (bad if next(calls) == at else 1.0)
    )
    with pytest.raises(Diverged, match="smaller lr"):
        fit(data(cascade, base, Tuning(lr=1e-2, steps=4, snapshots=())), folder=tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == [] and weights_digest(base.network) == before


def test_weights_that_are_not_finite_are_not_stored(cascade: backend.Cascade, tmp_path: Path):
    """The last step's loss may be finite when the step itself was not."""
    with pytest.raises(Diverged, match="smaller lr"):
        fit(data(cascade, cascade.stages[0], Tuning(lr=3e38, steps=1)), folder=tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_no_steps_tune_nothing(cascade: backend.Cascade, tmp_path: Path):
    fit(data(cascade, cascade.stages[0], Tuning(lr=1e-2, steps=0)), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": -1e-4}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"steps": -1}, "steps"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str):
    with pytest.raises(Refused, match=message):
        Tuning(**({"lr": 1e-4} | wrong))


def test_tuning_lowers_the_loss_of_its_image(cascade: backend.Cascade, tmp_path: Path):
    base, batches = cascade.stages[0], data(cascade, cascade.stages[0], Tuning(lr=1.0), seed=1)

    @torch.no_grad()
    def loss() -> float:
        rows = [batches.batch(k) for k in range(8)]
        return sum(
            float((base.output(b.x_t, b.t, b.condition) - b.target).square().mean()) for b in rows
        ) / len(rows)

    before, tuned = loss(), tune(cascade, base, Tuning(lr=3e-3, steps=16), tmp_path)
    with base.using(tuned):
        assert loss() < 0.8 * before
