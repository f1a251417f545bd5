"""How UniTune tunes each stage of the embedded cascade, for scripts and notebooks."""

from unitune.models.pocket import CROP, LR, SR_LR, TUNING_STEPS
from unitune.tuning.finetune import Tuning


def tunings(steps: int = TUNING_STEPS) -> dict[str, Tuning]:
    """Return the tuning of every stage by its name."""
    first = Tuning(lr=LR, steps=steps)
    return {"base": first, "sr256": Tuning(lr=SR_LR, steps=steps, crop=CROP)}
