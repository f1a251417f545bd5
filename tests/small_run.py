"""A run of a tiny random cascade on flat pictures, for tests of what a run does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.methods.unitune import UniTune
from unitune.methods.untuned import Untuned
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade
from unitune.runs import experiment
from unitune.runs.experiment import Experiment
from unitune.runs.plans import Seeds
from unitune.storage import records
from unitune.tuning.recipe import Tuning
from unitune.types import Edit, Example, Request

SIZE = 32


class Brightness:
    """A metric whose answer is known: the mean of the picture."""

    name = "brightness"
    higher_is_better = True
    card: Mapping[str, str] = {}

    def __call__(self, edits: list[Edit]) -> list[float]:
        return [float(edit.image.mean()) for edit in edits]


class Curves:
    def __init__(self) -> None:
        self.lines: list[tuple[dict[str, float], int | None]] = []
        self.ended = ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((metrics, step))

    def finalize(self, status: str) -> None:
        self.ended = status


def cascade(folder: Path) -> Cascade:
    """A cascade of two random stages."""
    return backend.load(
        "tiny",
        tiny.floyd(folder),
        stages=("base", "sr256"),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def picture(level: float) -> torch.Tensor:
    return torch.full((1, 3, SIZE, SIZE), level)


def example(name: str = "cat", *requests: Request) -> Example:
    return Example(
        name,
        picture(0.5),
        requests or (Request("a dog"), Request("a cat in the snow", target=picture(-0.5))),
        caption="a cat",
    )


def run(chosen: Experiment, examples: list[Example], folder: Path) -> list[records.Record]:
    folder.mkdir(exist_ok=True)
    return experiment.run(chosen, examples, folder=folder)


def setting(model: Cascade, store, **more) -> Experiment:
    sampler = Sampler(
        "quick", steps=2, start=0.8, guidance=Guidance(weight=2.0), sr=SuperResolution(steps=2)
    )
    return replace(Experiment(model, Untuned(), sampler, [Brightness()], store, Seeds(2)), **more)


def tuned() -> UniTune:
    return UniTune(
        {"base": Tuning(lr=1e-2, steps=4, batch_size=1, snapshots=(2,))},
        stages=("base",),
        prompt="beikkpic",
    )
