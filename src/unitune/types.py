"""The nouns of the framework and the conventions that every module keeps.

Conventions
- Images are float32 in [-1, 1], shape (B, C, H, W). x_0 is always data; `t` indexes alpha_bar, 0 is
  least noisy.
- `start` in (0, 1] is the paper's unit: time on Imagen's cosine schedule, 1 = pure noise. A
  schedule converts it by equal log-SNR.
- Guidance is `x_ref + weight * (x - x_ref)`; weight 1 is "off" and costs one forward pass.
- A stage predicts x_0 in float32, whatever its network gives.
- `seed` is the run's (it names the tuning noise), `seeds` are the samples per prompt.
- Zero tuning steps tunes nothing and is legal; negative is refused.
- Same seed, torch build, device, thread count and batch -> same bytes.

Letters in shapes: B batch, C channels, H W pixels, L tokens, D width of a token, T noise levels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from unitune.errors import Diverged as Diverged
from unitune.errors import Inactive as Inactive
from unitune.errors import Refused as Refused
from unitune.errors import Stopped as Stopped
from unitune.errors import number as number
from unitune.errors import whole as whole

Picture = Float[Tensor, "1 3 H W"]
Mask = Float[Tensor, "1 1 H W"]  # 1 where the picture may change, 0 where it must stay
Weights = Mapping[str, Tensor]  # parameter name -> tensor


@dataclass(frozen=True)
class Request:
    """One edit that is asked for: a short description of the desired result, and its right answer.

    `instruction` says the same edit as an instruction ("make it night"). `local`: less than half of
    the picture may change. `composed_alike`: every object of the base has its place and outline in
    the result, so that the two can be blended (None: nobody said). `facts` is what a judge must
    find in the result, e.g. {"nouns": ["cat"], "place": "snow", "time": "day", "style": "plain"}.
    Two parts of them may be told apart: `appear` holds the facts of the result that the base image
    lacks, here {"place": "snow"}, and `stay` the facts of the base image that the edit keeps.
    """

    prompt: str
    kind: str = ""
    instruction: str = ""
    local: bool | None = None
    composed_alike: bool | None = None
    target: Picture | None = None
    mask: Mask | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    appear: Mapping[str, object] = field(default_factory=dict)
    stay: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise Refused(
                "an edit prompt is empty; describe the desired result, "
                "e.g. edit='a cat in the snow'"
            )


@dataclass(frozen=True)
class Example:
    """One base image with the edits asked for; one tuning serves them all.

    Where a method needs that: `caption` describes the base image, `noun` is the class of its main
    object ("cat").
    """

    id: str
    image: Picture
    requests: tuple[Request, ...]
    caption: str = ""
    noun: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the pixels: the image's part of a tuning's key."""
        return hashlib.sha256(self.image.contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Cost:
    """What a piece of work took, such as a tuning."""

    seconds: float = 0.0
    peak_mib: float = 0.0  # resident memory of the process, or of the GPU where one is used
    optimizer_steps: int = 0
    network_evaluations: int = 0  # pictures that passed through networks
    stored_bytes: int = 0  # of the result on disk, snapshots included

    def __add__(self, other: "Cost") -> "Cost":
        """One after the other: what was used up is added, of the peaks the higher one stays."""
        return Cost(
            self.seconds + other.seconds,
            max(self.peak_mib, other.peak_mib),
            self.optimizer_steps + other.optimizer_steps,
            self.network_evaluations + other.network_evaluations,
            self.stored_bytes + other.stored_bytes,
        )


@dataclass(frozen=True)
class Tuned:
    """What a method makes before sampling.

    `weights` replace those of a stage (changed tensors only, float32); `prompt` names the image,
    and `template` puts it into an edit prompt where the sampler has no template of its own.
    `tokens` are learned words: a word of the prompt and its vectors (n, D) in the text encoder's
    table (Textual Inversion). `embedding` (1, L, D) is a learned embedding of the one edit prompt
    (Imagic). `start` is where the vectors or the embedding began. `about` is the whole text that
    the image was tuned on, of which `prompt` may be a part. `cost` is what making it took when it
    was made, also when it comes from the store, whose entries of tuned weights `stored` names by
    stage.
    """

    prompt: str = ""
    weights: Mapping[str, Weights] = field(default_factory=dict)
    template: str = "{rare} {edit}"
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None
    start: Tensor | None = None
    steps: int = 0
    cost: Cost = field(default_factory=Cost)
    about: str = ""
    stored: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """One sample to take; `weight` and `start` where they differ from the sampler's."""

    request: Request
    seed: int
    weight: float | None = None
    start: float | None = None


@dataclass(frozen=True)
class Edit:
    """One finished sample.

    `stages` are the pictures of every stage, interpolated as `image` is; `mask` is what that used
    (1 = the edit's pixels; None: nothing). `allowed` is where a mask source let sampling change the
    picture.
    """

    example: Example
    request: Request
    seed: int
    weight: float
    start: float
    prompt: str  # the whole text that was sampled
    image: Picture
    stages: Mapping[str, Picture] = field(default_factory=dict)
    mask: Mask | None = None
    allowed: Mask | None = None


class Metric(Protocol):
    """A score of edits against their example.

    `card` says what the number is: backbone, preprocessing, version.
    """

    name: str
    higher_is_better: bool
    card: Mapping[str, str]

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits, one number each; NaN where the metric does not apply."""
        ...
