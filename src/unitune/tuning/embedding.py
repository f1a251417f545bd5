"""Learning what the text is made of, every weight frozen: vectors of a new word (Textual Inversion), or the embedding of a prompt (Imagic)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unitune.models import parameters
from unitune.storage.store import Store
from unitune.tuning.data import Batches, OneImage, TunableStage, TuningBatch
from unitune.tuning.finetune import StepDone, Tuning, fit, keep, snapshot_file
from unitune.types import Cost, Example

NAME = "embedding"
START = "start.safetensors"


@dataclass(frozen=True)
class WithText:
    """The batches of a picture from step `first` on, told another text at every step: `text(k)` is (1, L, D) and may carry gradients."""

    data: Batches
    text: Callable[[int], Tensor]
    first: int = 0

    @property
    def stage(self) -> TunableStage:
        """Whose loss it is."""
        return self.data.stage

    @property
    def batch_size(self) -> int:
        """Noise draws of the image per step."""
        return self.data.batch_size

    def batch(self, k: int) -> TuningBatch:
        """Make the batch of step k."""
        batch = self.data.batch(self.first + k)
        return replace(
            batch, condition=replace(batch.condition, text=self.text(k).expand(len(batch), -1, -1))
        )


@dataclass(frozen=True)
class Learned:
    """What was learned, where that began, and what it took."""

    tensor: Tensor
    start: Tensor
    cost: Cost


@dataclass(frozen=True)
class Lesson:
    """One tensor to optimise by a stage's loss: it begins at `start()`, and text(tensor, k) is the text (1, L, D) of step k.

    `key` holds everything that decides the result, beside `tuning` and the image. `release` frees what making texts holds in memory.
    """

    stage: TunableStage
    tuning: Tuning
    start: Callable[[], Tensor]
    text: Callable[[Tensor, int], Tensor]
    key: Mapping[str, object]
    release: Callable[[], None]


def pictures(stage: TunableStage, example: Example, *, seed: int, tuning: Tuning) -> OneImage:
    """Give a stage's batches of the picture without a text, which `WithText` adds."""
    return OneImage(stage, example, torch.empty(1, 0, 0), seed, tuning.batch_size, tuning.dials)


def learn(
    lesson: Lesson, example: Example, *, seed: int, step: int, store: Store, report: StepDone | None
) -> Learned:
    """Optimise, or read the stored result, as it was after `step` steps; resumes as `fit` does."""
    tuning, stage = lesson.tuning, lesson.stage
    tuning.check_kept("the embedding", step)
    how = asdict(tuning) | {
        "optimizer": [type(tuning.optimizer).__name__, asdict(tuning)["optimizer"]]
    }
    key = {
        **lesson.key,
        "embedding": how,
        "loss": asdict(stage.loss),
        "seed": seed,
        "image": example.digest,
    }

    def tell(_stage: str, done: int, total: int, loss: float) -> None:
        if report is not None:
            report(NAME, done, total, loss)

    def build(folder: Path) -> None:
        scratch = store.scratch("embedding", key)
        try:
            start = lesson.start()
            tensor = nn.Parameter(start.clone(), requires_grad=False)
            told = WithText(
                pictures(stage, example, seed=seed, tuning=tuning), lambda k: lesson.text(tensor, k)
            )
            fit(told, tuning, folder=scratch, tuned={NAME: tensor}, report=tell)
        finally:
            lesson.release()
        save_file({NAME: start}, folder / START)
        cost = keep(told, tuning, scratch=scratch, folder=folder)
        (folder / "tuning.json").write_text(json.dumps({"cost": asdict(cost)}))

    folder = store.get_or_make("embedding", key, build)
    cost = Cost(**json.loads((folder / "tuning.json").read_text())["cost"])
    tensor, start = (
        parameters.load(file)[NAME]
        for file in (snapshot_file(folder, stage.name, step), folder / START)
    )
    return Learned(tensor, start, cost)
