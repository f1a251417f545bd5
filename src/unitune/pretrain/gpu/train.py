"""Trains one part on a GPU: a loop that looks, saves, stops and resumes between chunks of scenes."""

import json
import logging
import random
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unitune.pretrain.gpu.files import write_whole
from unitune.pretrain.gpu.learners import learner
from unitune.pretrain.gpu.optim import BatchedMuon, MeanWeights
from unitune.pretrain.gpu.world import Part, World

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
WARMUP = 200  # steps
FLAT = 0.3  # share of a part's minutes at the full learning rate, which then falls to 0


@dataclass
class Clock:
    """The minutes of this call and of those before it, kept in `file`; and what ends the call: its limit or a signal."""

    file: Path
    limit: float = float("inf")
    signal: int = 0
    earlier: float = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.earlier = json.loads(self.file.read_text())["minutes"] if self.file.exists() else 0.0

    @property
    def spent(self) -> float:
        """Minutes of all calls."""
        return self.earlier + (time.monotonic() - self.began) / 60

    @property
    def over(self) -> bool:
        """Whether this call must end."""
        return bool(self.signal) or self.spent - self.earlier > self.limit

    def save(self) -> None:
        """Keep the minutes for the next call."""
        write_whole(self.file, lambda file: file.write_text(json.dumps({"minutes": self.spent})))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM and SIGINT meanwhile, for `over` to tell."""
        before = {number: signal.signal(number, lambda received, _: setattr(self, "signal", received)) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Training:
    """A part with its optimiser, its mean weights and what is `done`: {step, chunk, samples, minutes, budget, before, curve, finished}."""

    def __init__(self, part: Part, world: World, folder: Path, *, minutes: float) -> None:
        self.part, self.world, self.folder = part, world, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(_seed(world, part, -1))
        self.pupil = learner(part, world, folder.parent)
        self.pupil.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer, self.mean = BatchedMuon(self.pupil.network, lr=part.lr), MeanWeights(self.pupil.network)
        self.done: dict = {"step": 0, "chunk": 0, "samples": 0, "minutes": 0.0, "budget": minutes, "before": {}, "curve": [], "finished": False}
        if (folder / CHECKPOINT).exists():
            state = torch.load(folder / CHECKPOINT, map_location=world.device, weights_only=True)
            self.pupil.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch._foreach_copy_(self.mean.values, state["mean"])
            self.done = state["done"]
            log.info("%s: goes on at step %d", part.name, self.done["step"])

    @property
    def progress(self) -> float:
        """Share of the part's minutes (or of a trial's steps) that is over."""
        steps = self.world.plan.steps
        return max(self.done["minutes"] / self.done["budget"], self.done["step"] / steps if steps else 0.0)

    def chunk(self) -> Tensor:
        """Learn from the next chunk of scenes; return its mean loss, for which nobody has waited yet."""
        done, phase, size = self.done, self.part.phase(self.progress), self.world.plan.chunk
        left = (1 - self.progress) / (1 - FLAT)
        facts, image = self.world.chunk(self.part, done["chunk"], self.pupil.size)
        self.pupil.generator.manual_seed(_seed(self.world, self.part, done["chunk"]))
        random.seed(done["chunk"])
        losses = []
        for first in range(0, size, phase.batch_size):
            rows = slice(first, first + phase.batch_size)
            loss = self.pupil.loss(facts.rows(rows), None if image is None else image[rows], phase.resolution)
            loss.backward()
            done["step"] += 1
            self.optimizer.step(self.part.lr * min(1.0, done["step"] / WARMUP, left))
            self.mean.step(done["step"])
            losses.append(loss.detach())
        done |= {"chunk": done["chunk"] + 1, "samples": done["samples"] + size}
        return torch.stack(losses).mean()

    def look(self, loss: float) -> None:
        """Measure the mean weights on unseen scenes and add a line to the curve."""
        resolution = self.part.phase(self.progress).resolution
        with self.mean.used():
            scores = {"loss": loss} | self.pupil.look(resolution)
        line = {"samples": self.done["samples"], "minutes": self.done["minutes"], "resolution": resolution} | scores
        self.done["curve"].append({name: round(value, 5) for name, value in line.items()})
        log.info("%s: %s", self.part.name, json.dumps(self.done["curve"][-1]))

    def save(self) -> None:
        """Export the mean weights and write the checkpoint."""
        with self.mean.used():
            self.pupil.export(self.folder / "export")
        state = {"network": self.pupil.network.state_dict(), "optimizer": self.optimizer.state_dict(), "mean": self.mean.values, "done": self.done}
        write_whole(self.folder / CHECKPOINT, lambda file: torch.save(state, file))
        write_whole(self.folder / "done.json", lambda file: file.write_text(json.dumps(self.done)))


def _seed(world: World, part: Part, chunk: int) -> int:
    return zlib.crc32(f"{world.seed} {part.name} {chunk}".encode())


def train(training: Training, *, clock: Clock, saved: Callable[[], None]) -> bool:
    """Train until the part is finished or the clock says stop; say whether it is finished. `saved` is called after each export.

    Each minute of the plan's `minutes_look`: a look, an export, a checkpoint. FloatingPointError where the loss is not finite.
    """
    done, name = training.done, training.part.name
    earlier, began, looked = done["minutes"], time.monotonic(), time.monotonic()
    waiting: Tensor | None = None
    loss = 0.0
    while training.progress < 1 and not clock.over:
        learned = training.chunk()
        loss = float(learned if waiting is None else waiting)  # of the chunk before: the GPU works on this one meanwhile
        waiting = learned
        done["minutes"] = earlier + (time.monotonic() - began) / 60
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"{name}: the loss is not finite near step {done['step']}; lower its lr ({training.part.lr:g}); the last checkpoint is kept"
            )
        if time.monotonic() - looked > 60 * training.world.plan.minutes_look and training.progress < 1:
            training.look(loss)
            training.save()
            clock.save()
            saved()
            looked = time.monotonic()
    done["finished"] = training.progress >= 1
    if done["finished"]:
        training.look(loss)
    if done["finished"] or waiting is not None:
        training.save()
    clock.save()
    saved()
    log.info("%s: %s at step %d, %d samples, %.1f min", name, "finished" if done["finished"] else "stopped", done["step"], done["samples"], done["minutes"])
    return done["finished"]
