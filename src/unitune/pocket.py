"""The embedded cascade for scripts and notebooks, which know no config: its files, and how conf/model/pocket.yaml samples it (a test holds the two equal)."""

from pathlib import Path

from unitune import machine
from unitune.backends.cascade import Cascade, load
from unitune.diffusion.sampling import SuperResolution

FOLDER = Path(__file__).parent / "assets" / "pocket"
STAGES = ("base", "sr256")
STEPS = 16  # network steps of the first stage, ancestral
GUIDANCE = 2.0  # weight of plain sampling
START, WEIGHT = 0.85, 2.0  # of UniTune's sampler
SR = SuperResolution(steps=4, start=0.8, noise_level=0.05)


def cascade(folder: Path = FOLDER, *, device: str = "auto", precision: str = "auto") -> Cascade:
    """Load the embedded cascade, or one that was trained in its place."""
    chosen = machine.device(device)
    return load("pocket", folder, stages=STAGES, device=chosen, dtype=machine.precision(precision, chosen))
