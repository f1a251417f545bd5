"""Fine-tune one stage on one image: a Lightning module with the model's ordinary denoising loss and nothing else."""

import itertools
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import save
from torch import Tensor, nn

from unitune.diffusion.loss import OF_THE_MODEL, check_dials
from unitune.storage.cost import peak_memory_mib
from unitune.tuning.adapters import Adapter, Full
from unitune.tuning.data import UNIFORM, Batches, NoiseDials, check_level
from unitune.tuning.interrupt import StopOnSignal, WholeCheckpoints, write_whole
from unitune.tuning.optimizers import AdamW, OptimizerRecipe
from unitune.tuning.select import ParameterSelection
from unitune.types import Cost, Diverged, Refused, Stopped, number, whole

log = logging.getLogger(__name__)
StepDone = Callable[[str, int, int, float], None]  # (stage, steps done, steps, loss)


@dataclass(frozen=True)
class Tuning:
    """How a stage is tuned; all of it is part of the stored result's key. The paper: 128 steps x batch 4, Adafactor, lr 1e-4 (Imagen's scale)."""

    lr: float
    steps: int = 128
    batch_size: int = 4
    optimizer: OptimizerRecipe = field(default_factory=AdamW)
    select: ParameterSelection = field(default_factory=ParameterSelection)
    adapter: Adapter = field(default_factory=Full)
    crop: int = 0  # px; super-resolution stages only, 0 = the whole picture
    low_level: float | str = (
        UNIFORM  # of the noise on the low-resolution picture; super-resolution stages only
    )
    weighting: str = OF_THE_MODEL  # of errors over the noise levels: that of the stage's own loss, or another one
    levels: Sequence[float] = (0.0, 1.0)  # cosine time between which noise levels are drawn
    strata: int = 1  # equal parts of that range, which the rows of a batch take in turn: it divides batch_size; 1: independent draws
    snapshots: Sequence[int] = (
        16,
        32,
        64,
        128,
    )  # steps whose weights are kept beside the last one's

    def __post_init__(self) -> None:
        if not (number(self.lr) and self.lr > 0):
            raise Refused(f"lr must be above 0 and finite, got {self.lr}")
        if not (whole(self.steps) and self.steps >= 0):
            raise Refused(f"steps must be 0 (no tuning) or more whole steps, got {self.steps}")
        if not (whole(self.batch_size) and self.batch_size >= 1):
            raise Refused(f"batch_size must be a whole number of at least 1, got {self.batch_size}")
        if not (whole(self.crop) and self.crop >= 0):
            raise Refused(
                f"crop must be 0 (the whole picture) or a whole number of px, got {self.crop}"
            )
        check_level(self.low_level)
        check_dials(self.weighting, self.levels, self.strata)
        if self.batch_size % self.strata:
            raise Refused(
                f"batch_size must be a multiple of strata, whose parts the rows take in turn, got {self.batch_size} and strata {self.strata}"
            )
        if bad := [step for step in self.snapshots if not whole(step)]:
            raise Refused(f"snapshots must be whole numbers of steps, got {bad[0]!r}")

    @property
    def dials(self) -> NoiseDials:
        """What of it decides the batches."""
        low, high = map(float, self.levels)
        return NoiseDials(self.crop, self.low_level, self.weighting, (low, high), self.strata)

    @property
    def kept(self) -> list[int]:
        """Steps whose weights are stored."""
        return sorted({s for s in self.snapshots if 0 < s < self.steps} | {self.steps})

    def check_kept(self, name: str, at: int | None) -> None:
        """Refuse a snapshot that will not be there; None is the last one, and 0 what was before."""
        if at is not None and at not in (there := sorted({0, *self.kept})):
            raise Refused(
                f"no snapshot of {name} at {at} steps; there are {', '.join(map(str, there))}: change snapshot= or snapshots="
            )


