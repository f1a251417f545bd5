"""What carrying out a recipe for one image needs, and what all results in the store share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from unitune.models.cascade import Cascade
from unitune.models.stage import UNetStage
from unitune.storage.store import Store
from unitune.tuning import naming
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import StepDone, fit, keep
from unitune.tuning.recipe import Recipe
from unitune.types import Cost, Example, Tuned

ABOUT = "tuning.json"  # of an entry: what it took


@dataclass(frozen=True)
class Work:
    """A recipe for one image; its results are made once and then read from the store."""

    recipe: Recipe
    cascade: Cascade
    example: Example
    store: Store
    seed: int = 0
    report: StepDone | None = None

    @cached_property
    def named(self) -> Tuned:
        """What sampling is told of the image before anything is made."""
        return naming.named(self.recipe, self.cascade, self.example, seed=self.seed)

    @cached_property
    def text(self) -> str:
        """What weights are tuned on: the text about the image, or the one edit prompt."""
        if self.recipe.embedding is None:
            return self.named.about
        (request,) = self.example.requests
        return naming.filled(self.recipe.template, self.example, edit=request.prompt)

    def key(self, stage: UNetStage, about: Mapping[str, object]) -> dict[str, object]:
        """Name a stage's result by what decides it: what is the same for all, and `about`."""
        return {
            "recipe": self.recipe.kind,
            "image": self.example.digest,
            "seed": self.seed,
            "weights": self.cascade.digest,
            "arithmetic": [stage.arithmetic, self.cascade.text_encoder.arithmetic],
            "loss": asdict(stage.loss),
            **about,
        }

    def fit_into(
        self, folder: Path, kind: str, key: Mapping[str, object], data: OneImage, *,
        tuned: Mapping[str, nn.Parameter] | None = None, before: Cost | None = None,
    ) -> None:  # fmt: skip
        """Tune into the folder of a store's entry; what was interrupted goes on.

        `tuned` as `finetune.fit` has it. `before` is the cost of what had to be made first.
        """
        report, scratch = self.report, self.store.scratch(kind, key)

        def tell(stage: str, done: int, total: int, loss: float) -> None:
            if report is not None:
                report(stage if tuned is None else kind, done, total, loss)

        fit(data, folder=scratch, tuned=tuned, report=tell)
        tuning, network = data.tuning, data.stage.network
        base = tuning.adapter.base(network, tuning.select) if tuned is None else None
        cost = {"cost": asdict(keep(data, scratch=scratch, folder=folder, base=base))}
        about = cost if before is None else {"before": asdict(before), **cost}
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def costs(folder: Path) -> dict[str, Cost]:
    """Read what an entry took: its `cost`, and that of what came `before` it."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return {name: Cost(**cost) for name, cost in about.items()}
