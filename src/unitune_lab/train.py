"""The one loop that trains every part: mean weights, checkpoints, looks, resumable to the step."""

import io
import json
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from unitune.errors import Refused
from unitune.scenes.scene import world_digest
from unitune.storage.files import write_whole

from unitune_lab import optimizers
from unitune_lab.batches import SceneBatches, loader
from unitune_lab.options import FOLDERS, Phase
from unitune_lab.parts import Part
from unitune_lab.records import CURVE, DONE, total

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
VERSION = 1
NOISE_APART = 1_000_003  # between the noise of one seed and of the next


class Training:
    """A part with its optimizer and its mean weights; `done` counts steps, samples and minutes.

    A checkpoint is tensors and plain data that name no class. One of another world, another
    architecture or another part is refused.
    """

    def __init__(self, part: Part, folder: Path, *, options: dict[str, Any], before: dict) -> None:
        self.part, self.folder, self.options = part, folder, options
        decay = options["weight_decay"]
        self.optimizer = optimizers.build(options["optimizer"], part.network, weight_decay=decay)
        average = get_ema_multi_avg_fn(options["ema"])
        self.mean = AveragedModel(part.network, multi_avg_fn=average)
        self.done = {"step": 0, "samples": 0, "minutes": 0.0, "before": before}
        if (folder / CHECKPOINT).exists():
            self._resume(folder / CHECKPOINT)
        # A training that goes on from earlier weights draws other scenes and noise than theirs.
        self.first = int(total(self.done["before"], "step"))
        folder.mkdir(parents=True, exist_ok=True)  # nothing is refused from here on

    def _about(self) -> dict[str, object]:
        shapes = sorted((name, *p.shape) for name, p in self.part.network.named_parameters())
        return {
            "version": VERSION, "part": self.folder.name, "world": world_digest(),
            "optimizer": self.options["optimizer"], "shapes": repr(shapes),
            "text encoder": self.part.reads,
        }  # fmt: skip

    def _resume(self, file: Path) -> None:
        state = torch.load(file, weights_only=True, map_location="cpu")
        about = state.get("about", {})
        for name, value in self._about().items():
            if name in about and about[name] != value:
                shown = "" if name == "shapes" else f" ({about.get(name)}, not {value})"
                raise Refused(
                    f"{file} is a checkpoint of another {name.replace('shapes', 'architecture')}"
                    f"{shown}; train into another folder, or move it away"
                )
        self.part.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean.load_state_dict(state["mean"])
        self.done = state["done"]
        log.info("%s: resumed at step %d", self.folder.name, self.done["step"])

    def save(self) -> None:
        """Write the checkpoint and export the mean weights."""
        state = {
            "about": self._about(),
            "network": self.part.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean.state_dict(),
            "done": self.done,
        }
        checkpoint = io.BytesIO()
        torch.save(state, checkpoint)
        write_whole(checkpoint.getbuffer(), self.folder / CHECKPOINT)
        self.part.export(self.mean.module, self.folder / "export")
        # A record tells how weights were made; where files lay on one machine is not part of it.
        kept = {name: self.options[name] for name in self.options if name not in FOLDERS}
        text = json.dumps({**self.done, "reads": self.part.reads, "options": kept}) + "\n"
        write_whole(text, self.folder / DONE)

    def look(self, resolution: int) -> None:
        """Measure the mean weights and append a line to the curve."""
        network: nn.Module = self.mean.module
        was_training = network.training
        network.eval()
        scores = self.part.look(network, resolution)
        network.train(was_training)
        line = {name: round(self.done[name], 2) for name in ("samples", "minutes")}
        line |= {"resolution": resolution, **{k: round(v, 5) for k, v in scores.items()}}
        with (self.folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s: %s", self.folder.name, json.dumps(line))

    def step(self, batch: Any, resolution: int, *, begun: int, left: int) -> float:
        """Learn from one batch and return the loss.

        `begun` steps were made since this optimizer's start, `left` samples are left to the end.
        """
        options, done = self.options, self.done
        noise = options["seed"] * NOISE_APART + self.first + done["step"]
        loss = self.part.loss(batch, resolution, seed=noise)
        loss.backward()
        schedule = {"warmup": options["warmup"], "cooldown": options["cooldown"]}
        lr = optimizers.rate(options["lr"], step=begun, left=left, **schedule)
        self.optimizer.step(lr)
        self.mean.update_parameters(self.part.network)
        return float(loss.detach())


def check(part: Part, phases: Sequence[Phase]) -> None:
    """Refuse phases of a resolution that the part cannot learn at."""
    odd = [phase.resolution for phase in phases if phase.resolution not in part.resolutions]
    if odd:
        sides = list(part.resolutions)
        some = [*sides[:3], "...", sides[-1]] if len(sides) > 4 else sides
        allowed = ", ".join(map(str, some))
        raise Refused(f"this part learns at {allowed} px; got a phase at {odd[0]} px")


def train(training: Training, phases: Sequence[Phase]) -> bool:
    """Train until the phases or the minutes of this call end, or a signal asks to stop.

    Return whether the phases are through. Raises FloatingPointError where the loss is not finite.
    """
    options, done, name = training.options, training.done, training.folder.name
    training.part.network.train()
    earlier, began = done["minutes"], time.monotonic()
    saved = said = looked = began
    running, samples = math.nan, sum(phase.samples for phase in phases)
    with stop_asked() as asked:
        for phase, batch in _batches(training, phases):
            left = samples - done["samples"]
            value = training.step(batch, phase.resolution, begun=done["step"], left=left)
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name}: the loss is not finite at step {done['step']}; lower lr "
                    f"({options['lr']:g}); the last checkpoint is kept"
                )
            running = value if math.isnan(running) else 0.98 * running + 0.02 * value
            now = time.monotonic()
            done["step"] += 1
            done["samples"] += phase.batch_size
            done["minutes"] = earlier + (now - began) / 60
            over = (
                now - began > 60 * options["minutes"] or done["samples"] >= samples or bool(asked)
            )
            if now - said > 60 or over:
                speed = done["samples"] / (60 * done["minutes"])
                log.info(
                    "%s: %d px, step %d, %d samples, %.1f/s, loss %.4f",
                    name, phase.resolution, done["step"], done["samples"], speed, running,
                )  # fmt: skip
                said = now
            if now - saved > 60 * options["minutes_save"] or over:
                training.save()
                saved = now
            if now - looked > 60 * options["minutes_look"] or over:
                training.look(phase.resolution)
                looked = now
            if over:
                break
    return done["samples"] >= samples


def _batches(training: Training, phases: Sequence[Phase]) -> Iterator[tuple[Phase, Any]]:
    """Yield the batches that are left, each with its phase."""
    first, options = 0, training.options
    for phase in phases:
        end = first + phase.samples
        seen = training.done["samples"]
        if seen < end:
            part = training.part
            stream = SceneBatches(
                seed=options["seed"], batch_size=phase.batch_size, size=part.size,
                captions=part.captions, first=training.first + training.done["step"],
                related=options.get("related", 0.0),
            )  # fmt: skip
            for batch in loader(stream, workers=options["workers"]):
                yield phase, batch
                if training.done["samples"] >= end:
                    break
        first = end


@contextmanager
def stop_asked() -> Iterator[list[int]]:
    """Give a list that SIGTERM and SIGINT add to, so that a training stops after its step."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: asked.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
