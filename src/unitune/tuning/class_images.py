"""Pictures of a class by the untouched model, sampled once per class and kept in the store."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.models import parameters
from unitune.models.cascade import Cascade
from unitune.storage.cost import peak_memory_mib
from unitune.storage.store import Store
from unitune.types import Cost, Draw, Edit, Example, Inactive, Refused, Request, Tuned, whole

FILE, ABOUT = "pictures.safetensors", "cost.json"
AT_ONCE = 64  # pictures that are held in float32
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassImages:
    """How many, and the plain sampler that makes them.

    That is classifier-free guidance of `weight` and DDPM's ancestral steps from pure noise.
    """

    count: int = 16
    steps: int = 32
    weight: float = 6.0
    sr: SuperResolution = field(default_factory=SuperResolution)

    def __post_init__(self) -> None:
        if not (whole(self.count) and self.count >= 1):
            raise Refused(
                f"class_images.count must be a whole number of at least 1, got {self.count!r}; "
                "method.prior=0 tunes without class images"
            )
        self.sampler  # noqa: B018  # refuses what a sampler refuses

    @property
    def sampler(self) -> Sampler:
        """The sampler; it knows nothing of the image."""
        guidance = Guidance(self.weight)
        return Sampler(
            "class images", template="{edit}", steps=self.steps, guidance=guidance, sr=self.sr
        )

    def key(
        self, cascade: Cascade, prompt: str, *, stages: Sequence[str], seed: int
    ) -> dict[str, object]:
        """Name the pictures by what they are made from, which is not the image."""
        steps = {"step": self.sampler.step, "sr_step": self.sr.step}
        sampler = asdict(self) | {name: type(step).__name__ for name, step in steps.items()}
        if len(stages) == 1:  # whose pictures no dial of super-resolution changes
            sampler = {name: dial for name, dial in sampler.items() if not name.startswith("sr")}
        arithmetic = {stage: cascade.stage(stage).arithmetic for stage in stages}
        return {
            "prompt": prompt,
            "weights": cascade.digest,
            "arithmetic": arithmetic | {"text": cascade.text_encoder.arithmetic},
            "seed": seed,
            "sampler": sampler,
        }

    def pictures(
        self, cascade: Cascade, prompt: str, *, stages: Sequence[str], store: Store, seed: int
    ) -> tuple[dict[str, Tensor], Cost]:
        """Sample with the model's present weights, or read from the store.

        Returns (N, 3, H, W) in [-1, 1] by stage, and what making them took.
        """

        def build(folder: Path) -> None:
            log.info("sampling %d pictures of %r with the untouched model", self.count, prompt)
            began, before = time.monotonic(), cascade.evaluations
            edits = self._sampled(cascade, prompt, stages, seed)
            made = {
                stage: torch.cat([_to_bytes(e.stages[stage]) for e in edits]) for stage in stages
            }
            save_file(made, folder / FILE)
            seconds, evaluations = time.monotonic() - began, cascade.evaluations - before
            stored = (folder / FILE).stat().st_size
            cost = Cost(seconds, peak_memory_mib(), 0, evaluations, stored)
            (folder / ABOUT).write_text(json.dumps(asdict(cost)))

        key = self.key(cascade, prompt, stages=stages, seed=seed)
        with store.get_or_make("class_images", key, build) as entry:
            stored = parameters.load(entry / FILE)
            made = {stage: pictures.float() / 127.5 - 1 for stage, pictures in stored.items()}
            cost = Cost(**json.loads((entry / ABOUT).read_text()))
        first = made[stages[0]]
        if len(first) > 1 and bool((first == first[:1]).all()):
            raise Inactive(
                f"all {len(first)} pictures of {prompt!r} are the same, which is no prior; "
                "use other method.class_images settings"
            )
        return made, cost

    def _sampled(
        self, cascade: Cascade, prompt: str, stages: Sequence[str], seed: int
    ) -> list[Edit]:
        part = replace(cascade, stages=[cascade.stage(stage) for stage in stages])
        # The sampler's base image, which is not seen at a start of 1.
        nothing = torch.zeros(1, 3, part.resolution, part.resolution)
        example = Example("class images", nothing, (Request(prompt),))
        draws = [Draw(example.requests[0], seed * self.count + k) for k in range(self.count)]
        edits: list[Edit] = []
        for k in range(0, len(draws), AT_ONCE):
            edits += self.sampler(part, example, tuned=Tuned(), draws=draws[k : k + AT_ONCE])
        return edits


def _to_bytes(picture: Tensor) -> Tensor:
    """One byte per value, as pictures are stored."""
    return ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
