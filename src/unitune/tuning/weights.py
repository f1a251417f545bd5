"""Tuned weights of stages: what each is tuned on, the stored result, whether anything moved."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from unitune.models import parameters
from unitune.models.cascade import Cascade
from unitune.models.stage import UNetStage
from unitune.tuning import naming
from unitune.tuning.data import ClassPictures
from unitune.tuning.finetune import snapshot_file
from unitune.tuning.learned import Learned
from unitune.tuning.recipe import Prior, Tuning
from unitune.tuning.work import Work, costs
from unitune.types import Cost, Tuned, Weights


def tuned_stage(work: Work, name: str, tuning: Tuning, learned: Learned | None) -> Path:
    """Tune a stage, or find the stored result; return its entry.

    Each stage has an entry of its own, as none knows of the others: other choices of `stage=` find
    it, too. The weights are tuned around an embedding that was `learned` before.
    """
    recipe, stage = work.recipe, work.cascade.stage(name)
    is_first = name == work.cascade.stages[0].name
    kinds = [type(tuning.optimizer).__name__, type(tuning.adapter).__name__]
    about: dict[str, object] = {"stage": name, "tune": asdict(tuning) | {"kinds": kinds}}
    about["prompt" if recipe.embedding is None else "text"] = work.text
    if recipe.embedding is not None and is_first:
        about["optimise"] = asdict(recipe.embedding)
    if recipe.prior is not None:
        stages = _up_to(work.cascade, name)
        images = recipe.prior.images.key(
            work.cascade, naming.filled(recipe.prior.prompt, work.example),
            stages=stages, seed=work.seed,
        )  # fmt: skip
        about |= {"prior": recipe.prior.weight, "class_images": images}
    key = work.key(stage, about)

    def build(folder: Path) -> None:
        before, prior = Cost(), None
        text, first = work.cascade.encode([work.text]), 0
        if learned is not None:
            before = learned.cost
            if is_first:  # which goes on with the noise where the embedding stopped
                text, first = learned.tensor, before.optimizer_steps
        if recipe.prior is not None:
            prior, before = class_pictures(work, recipe.prior, stage)
        data = work.batches(stage, tuning, text, first=first, prior=prior)
        work.fit_into(folder, "tuned", key, data, tuning, before=before)

    return work.store.get_or_make("tuned", key, build)


def class_pictures(work: Work, prior: Prior, stage: UNetStage) -> tuple[ClassPictures, Cost]:
    """Sample pictures of the class, once for all its images, or read them; and their cost."""
    prompt = naming.filled(prior.prompt, work.example)
    needed = [_up_to(work.cascade, name) for name in work.recipe.weights]
    made, cost = prior.images.pictures(
        work.cascade, prompt, stages=max(needed, key=len), store=work.store, seed=work.seed
    )
    lows = made[_up_to(work.cascade, stage.name)[-2]] if stage.low_resolution else None
    text = work.cascade.encode([prompt])
    return ClassPictures(made[stage.name], lows, prompt, text, prior.weight), cost


def _up_to(cascade: Cascade, name: str) -> list[str]:
    """List a stage and those below it, all that its pictures are made by."""
    names = [stage.name for stage in cascade.stages]
    return names[: 1 + names.index(name)]


def cost(entries: list[Path]) -> Cost:
    """Add up what the stages took, and once what came before them.

    That is the last stage's, which needs what the others do and more.
    """
    noted = [costs(entry) for entry in entries]
    before = noted[-1]["before"] if noted else Cost()
    return sum((each["cost"] for each in noted), before)


def load(
    entries: Mapping[str, Path], cascade: Cascade, *, tune: Mapping[str, Tuning], at: int | None
) -> dict[str, Weights]:
    """Read the tuned stages' weights after `at` steps of each (None: the last)."""
    weights = {}
    for name, folder in entries.items():
        step = tune[name].steps if at is None else at
        stored = parameters.load(snapshot_file(folder, name, step))
        weights[name] = tune[name].adapter.merged(stored, cascade.stage(name).network)
    return weights


def unmoved(cascade: Cascade, tuned: Tuned) -> str:
    """Name the tuned stages whose weights all equal the base's, "" where there is none."""
    still = [name for name, own in tuned.weights.items() if not cascade.stage(name).moved(own)]
    if not still:
        return ""
    return f"no weight of {' and '.join(still)} moved in {tuned.steps} steps; use a larger lr"
