"""The embedded cascade for scripts and notebooks, which know no config.

Its files, and how conf/model/pocket.yaml tunes and samples it (a test holds the two equal).
"""

from pathlib import Path

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.models import machine
from unitune.models.cascade import Cascade, load

FOLDER = Path(__file__).parents[1] / "assets" / "pocket"
STAGES = ("base", "sr256")
STEPS = 16  # network steps of the first stage, ancestral
GUIDANCE = 2.0  # weight of plain sampling
START, WEIGHT = 0.9, 4.0  # of UniTune's sampler
LR, SR_LR = 2.5e-4, 2.5e-4  # of UniTune's tuning with AdamW, of the first stage and the second
CROP = 64  # px of the crops that the second stage is tuned on
TUNING_STEPS = 64
SR = SuperResolution(steps=4, start=0.8, noise_level=0.05)


def cascade(folder: Path = FOLDER, *, device: str = "auto", precision: str = "auto") -> Cascade:
    """Load the embedded cascade, or one that was trained in its place."""
    chosen = machine.device(device)
    dtype = machine.precision(precision, chosen)
    return load("pocket", folder, stages=STAGES, device=chosen, dtype=dtype)


def sampler(name: str = "unitune") -> Sampler:
    """Return UniTune's sampler with the dials that suit the embedded cascade."""
    return Sampler(name, start=START, steps=STEPS, guidance=Guidance(WEIGHT), sr=SR)
