"""The parts of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from unitune.diffusion.sampler import Sampler
from unitune.runs.paste import Paste
from unitune.runs.plans import Plan
from unitune.runs.selection import Selection
from unitune.storage.store import Store
from unitune.types import Metric

if TYPE_CHECKING:  # a run that is refused loads no model
    from unitune.methods import Method
    from unitune.models.cascade import Cascade


class Logger(Protocol):
    """Where curves go; Lightning's loggers fit."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""

    def finalize(self, status: str) -> None:
        """Write what is left; `status` is success or failed."""


@dataclass(frozen=True)
class Experiment:
    """The parts of one run."""

    cascade: "Cascade"
    method: "Method"
    sampler: Sampler
    metrics: Sequence[Metric]
    store: Store
    plan: Plan
    seed: int = 0
    oracle: int = 0  # samples of the oracle's reference row for each edit whose target is known
    plain_weight: float | None = None  # of the oracle's guidance; None: the sampler's
    snapshot: int | None = None  # sample the weights after so many steps of the tuning
    logger: Logger | None = None
    selection: Selection | None = None
    paste: Paste | None = None  # puts edits back into the photograph that they were cut from