class FineTune(pl.LightningModule):
    """The loss is the stage's own: its own prediction, weighed over noise levels as its folder says. The module's state is what is tuned."""

    def __init__(self, data: Batches, tuning: Tuning, tuned: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.data, self.tuning, self.tuned = data, tuning, dict(tuned)
        self.state = nn.ParameterList(tuned.values())
        self.losses: list[float] = []
        self.evaluations, self.seconds, self.peak = (
            0,
            0.0,
            0.0,
        )  # of the parts of an interrupted tuning before this one
        self.began = time.monotonic()

    @property
    def curve(self) -> dict[str, Any]:
        """The loss of every step so far, and what these steps took, over all parts of an interrupted tuning."""
        seconds, peak = (
            self.seconds + time.monotonic() - self.began,
            max(self.peak, peak_memory_mib()),
        )
        return {
            "losses": self.losses,
            "evaluations": self.evaluations,
            "seconds": seconds,
            "peak_mib": peak,
        }

    def training_step(self, *_: Any) -> Tensor:
        """One step; the batch is made here because its noise is named by the step, which makes a resumed run exact."""
        batch = self.data.batch(self.global_step)
        loss = batch.loss(self.data.stage.output(batch.x_t, batch.t, batch.condition))
        value = float(loss.detach())
        if value != value or value == float("inf"):
            raise Diverged(
                f"the loss of {self.data.stage.name} is {value} at step {self.global_step} (lr {self.tuning.lr:g}); use a smaller lr"
            )
        self.losses.append(value)
        self.evaluations += len(batch)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Constant lr, no clipping, no schedule: the paper reports none."""
        return self.tuning.optimizer.build(self.tuned.values(), lr=self.tuning.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve."""
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve back."""
        self.losses, self.evaluations, self.seconds, self.peak = (
            checkpoint["curve"][name] for name in ("losses", "evaluations", "seconds", "peak_mib")
        )


class Snapshots(pl.Callback):
    """Write the tuned tensors after the steps to keep, and a checkpoint to resume from."""

    def __init__(self, folder: Path, report: StepDone | None) -> None:
        self.folder, self.report = folder, report

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: FineTune, *_: Any) -> None:  # type: ignore[override]
        """Act on a step boundary."""
        step, tuning, name = trainer.global_step, pl_module.tuning, pl_module.data.stage.name
        if self.report is not None:
            self.report(name, step, tuning.steps, pl_module.losses[-1])
        if step in tuning.kept:
            tensors = {n: p.detach().float().cpu().contiguous() for n, p in pl_module.tuned.items()}
            if bad := next(
                (n for n, tensor in tensors.items() if not bool(tensor.isfinite().all())), None
            ):
                raise Diverged(
                    f"tuning made {bad} of {name} not finite by step {step} (lr {tuning.lr:g}); use a smaller lr"
                )
            if step < tuning.steps:
                trainer.save_checkpoint(checkpoint_file(self.folder, name))
            write_whole(json.dumps(pl_module.curve).encode(), curve_file(self.folder, name))
            write_whole(save(tensors), snapshot_file(self.folder, name, step))


def snapshot_file(folder: Path, stage: str, step: int) -> Path:
    """Name the file of a stage's tuned tensors after `step` steps."""
    return folder / f"{stage}-{step}.safetensors"


def curve_file(folder: Path, stage: str) -> Path:
    """Name the file of a stage's losses and of what its steps took."""
    return folder / f"{stage}-curve.json"


def checkpoint_file(folder: Path, stage: str) -> Path:
    """Name the file that an interrupted tuning resumes from."""
    return folder / f"{stage}.ckpt"


def fit(
    data: Batches,
    tuning: Tuning,
    *,
    folder: Path,
    tuned: Mapping[str, nn.Parameter] | None = None,
    report: StepDone | None = None,
) -> None:
    """Tune parameters by data.stage's loss and leave their snapshots and curve in `folder`; they end as they began, also on error.

    `tuned` by name; None: what tuning.adapter makes of those that tuning.select chooses. Resumes from the checkpoint that an interrupted call left in `folder`.
    Raises Diverged on a loss that is not finite, Stopped after a signal.
    """
    stage = data.stage
    if tuning.steps == 0 or snapshot_file(folder, stage.name, tuning.steps).exists():
        return
    with (
        tuning.adapter.attached(stage.network, tuning.select)
        if tuned is None
        else nullcontext(tuned) as parameters
    ):
        what = stage.name if tuned is None else " and ".join(tuned)
        _fit(FineTune(data, tuning, parameters), what, folder=folder, report=report)


def keep(data: Batches, tuning: Tuning, *, scratch: Path, folder: Path) -> Cost:
    """Copy what `fit` left in `scratch` into `folder`; return what it took."""
    for file in [*scratch.glob("*.safetensors"), curve_file(scratch, data.stage.name)]:
        shutil.copyfile(file, folder / file.name)
    took = json.loads(curve_file(folder, data.stage.name).read_text())
    stored = sum(file.stat().st_size for file in folder.iterdir())
    return Cost(took["seconds"], took["peak_mib"], tuning.steps, took["evaluations"], stored)


def _fit(module: FineTune, what: str, *, folder: Path, report: StepDone | None) -> None:
    data, tuning, stage = module.data, module.tuning, module.data.stage
    before = {name: p.data for name, p in module.tuned.items()}
    stop = StopOnSignal(lambda: trainer.save_checkpoint(checkpoint_file(folder, stage.name)))
    trainer = _trainer(stage.network, tuning.steps, folder, [Snapshots(folder, report), stop])
    resume = checkpoint_file(folder, stage.name)
    began = time.monotonic()
    for parameter in module.tuned.values():
        # A float32 master copy, whatever the rest of the network is stored in: a step of tuning is smaller than bf16's last digit.
        parameter.data = parameter.data.to(torch.float32, copy=True)
        parameter.requires_grad_(True)
    try:
        stop.listen()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Lightning's advice on workers and logging intervals does not apply to one image
            trainer.fit(
                module, itertools.repeat(0), ckpt_path=str(resume) if resume.exists() else None
            )
    finally:
        stop.restore()
        for name, parameter in module.tuned.items():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = before[name]
        stage.network.eval()
    if stop.received:  # after the last step, which is saved
        raise Stopped(stop.received)
    seconds = time.monotonic() - began
    first, last = _mean(module.losses[:8]), _mean(module.losses[-8:])
    log.info(
        "tuned %s: %d steps x batch %d in %.1f s, loss %.4f -> %.4f",
        what,
        trainer.global_step,
        data.batch_size,
        seconds,
        first,
        last,
    )
    resume.unlink(missing_ok=True)


def _trainer(
    network: nn.Module, steps: int, folder: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """One device, no logger, no bar of its own; arithmetic precision is the stage's business."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    device = next(network.parameters()).device
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, callbacks=callbacks,
        plugins=[WholeCheckpoints(), LightningEnvironment()],
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
