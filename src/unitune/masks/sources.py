"""Masks that need nothing but the benchmark, the model's own predictions or a first sampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune import prompts, rng
from unitune.diffusion.hold import MaskRequest, MaskSource
from unitune.diffusion.interpolation import Interpolation, Masks, grown
from unitune.diffusion.schedule import Image, Levels
from unitune.diffusion.stage import Condition, reduced
from unitune.types import Example, Inactive, Mask, Refused, number, whole

AUTO = "auto"


@dataclass(frozen=True)
class Given(MaskSource):
    """The request's own mask: of a benchmark, which knows the right answer, or the user's."""

    name: str = "file"

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse edits without a mask, and masks of another size or with nothing to change."""
        for example in examples:
            for request in example.requests:
                said = f"the edit {request.prompt!r} of {example.id}"
                if request.mask is None:
                    raise Refused(
                        f"{said} has no mask; give mask_file=FILE with image=, use a benchmark "
                        "whose edits carry masks, or mask=diffedit"
                    )
                if request.mask.shape[-2:] != example.image.shape[-2:]:
                    raise Refused(
                        f"the mask of {said} is {_size(request.mask)}, its picture "
                        f"{_size(example.image)}; give a mask of the picture's size"
                    )
                if not bool(request.mask.any()):
                    raise Refused(
                        f"the mask of {said} is black everywhere, so nothing may change; "
                        "paint white what may"
                    )

    def __call__(self, asked: MaskRequest) -> Masks:
        """Return the requests' masks."""
        requests = tuple(item.request for item in asked.items)
        self.check([replace(asked.example, requests=requests)])
        return torch.cat([request.mask for request in requests if request.mask is not None])


@dataclass(frozen=True, kw_only=True)
class FromNoise(MaskSource):
    """Reads one mask from the model's predictions for the base image, noised again and again.

    `start` is the time of that noise on Imagen's cosine schedule, and `noises` the number of its
    draws. What is above `threshold` is grown by `grow`, a share of the picture's side.
    """

    noises: int = 10
    start: float = 0.5
    threshold: float = 0.5
    grow: float = 0.0

    def __post_init__(self) -> None:
        count = "a whole number of at least 1"
        require(whole(self.noises) and self.noises >= 1, "noises", count, self.noises)
        gone = "in (0, 1) (cosine time; at 1 nothing of the picture is left)"
        require(number(self.start) and 0 < self.start < 1, "start", gone, self.start)
        check_area(self.threshold, self.grow)

    def noised(self, asked: MaskRequest, *, role: str) -> Iterator[tuple[Image, Levels]]:
        """Give x_t and t of the base image, twice each: for two texts, which share the noise.

        One draw after the other: together they would need so many times the memory.
        """
        stage, example = asked.cascade.stages[0], asked.example
        base = stage.encode(reduced(example.image, stage.resolution))
        t = torch.full((2,), stage.schedule.level(self.start))
        for k in range(self.noises):
            names = {"example": example.id, "stage": stage.name, "role": role, "step": k}
            eps = rng.noise(base.shape, seed=0, **names)
            yield stage.schedule.add_noise(base, eps, t[:1]).expand(2, -1, -1, -1), t


@dataclass(frozen=True, kw_only=True)
class DiffEdit(FromNoise):
    """Where the model's predictions for the edit and for a reference text differ.

    Couairon et al. (2022), arXiv 2210.11427, section 3.2, with its numbers: 10 draws of noise, half
    of the noise, threshold 0.5 after extreme values are clipped and the rest is scaled to [0, 1].
    "Half" is here the time `start`, as everywhere; the clip at 3 times the mean is diffusers'. The
    paper compares eps. At one level x_0 differs by the same up to a factor, which the scaling
    removes, as it does a guidance weight: neither changes the mask. One mask serves all seeds of a
    prompt.

    `reference` is a template with {tuned} or {caption}; "auto" is what the image was tuned on, else
    the caption, else no text.
    """

    name: str = "diffedit"
    reference: str = AUTO
    clip: float = 3.0  # times the mean difference

    def __post_init__(self) -> None:
        super().__post_init__()
        above = "above 0 (times the mean difference)"
        require(number(self.clip) and self.clip > 0, "clip", above, self.clip)

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse a template that an example cannot fill."""
        for example in examples:
            self._reference(example, "x")

    def texts(self, example: Example, *, about: str) -> list[str]:
        """List the reference."""
        return [self._reference(example, about)]

    def __call__(self, asked: MaskRequest) -> Masks:
        """Compare each prompt with the reference, once."""
        away = self._reference(asked.example, asked.about)
        texts = [item.prompt for item in asked.items]
        masks = {text: self._mask(asked, text, away) for text in dict.fromkeys(texts)}
        return torch.cat([masks[text] for text in texts])

    def difference(self, asked: MaskRequest, text: str, away: str) -> Float[Tensor, "1 1 h w"]:
        """Average |x_0(text) - x_0(away)| over noise and channels, of the first stage's size."""
        stage, condition = asked.cascade.stages[0], Condition(asked.cascade.encode([text, away]))
        d = torch.zeros(())
        for x_t, t in self.noised(asked, role="diffedit"):
            x_0, x_away = stage.predict(x_t, t, condition).chunk(2)
            d = d + (x_0 - x_away).abs()
        return d.mean(dim=1, keepdim=True) / self.noises

    def _mask(self, asked: MaskRequest, text: str, away: str) -> Masks:
        d = self.difference(asked, text, away)
        m = d.clamp(max=self.clip * d.mean()) / (self.clip * d.mean()) > self.threshold
        if not bool(m.any()):  # NaN is above nothing, where the texts do not differ at all
            raise Inactive(
                f"mask=diffedit finds no place where {text!r} and {away!r} differ; "
                f"set mask.reference, or lower mask.threshold={self.threshold}"
            )
        side = asked.example.image.shape[-1]
        return grown(F.interpolate(m.float(), (side, side), mode="nearest"), self.grow)

    def _reference(self, example: Example, about: str) -> str:
        template = self.reference
        if "{rare}" in template:
            raise Refused(
                f"mask.reference {template!r} has {{rare}}, which is a part of what was tuned on; "
                "{tuned} is the whole of it"
            )
        if template == AUTO:
            template = "{tuned}" if about else "{caption}" if example.caption.strip() else ""
        known = {"caption": example.caption, "noun": example.noun, "tuned": about}
        return prompts.fill(template, rare="", edit="", **known) if template else ""


@dataclass(frozen=True)
class Difference(MaskSource):
    """Where a first sampling without a mask changed the picture, as interpolation finds it.

    The second sampling holds the rest at every step. A mask may be empty, where the edit changed
    nothing that counts.
    """

    name: str = "difference"
    estimate: Interpolation = field(default_factory=Interpolation)

    def __call__(self, asked: MaskRequest) -> Masks:
        """Sample every edit once more."""
        x = asked.sample()
        return (self.estimate.mask(x, asked.example.image.expand_as(x)) >= 0.5).float()


def require(fits: bool, name: str, allowed: str, value: object) -> None:
    """Refuse a setting of a mask that does not fit."""
    if not fits:
        raise Refused(f"mask.{name} must be {allowed}, got {value}")


def check_area(threshold: float, grow: float) -> None:
    """Refuse a threshold or a growth that no mask can have."""
    require(number(threshold) and 0 < threshold < 1, "threshold", "in (0, 1)", threshold)
    share = "in [0, 1) (share of the picture's side)"
    require(number(grow) and 0 <= grow < 1, "grow", share, grow)


def _size(picture: Image | Mask) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]} px"
