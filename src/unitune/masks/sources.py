"""Masks that need nothing but the benchmark, the model's own predictions or a first sampling."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune import prompts, rng
from unitune.diffusion import blend
from unitune.diffusion.blend import Masks
from unitune.diffusion.hold import MaskRequest
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import Condition
from unitune.types import Example, Inactive, Mask, Refused, number, whole

AUTO = "auto"


@dataclass(frozen=True)
class Given:
    """The request's own mask: of a benchmark, where it knows the right answer, or drawn by the user."""

    name: str = "file"

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse edits without a mask, and masks of another size or without anything that may change."""
        for example in examples:
            for request in example.requests:
                said = f"the edit {request.prompt!r} of {example.id}"
                if request.mask is None:
                    raise Refused(
                        f"{said} has no mask; give mask_file=FILE with image=, use a benchmark whose edits carry masks, or mask=diffedit"
                    )
                if request.mask.shape[-2:] != example.image.shape[-2:]:
                    raise Refused(
                        f"the mask of {said} is {_size(request.mask)}, its picture {_size(example.image)}; give a mask of the picture's size"
                    )
                if not bool(request.mask.any()):
                    raise Refused(
                        f"the mask of {said} is black everywhere, so nothing may change; paint white what may"
                    )

    def texts(self, example: Example, *, about: str) -> list[str]:
        """Embed nothing."""
        return []

    def __call__(self, asked: MaskRequest) -> Masks:
        """Return the requests' masks."""
        asked_for = Example(
            asked.example.id, asked.example.image, tuple(draw.request for draw in asked.draws)
        )
        self.check([asked_for])
        return torch.cat(
            [draw.request.mask for draw in asked.draws if draw.request.mask is not None]
        )


@dataclass(frozen=True)
class DiffEdit:
    """Where the model's predictions for the edit and for a reference text differ (Couairon et al. 2022, arXiv 2210.11427, section 3.2).

    Its numbers: 10 draws of noise, half of the noise, threshold 0.5 after extreme values are clipped and the rest is scaled to [0, 1]. "Half" is here the time
    `start` of Imagen's cosine schedule, as everywhere; the clip at 3 times the mean is diffusers'. The paper compares eps. At one level x_0 differs by the
    same up to a factor, which the scaling removes, as it does a guidance weight: neither changes the mask. One mask serves all seeds of a prompt.
    """

    name: str = "diffedit"
    reference: str = AUTO  # a template with {tuned}, {caption}; auto: what the image was tuned on, else the caption, else no text
    noises: int = 10
    start: float = 0.5
    threshold: float = 0.5
    clip: float = 3.0  # times the mean difference
    grow: float = 0.0  # share of the picture's side

    def __post_init__(self) -> None:
        check_numbers(
            noises=self.noises, start=self.start, threshold=self.threshold, grow=self.grow
        )
        if not (number(self.clip) and self.clip > 0):
            raise Refused(f"mask.clip must be above 0 (times the mean difference), got {self.clip}")

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
        masks = {text: self._mask(asked, text, away) for text in dict.fromkeys(asked.texts)}
        return torch.cat([masks[text] for text in asked.texts])

    def difference(self, asked: MaskRequest, text: str, away: str) -> Float[Tensor, "1 1 h w"]:
        """Average |x_0(text) - x_0(away)| over noise draws and channels, at the resolution of the first stage's x_0."""
        stage, example = asked.stage, asked.example
        base = stage.encode(blend.reduced(example.image, stage.resolution))
        t = torch.full((2,), stage.schedule.level(self.start))
        condition = Condition(asked.encode([text, away]))
        d = torch.zeros_like(base)
        for k in range(
            self.noises
        ):  # one after another: together they would need so many times the memory
            eps = rng.noise(
                base.shape, seed=0, example=example.id, stage=stage.name, role="diffedit", step=k
            )
            x_t = stage.schedule.add_noise(base, eps, t[:1]).expand(2, -1, -1, -1)
            x_0, x_away = stage.predict(x_t, t, condition).chunk(2)
            d += (x_0 - x_away).abs()
        return d.mean(dim=1, keepdim=True) / self.noises

    def _mask(self, asked: MaskRequest, text: str, away: str) -> Masks:
        d = self.difference(asked, text, away)
        m = d.clamp(max=self.clip * d.mean()) / (self.clip * d.mean())
        if not bool((m > self.threshold).any()):  # NaN, too, where nothing differs at all
            raise Inactive(
                f"mask=diffedit finds no place where {text!r} and {away!r} differ; set mask.reference, or lower mask.threshold={self.threshold}"
            )
        side = asked.example.image.shape[-1]
        return grown(
            F.interpolate((m > self.threshold).float(), (side, side), mode="nearest"), self.grow
        )

    def _reference(self, example: Example, about: str) -> str:
        template = self.reference
        if "{rare}" in template:
            raise Refused(
                f"mask.reference {template!r} has {{rare}}, which is a part of what was tuned on; {{tuned}} is the whole of it"
            )
        if template == AUTO:
            template = "{tuned}" if about else "{caption}" if example.caption.strip() else ""
        return (
            prompts.fill(
                template, rare="", edit="", caption=example.caption, noun=example.noun, tuned=about
            )
            if template
            else ""
        )


@dataclass(frozen=True)
class Difference:
    """Where a first sampling without a mask changed the picture, found as interpolation finds it; the second sampling holds the rest at every step."""

    name: str = "difference"
    estimate: blend.Interpolation = field(default_factory=blend.Interpolation)

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse nothing."""

    def texts(self, example: Example, *, about: str) -> list[str]:
        """Embed nothing."""
        return []

    def __call__(self, asked: MaskRequest) -> Masks:
        """Sample every draw once more; a mask may be empty, where the edit changed nothing that counts."""
        x = asked.sample()
        return (self.estimate.mask(x, asked.example.image.expand_as(x)) >= 0.5).float()


def grown(mask: Masks, share: float) -> Masks:
    """Grow masks by a share of the side."""
    reach = round(share * mask.shape[-1])
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach) if reach else mask


def check_numbers(*, noises: int, start: float, threshold: float, grow: float) -> None:
    """Refuse what no mask read from noised base images can take."""
    if not (whole(noises) and noises >= 1):
        raise Refused(f"mask.noises must be a whole number of at least 1, got {noises}")
    if not (number(start) and 0 < start < 1):
        raise Refused(
            f"mask.start must be in (0, 1) (cosine time; at 1 nothing of the picture is left), got {start}"
        )
    if not (number(threshold) and 0 < threshold < 1):
        raise Refused(f"mask.threshold must be in (0, 1), got {threshold}")
    if not (number(grow) and 0 <= grow < 1):
        raise Refused(f"mask.grow must be in [0, 1) (share of the picture's side), got {grow}")


def _size(picture: Image | Mask) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]} px"
