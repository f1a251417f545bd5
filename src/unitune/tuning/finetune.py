"""Fine-tune one stage on one image: the model's ordinary denoising loss and nothing else."""

import itertools
import json
import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import save
from torch import Tensor, nn

from unitune.models import parameters
from unitune.storage.compression import compressed
from unitune.storage.cost import peak_memory_mib
from unitune.storage.files import write_whole
from unitune.tuning.data import OneImage
from unitune.tuning.interrupt import Signals, WholeCheckpoints
from unitune.types import Cost, Diverged, Stopped, Weights

CHECKPOINT_SECONDS = 30.0  # of work that a killed process may lose
CHECKPOINT_SHARE = 0.05  # of the time that writing checkpoints may take, which comes first

log = logging.getLogger(__name__)
StepDone = Callable[[str, int, int, float], None]  # (stage, steps done, steps, loss)


class FineTune(pl.LightningModule):
    """Tunes parameters by the stage's own loss.

    Its state is these parameters and the curve. At the end of a step it reports, writes the tuned
    tensors where they are to be kept, and a checkpoint where it is time, and stops where a signal
    asked for that.
    """

    def __init__(
        self, data: OneImage, tuned: Mapping[str, nn.Parameter], *,
        folder: Path, report: StepDone | None, signals: Signals,
    ) -> None:  # fmt: skip
        super().__init__()
        self.data, self.tuning, self.tuned = data, data.tuning, dict(tuned)
        self.folder, self.report, self.signals = folder, report, signals
        self.state = nn.ParameterList(tuned.values())
        self.losses: list[float] = []
        self.evaluations = 0
        self.seconds = self.peak = 0.0  # of earlier parts of an interrupted tuning
        self.began = self.saved = time.monotonic()  # saved: when a checkpoint was last written
        self.saving = 0.0  # seconds that this took

    @property
    def curve(self) -> dict[str, Any]:
        """The loss of every step so far, and what all parts of the tuning took."""
        return {
            "losses": self.losses,
            "evaluations": self.evaluations,
            "seconds": self.seconds + time.monotonic() - self.began,
            "peak_mib": max(self.peak, peak_memory_mib()),
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Constant lr, no clipping, no schedule: the paper reports none."""
        return self.tuning.optimizer.build(self.tuned.values(), lr=self.tuning.lr)

    def on_train_start(self) -> None:
        """Note signals again: the trainer may have put its own handlers in."""
        self.signals.listen()

    def training_step(self, *_: Any) -> Tensor:
        """Make the batch here, as its noise is named by the step, and return its loss."""
        batch = self.data.batch(self.global_step)
        loss = batch.loss(self.data.stage.output(batch.x_t, batch.t, batch.condition))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(
                f"the loss of {self.data.stage.name} is {value} at step {self.global_step} "
                f"(lr {self.tuning.lr:g}); use a smaller lr"
            )
        self.losses.append(value)
        self.evaluations += len(batch)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Report, keep, stop."""
        step, name = self.global_step, self.data.stage.name
        if self.report is not None:
            self.report(name, step, self.tuning.steps, self.losses[-1])
        if step in self.tuning.kept:
            self._keep(step)
        if self.signals.received or self._is_time():
            self._save()
        if self.signals.received:
            raise Stopped(self.signals.received)

    def _is_time(self) -> bool:
        """Whether as much work as may be lost was done since the last checkpoint.

        A step may take a millisecond or a minute, and a checkpoint 1 MB or 10 GB, so that no number
        of steps would do.
        """
        due = max(CHECKPOINT_SECONDS, self.saving / CHECKPOINT_SHARE)
        return time.monotonic() - self.saved >= due and self.global_step < self.tuning.steps

    def _save(self) -> None:
        began = time.monotonic()
        self.trainer.save_checkpoint(checkpoint_file(self.folder, self.data.stage.name))
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _keep(self, step: int) -> None:
        folder, name = self.folder, self.data.stage.name
        tensors = {n: p.detach().float().cpu().contiguous() for n, p in self.tuned.items()}
        if bad := [n for n, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
            raise Diverged(
                f"tuning made {bad[0]} of {name} not finite by step {step} "
                f"(lr {self.tuning.lr:g}); use a smaller lr"
            )
        write_whole(json.dumps(self.curve).encode(), curve_file(folder, name))
        write_whole(save(tensors), snapshot_file(folder, name, step))
        if step < self.tuning.steps:  # after what it takes for granted
            self._save()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve."""
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve back."""
        names = ("losses", "evaluations", "seconds", "peak_mib")
        self.losses, self.evaluations, self.seconds, self.peak = (
            checkpoint["curve"][name] for name in names
        )


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
    data: OneImage, *, folder: Path, tuned: Mapping[str, nn.Parameter] | None = None,
    report: StepDone | None = None,
) -> None:  # fmt: skip
    """Tune parameters by data.stage's loss and leave their snapshots and curve in `folder`.

    `tuned` by name; None: what tuning.adapter makes of those that tuning.select chooses. They end
    as they began, also on error. Resumes from the checkpoint that an interrupted call left in
    `folder`. Raises Diverged on a loss that is not finite, Stopped after a signal.
    """
    stage, tuning = data.stage, data.tuning
    resume = checkpoint_file(folder, stage.name)
    if tuning.steps == 0 or snapshot_file(folder, stage.name, tuning.steps).exists():
        return
    if tuned is None:
        what, adapter = stage.name, tuning.adapter.attached(stage.network, tuning.select)
    else:
        what, adapter = " and ".join(tuned), nullcontext(tuned)
    with adapter as parameters, _trainable(parameters, stage.network), warnings.catch_warnings():
        # Lightning's advice on workers and logging intervals does not apply to one image.
        warnings.simplefilter("ignore")
        signals = Signals()
        module = FineTune(data, parameters, folder=folder, report=report, signals=signals)
        trainer = _trainer(stage.network, tuning.steps, folder)
        checkpoint = str(resume) if resume.exists() else None
        began = time.monotonic()
        try:
            signals.listen()
            trainer.fit(module, itertools.repeat(0), ckpt_path=checkpoint)
        finally:
            signals.restore()
    if signals.received:  # after the last step, which is saved
        raise Stopped(signals.received)
    log.info(
        "tuned %s: %d steps x batch %d in %.1f s, loss %.4f -> %.4f",
        what, trainer.global_step, tuning.batch_size, time.monotonic() - began,
        _mean(module.losses[:8]), _mean(module.losses[-8:]),
    )  # fmt: skip
    resume.unlink(missing_ok=True)


@contextmanager
def _trainable(tuned: Mapping[str, nn.Parameter], network: nn.Module) -> Iterator[None]:
    """Give gradients to float32 copies of the parameters; afterwards all is as before.

    Whatever the network is stored in: a step of tuning is smaller than bf16's last digit.
    """
    before = {name: parameter.data for name, parameter in tuned.items()}
    try:
        for parameter in tuned.values():
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad_(True)
        yield
    finally:
        for name, parameter in tuned.items():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = before[name]
        network.eval()


def keep(data: OneImage, *, scratch: Path, folder: Path, base: Weights | None) -> Cost:
    """Store what `fit` left in `scratch` in `folder`; return what it took.

    The tensors are compressed as changes of `base`, or stay as they are (None). Raises Refused
    where one of their files is not whole.
    """
    name = data.stage.name
    for step in data.tuning.kept:
        tensors = parameters.load(snapshot_file(scratch, name, step))
        kept = tensors if base is None else compressed(tensors, base)
        write_whole(save(kept), snapshot_file(folder, name, step))
    shutil.copyfile(curve_file(scratch, name), curve_file(folder, name))
    took = json.loads(curve_file(folder, data.stage.name).read_text())
    stored = sum(file.stat().st_size for file in folder.iterdir())
    steps, evaluations = data.tuning.steps, took["evaluations"]
    return Cost(took["seconds"], took["peak_mib"], steps, evaluations, stored)


def _trainer(network: nn.Module, steps: int, folder: Path) -> pl.Trainer:
    """One device, no logger, no bar of its own; arithmetic precision is the stage's business."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    on_gpu = next(network.parameters()).device.type == "cuda"
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu", devices=1, max_steps=steps, max_epochs=-1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
        plugins=[WholeCheckpoints(), LightningEnvironment()],
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
