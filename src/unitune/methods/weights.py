"""What the methods that tune weights share: the tuning prompt, the room that a tuning takes, the stored result, and whether anything moved."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unitune import parameters, prompts
from unitune.backends.cascade import Cascade
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.data import UNIFORM, Batches
from unitune.tuning.finetune import StepDone, Tuning, fit, keep, snapshot_file
from unitune.types import Cost, Example, Refused, Tuned, Weights

FILE = "tuning.json"  # of a stored tuning: what it took


@dataclass(frozen=True)
class Recipe:
    """One tuning: `tune` says how, by stage, `batches` on what.

    key(stage) holds everything that decides the result, beside `tune`, the base weights and the arithmetic.
    `names` is what sampling is told of the image. `before` makes what the batches need and says what that took; not called for a stage that is stored.
    """

    tune: Mapping[str, Tuning]
    batches: Callable[[str, Tuning], Batches]
    key: Callable[[str], Mapping[str, object]]
    names: Tuned
    before: Callable[[], Cost] = Cost


def room(tune: Mapping[str, Tuning], sizes: Sizes, *, at: int | None) -> tuple[int, int]:
    """Refuse a snapshot that is not kept; count float32 bytes.

    They are every kept snapshot; while tuning once more, and a checkpoint of what is trained and its two moments, written aside.
    """
    check_kept(tune, at)
    kept = working = 0
    for stage, counts in sizes.items():
        if stage in tune and tune[stage].steps:
            trained = 4 * tune[stage].adapter.size(counts, tune[stage].select)
            kept += trained * len(tune[stage].kept)
            working = max(working, 2 * 3 * trained)
    return (0, 0) if at == 0 else (kept, kept + working)


def rare(text: str, cascade: Cascade, example: Example, *, seed: int) -> str:
    """Return what names the image: the text as it is, with its caption, or for "{random}" drawn by the seed with DreamBooth's rule."""
    if text == prompts.RANDOM:
        return prompts.random_rare_token(cascade.pieces, seed=seed)
    if "{rare}" in text:
        raise Refused(f"the tuning prompt {text!r} asks for {{rare}}, which is what it names itself; write the rare token out, e.g. token.text=beikkpic")
    return prompts.fill(text, rare="", edit="", caption=example.caption, noun=example.noun)


def tuned(recipe: Recipe, cascade: Cascade, *, store: Store, at: int | None, report: StepDone | None) -> Tuned:
    """Tune each stage for its steps, or read the stored result; `at` picks a snapshot (0: untouched weights, nothing is tuned)."""
    if at == 0:
        return recipe.names
    check_kept(tune := recipe.tune, at)
    made = {name: _stage(recipe, name, cascade, store=store, report=report) for name, tuning in tune.items() if tuning.steps}
    steps = max((tuning.steps if at is None else at for tuning in tune.values()), default=0)
    low_levels = {name: float(tune[name].low_level) for name in made if tune[name].low_level != UNIFORM}
    weights = load(made, cascade, tune=tune, at=at)
    stored = {name: folder.name for name, folder in made.items()}
    return replace(recipe.names, weights=weights, steps=steps, cost=_cost(made.values()), low_levels=low_levels, stored=stored)


def _stage(recipe: Recipe, name: str, cascade: Cascade, *, store: Store, report: StepDone | None) -> Path:
    """Return the stored tuning of one stage. Each stage has its own entry, as none of them knows of the others: other choices of `stage=` find it too."""
    tuning = recipe.tune[name]
    how = asdict(tuning) | {"kinds": [type(tuning.optimizer).__name__, type(tuning.adapter).__name__]}
    arithmetic = [cascade.stage(name).arithmetic, cascade.words.arithmetic]
    loss = asdict(cascade.stage(name).loss)
    key = {**recipe.key(name), "stage": name, "tune": how, "loss": loss, "weights": cascade.digest, "arithmetic": arithmetic}

    def build(folder: Path) -> None:
        before, scratch, batches = recipe.before(), store.scratch("tuned", key), recipe.batches(name, tuning)
        fit(batches, tuning, folder=scratch, report=report)
        cost = keep(batches, tuning, scratch=scratch, folder=folder)
        (folder / FILE).write_text(json.dumps({"before": asdict(before), "cost": asdict(cost)}))

    return store.get_or_make("tuned", key, build)


def _cost(made: Collection[Path]) -> Cost:
    """Add up what the stages took, and once what came before them: the last stage's, which needs what the others do and more."""
    noted = [json.loads((folder / FILE).read_text()) for folder in made]
    return sum((Cost(**each["cost"]) for each in noted), Cost(**noted[-1]["before"]) if noted else Cost())


def load(made: Mapping[str, Path], cascade: Cascade, *, tune: Mapping[str, Tuning], at: int | None) -> dict[str, Weights]:
    """Read the tuned stages' weights after `at` steps of each (None: the last)."""
    weights = {}
    for name, folder in made.items():
        stored = parameters.load(snapshot_file(folder, name, tune[name].steps if at is None else at))
        weights[name] = tune[name].adapter.merged(stored, cascade.stage(name).network)
    return weights


def unmoved(cascade: Cascade, tuned: Tuned) -> str:
    """Name the tuned stages whose weights all equal the base's, "" where there is none."""
    still = [name for name, weights in tuned.weights.items() if not cascade.stage(name).moved(weights)]
    return f"no weight of {' and '.join(still)} moved in {tuned.steps} steps; use a larger lr" if still else ""


def check_kept(tune: Mapping[str, Tuning], at: int | None) -> None:
    """Refuse before anything is tuned a snapshot that one of the stages will not have."""
    for stage, tuning in tune.items():
        tuning.check_kept(stage, at)


def check(tune: Mapping[str, Tuning], stages: Sequence[str]) -> None:
    """Refuse a stage to tune that has no settings."""
    if missing := [stage for stage in stages if stage not in tune]:
        raise Refused(f"no tuning settings for stage {missing[0]!r}; method.tune has {', '.join(tune)}")
