"""One loop trains every part: resumable to the step, EMA, an export at every checkpoint, a line a minute."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from unitune.pretrain.data import SceneBatches, loader
from unitune.pretrain.muon import MuonAndAdamW
from unitune.pretrain.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """What to do with the mean weights every so many minutes: `look(done, resolution)`."""

    look: Callable[[dict, int], None]
    minutes: float = 10.0


@dataclass(frozen=True)
class Phase:
    """So many samples at one resolution and batch size."""

    resolution: int
    batch_size: int
    samples: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the phase."""
        return self.samples // self.batch_size


def _save(state: dict, file: Path) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    partial.replace(file)


def train(
    task: Task, phases: list[Phase], folder: Path, *,
    before: dict, lr: float, seed: int, ema_decay: float, minutes: float, workers: int, checkpoint_minutes: float = 3.0, watch: Watch | None = None,
) -> dict:  # fmt: skip
    """Train until the phases or the minutes of this call end; `folder` holds `checkpoint.pt` and `export/`. Return {step, samples, minutes, before}.

    `before` is kept: what is known of an earlier training of the weights that the task came with. `watch` looks at the mean weights every `watch.minutes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = MuonAndAdamW(task.network, lr=lr)
    ema = EMAModel(task.network.parameters(), decay=ema_decay, use_ema_warmup=False, min_decay=0.0)
    done = {"step": 0, "samples": 0, "minutes": 0.0, "before": before}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        task.network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        ema.decay = ema_decay  # this call's, not the checkpoint's: a short last phase wants a short memory
        done = state["done"]
        log.info("%s: resumed at step %d (%d samples)", folder.name, done["step"], done["samples"])

    began = saved = said = watched = time.monotonic()

    def save(resolution: int) -> None:
        nonlocal watched
        _save({"network": task.network.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict(), "done": done}, checkpoint)
        buffers = {name: value.clone() for name, value in task.network.named_buffers()}  # an export may measure statistics anew
        ema.store(task.network.parameters())
        ema.copy_to(task.network.parameters())
        task.export(folder / "export")
        if watch is not None and time.monotonic() - watched > 60 * watch.minutes:
            watch.look(done, resolution)
            watched = time.monotonic()
        ema.restore(task.network.parameters())
        for name, value in task.network.named_buffers():
            value.copy_(buffers[name])

    earlier = done["minutes"]
    running, first = 0.0, 0
    for phase in phases:
        last = first + phase.steps
        if done["step"] < last:
            stream = SceneBatches(seed=seed, batch_size=phase.batch_size, size=task.size, first=done["step"])
            for batch in loader(stream, workers=workers):
                optimizer.set_lr(lr * min(1.0, (done["step"] + 1) / 200))
                task.generator.manual_seed(done["step"])  # so that a resumed run draws what an uninterrupted one draws
                loss = task.loss(batch, phase.resolution)
                loss.backward()
                optimizer.step()
                ema.step(task.network.parameters())
                value = float(loss.detach())
                if value != value:
                    raise FloatingPointError(f"the loss is NaN at step {done['step']} (lr {lr:g}); the last checkpoint is {checkpoint}")
                running = value if running == 0 else 0.98 * running + 0.02 * value
                now = time.monotonic()
                done |= {"step": done["step"] + 1, "samples": done["samples"] + phase.batch_size, "minutes": earlier + (now - began) / 60}
                if now - said > 60:
                    rate = done["samples"] / max(1e-9, 60 * done["minutes"])
                    where = f"{folder.name}: {phase.resolution} px, step {done['step']} of {last}"
                    log.info("%s, %d samples, %.0f/s, loss %.4f", where, done["samples"], rate, running)
                    said = now
                over = now - began > 60 * minutes or done["step"] >= last
                if now - saved > 60 * checkpoint_minutes or over:
                    save(phase.resolution)
                    saved = time.monotonic()
                if over:
                    break
        first = last
        if time.monotonic() - began > 60 * minutes:
            break
    log.info("%s: %d steps, %d samples, %.1f min, loss %.4f", folder.name, done["step"], done["samples"], done["minutes"], running)
    return done
