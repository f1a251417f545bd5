"""Tuned weights of stages: the room that they take, the stored result, whether anything moved."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from unitune.models import parameters
from unitune.models.cascade import Cascade
from unitune.models.parameters import Sizes
from unitune.storage.store import Store
from unitune.tuning.data import Batches
from unitune.tuning.finetune import StepDone, Tuning, fit, keep, snapshot_file
from unitune.types import Cost, Tuned, Weights

FILE = "tuning.json"  # of a stored tuning: what it took


@dataclass(frozen=True)
class Material:
    """What the weights of stages are tuned on.

    key(stage) holds everything that decides the result beside how the stage is tuned, the base
    weights and the arithmetic. `before` makes what the batches need and says what that took; it is
    not called for a stage that is stored.
    """

    batches: Callable[[str, Tuning], Batches]
    key: Callable[[str], Mapping[str, object]]
    before: Callable[[], Cost] = Cost


def room(tune: Mapping[str, Tuning], sizes: Sizes, *, at: int | None) -> tuple[int, int]:
    """Refuse a snapshot that is not kept; count float32 bytes.

    They are every kept snapshot; while tuning once more, and a checkpoint of what is trained and
    its two moments, written aside.
    """
    check_kept(tune, at)
    kept = working = 0
    for stage, counts in sizes.items():
        if stage in tune and tune[stage].steps:
            trained = 4 * tune[stage].adapter.size(counts, tune[stage].select)
            kept += trained * len(tune[stage].kept)
            working = max(working, 2 * 3 * trained)
    return (0, 0) if at == 0 else (kept, kept + working)


def stored(
    tune: Mapping[str, Tuning], material: Material, cascade: Cascade, *, store: Store,
    report: StepDone | None,
) -> dict[str, Path]:  # fmt: skip
    """Tune each stage for its steps, or find the stored result; return its entry by stage.

    Each stage has an entry of its own, as none of them knows of the others: other choices of
    `stage=` find it too.
    """
    return {
        name: _stage(name, tuning, material, cascade, store=store, report=report)
        for name, tuning in tune.items()
        if tuning.steps
    }


def _stage(
    name: str, tuning: Tuning, material: Material, cascade: Cascade, *, store: Store,
    report: StepDone | None,
) -> Path:  # fmt: skip
    kinds = [type(tuning.optimizer).__name__, type(tuning.adapter).__name__]
    stage = cascade.stage(name)
    key = {
        **material.key(name), "stage": name, "tune": asdict(tuning) | {"kinds": kinds},
        "loss": asdict(stage.loss), "weights": cascade.digest,
        "arithmetic": [stage.arithmetic, cascade.words.arithmetic],
    }  # fmt: skip

    def build(folder: Path) -> None:
        before, scratch = material.before(), store.scratch("tuned", key)
        batches = material.batches(name, tuning)
        fit(batches, tuning, folder=scratch, report=report)
        cost = keep(batches, tuning, scratch=scratch, folder=folder)
        took = {"before": asdict(before), "cost": asdict(cost)}
        (folder / FILE).write_text(json.dumps(took), encoding="utf-8")

    return store.get_or_make("tuned", key, build)


def cost(made: Collection[Path]) -> Cost:
    """Add up what the stages took, and once what came before them.

    That is the last stage's, which needs what the others do and more.
    """
    noted = [json.loads((folder / FILE).read_text(encoding="utf-8")) for folder in made]
    before = Cost(**noted[-1]["before"]) if noted else Cost()
    return sum((Cost(**each["cost"]) for each in noted), before)


def load(
    made: Mapping[str, Path], cascade: Cascade, *, tune: Mapping[str, Tuning], at: int | None
) -> dict[str, Weights]:
    """Read the tuned stages' weights after `at` steps of each (None: the last)."""
    weights = {}
    for name, folder in made.items():
        step = tune[name].steps if at is None else at
        read = parameters.load(snapshot_file(folder, name, step))
        weights[name] = tune[name].adapter.merged(read, cascade.stage(name).network)
    return weights


def unmoved(cascade: Cascade, tuned: Tuned) -> str:
    """Name the tuned stages whose weights all equal the base's, "" where there is none."""
    still = [
        name for name, weights in tuned.weights.items() if not cascade.stage(name).moved(weights)
    ]
    if not still:
        return ""
    return f"no weight of {' and '.join(still)} moved in {tuned.steps} steps; use a larger lr"


def check_kept(tune: Mapping[str, Tuning], at: int | None) -> None:
    """Refuse before anything is tuned a snapshot that one of the stages will not have."""
    for stage, tuning in tune.items():
        tuning.check_kept(stage, at)
