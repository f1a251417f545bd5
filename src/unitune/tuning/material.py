"""What the weights of stages are tuned on: the one image, and pictures of its class where asked."""

from collections.abc import Callable
from functools import cache

from torch import Tensor

from unitune.models.cascade import Cascade
from unitune.storage.store import Store
from unitune.tuning.data import Batches, OneImage
from unitune.tuning.finetune import Tuning
from unitune.tuning.naming import filled
from unitune.tuning.prior import Pictures, WithPrior
from unitune.tuning.recipe import Prior, Recipe
from unitune.tuning.weights import Material
from unitune.types import Cost, Example


def material(
    recipe: Recipe, prompt: str, cascade: Cascade, example: Example, *, store: Store, seed: int
) -> Material:
    """The image with its one text, and where a prior is asked for pictures of its class."""
    about: dict[str, object] = {"recipe": recipe.kind, "prompt": prompt, "seed": seed}
    about["image"] = example.digest

    def one_image(name: str, tuning: Tuning) -> OneImage:
        text = cascade.encode([prompt])
        size, dials = tuning.batch_size, tuning.dials
        return OneImage(cascade.stage(name), example, text, seed, size, dials)

    if recipe.prior is None:
        return Material(one_image, lambda stage: about)
    return _with_prior(
        recipe.prior, [*recipe.weights], one_image, about, cascade, example, store=store, seed=seed
    )


def _with_prior(
    prior: Prior, tuned: list[str], one_image: Callable[[str, Tuning], OneImage],
    about: dict[str, object], cascade: Cascade, example: Example, *, store: Store, seed: int,
) -> Material:  # fmt: skip
    """Add pictures of the class, sampled before and once for all images of the class."""
    of_class = filled(prior.prompt, example)
    order = [stage.name for stage in cascade.stages]
    # A super-resolution stage needs what it super-resolves; no stage depends on later ones.
    needed = {name: order[: 1 + order.index(name)] for name in tuned}
    longest = max(needed.values(), key=len, default=[])

    def key(stage: str) -> dict[str, object]:
        images = prior.images.key(cascade, of_class, stages=needed[stage], seed=seed)
        return about | {"prior": prior.weight, "class_images": images}

    @cache
    def pictures() -> tuple[dict[str, Tensor], Cost]:
        return prior.images.pictures(cascade, of_class, stages=longest, store=store, seed=seed)

    def batches(name: str, tuning: Tuning) -> Batches:
        stage, (made, _) = cascade.stage(name), pictures()
        lows = made[order[order.index(name) - 1]] if stage.low_resolution else None
        other = Pictures(
            stage, made[name], lows, cascade.encode([of_class]), of_class, seed,
            tuning.batch_size, tuning.dials,
        )  # fmt: skip
        return WithPrior(one_image(name, tuning), other, prior.weight)

    return Material(batches, key, before=lambda: pictures()[1])
