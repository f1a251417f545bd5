"""The embedded cascade for scripts and notebooks, which know no config: `unitune.pocket`."""

from unitune.models.pocket import CROP, LR, SR_LR, TUNING_STEPS, cascade, sampler
from unitune.tuning.recipe import Tuning

__all__ = ["cascade", "sampler", "tunings"]


def tunings(steps: int = TUNING_STEPS) -> dict[str, Tuning]:
    """Return how UniTune tunes each of its stages, by name."""
    first = Tuning(lr=LR, steps=steps)
    return {"base": first, "sr256": Tuning(lr=SR_LR, steps=steps, crop=CROP)}
