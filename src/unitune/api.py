"""One edit in a few lines of Python: load a model, read a picture, tune, sample."""

from collections.abc import Sequence
from pathlib import Path

from unitune import images
from unitune.diffusion.sampler import Sampler
from unitune.methods import Method
from unitune.models import cascade, machine
from unitune.models.cascade import Cascade
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.types import Draw, Edit, Example, Picture, Tuned


def load(
    folder: Path | str, *, stages: Sequence[str] = ("base", "sr256"), device: str = "auto",
    precision: str = "auto",
) -> Cascade:  # fmt: skip
    """Load an IF-shaped cascade from a folder with one subfolder per stage.

    `device` is auto, cpu or cuda, `precision` auto, fp32 or bf16. Raises Refused where a part of
    the folder is missing or is of another kind.
    """
    chosen = machine.device(device)
    dtype = machine.precision(precision, chosen)
    folder = Path(folder)
    return cascade.load(folder.name, folder, stages=stages, device=chosen, dtype=dtype)


def picture(file: Path | str, model: Cascade, *, fit: str = "crop") -> Picture:
    """Read a picture as a square of the model's resolution, (1, 3, S, S) in [-1, 1].

    `fit` says how: crop (the centre), pad (grey) or squash. Raises Refused for what is no picture.
    """
    return images.load(file, size=model.resolution, fit=fit).image


def tune(
    method: Method, model: Cascade, example: Example, *, store: Store | Path | str = "store",
    seed: int = 0, at: int | None = None,
) -> Tuned:  # fmt: skip
    """Make what a method asks for, or take it from the store.

    `at` picks a snapshot by its step: None is the last one, 0 the untouched weights.
    """
    place = store if isinstance(store, Store) else Store(Path(store))
    return make.prepare(method.recipe(example), model, example, store=place, seed=seed, at=at)


def sample(
    sampler: Sampler, model: Cascade, example: Example, tuned: Tuned, *, seeds: int = 1
) -> list[Edit]:
    """Sample every request of an example, `seeds` times each, with the tuned weights in place."""
    draws = [Draw(request, seed) for request in example.requests for seed in range(seeds)]
    with model.using(tuned):
        return sampler(model, example, tuned=tuned, draws=draws)
