"""How stages are sampled: the dials that every stage has, and those of the later ones."""

from dataclasses import dataclass, field

from unitune.diffusion.guidance import OFF, Guidance
from unitune.diffusion.steps import DDIM, DDPM, Step
from unitune.types import Refused, number, whole

PURE_NOISE = 1.0


@dataclass(frozen=True, kw_only=True)
class StageSampling:
    """Where sampling of a stage starts (cosine time; 1 = pure noise), its steps, its guidance."""

    start: float = PURE_NOISE
    steps: int = 32
    step: Step = field(default_factory=DDPM)
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        if not (number(self.start) and 0 < self.start <= 1):
            bounds = "in (0, 1] (cosine time; 1 = pure noise)"
            raise Refused(f"{self._where}.start must be {bounds}, got {self.start}")
        if not (whole(self.steps) and self.steps >= 1):
            raise Refused(
                f"{self._where}.steps must be a whole number of at least 1, got {self.steps}"
            )

    @property
    def _where(self) -> str:
        return "sampler"


@dataclass(frozen=True, kw_only=True)
class SuperResolution(StageSampling):
    """How the later stages are sampled; no text of the paper gives numbers for them.

    A start below 1 begins at the upsampled low-resolution picture noised to it: a weak stage strays
    less. `noise_level` in [0, 1] is Imagen's augmentation level of that picture.
    """

    steps: int = 12
    step: Step = field(default_factory=DDIM)
    guidance: Guidance = field(default_factory=lambda: Guidance(weight=OFF))
    noise_level: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (number(self.noise_level) and 0 <= self.noise_level <= 1):
            raise Refused(f"sr.noise_level must be in [0, 1], got {self.noise_level}")

    @property
    def _where(self) -> str:
        return "sr"
