"""A sampler is a setting of the loop's parts: prompt, start, guidance, step rule, mask, blending."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from unitune.diffusion import blend
from unitune.diffusion.blend import Masks, Other, reduced
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.hold import MaskRequest, MaskSource
from unitune.diffusion.run import Control, Item, Memory, Progress, StageRun, noise_of, sampled
from unitune.diffusion.sampling import StageSampling, SuperResolution
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import CascadeProtocol, Condition, Stage
from unitune.diffusion.texts import Mix, away, filled
from unitune.types import Draw, Edit, Example, Mask, Refused, Request, Tuned

REFERENCES = ("tuned", "base")


@dataclass(frozen=True)
class Sampler(StageSampling):
    """All dials of sampling; those of `StageSampling` are the first stage's, `sr` the later ones'.

    `name` labels tables; `template` makes the prompt from {rare}, {edit} and {caption}, "" leaves
    that to the method. `reference` says whose prediction guidance pushes away from: short tuning
    also degrades the unconditional one, so "base" takes it from the untouched model. Everything
    outside the masks of `mask` is held at the base image, step by step. `text` mixes a learned
    embedding of the prompt with its own. In the first stage `control` takes part in the loop.
    """

    name: str
    template: str = ""
    reference: str = "tuned"
    interpolation: blend.Interpolation = field(default_factory=blend.Interpolation)
    mask: MaskSource | None = None
    text: Mix = field(default_factory=Mix)
    control: Control | None = None
    sr: SuperResolution = field(default_factory=SuperResolution)
    max_pixels: int = 2**18  # of all items in one network call: 64 items at 64 px, 4 at 256 px

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference not in REFERENCES:
            whose = "whose weights guidance pushes away from"
            allowed = " or ".join(REFERENCES)
            raise Refused(f"sampler.reference must be {allowed} ({whose}), got {self.reference!r}")

    def __call__(
        self, cascade: CascadeProtocol, example: Example, *, tuned: Tuned, draws: Sequence[Draw],
        progress: Progress | None = None,
    ) -> list[Edit]:  # fmt: skip
        """Sample every draw.

        An item is the same alone or in a batch, because its noise is named by (seed, example,
        stage, role, step).
        """
        job = _Job(self, cascade, example, tuned, progress)
        items = [self._item(draw, example, tuned) for draw in draws]
        if self.mask is not None:
            allowed = self._allowed(self.mask, job, items).split(1)
            items = [replace(i, allowed=mask) for i, mask in zip(items, allowed, strict=True)]
        pictures: dict[str, Image] = {}
        low, used = None, []
        for stage in cascade.stages:
            chunk = max(1, self.max_pixels // stage.resolution**2)
            chunks = [items[i : i + chunk] for i in range(0, len(items), chunk)]
            lows = [None] * len(chunks) if low is None else low.split(chunk)
            done = [job.sampled(stage, c, part) for c, part in zip(chunks, lows, strict=True)]
            low, used = self._interpolated(torch.cat(done), items, example)
            pictures[stage.name] = low
        assert low is not None
        return [
            Edit(
                example, item.draw.request, item.draw.seed, item.weight, item.start, item.text,
                image=low[i : i + 1],
                stages={name: p[i : i + 1] for name, p in pictures.items()},
                mask=used[i], allowed=item.allowed,
            )
            for i, item in enumerate(items)
        ]  # fmt: skip

    def refined(
        self,
        cascade: CascadeProtocol,
        example: Example,
        lows: Sequence[Other],
        *,
        texts: Sequence[str],
    ) -> list[torch.Tensor]:
        """Bring pictures of the first stage's size, each with its text, through the later stages.

        They are sampled as edits are; returns (1, C, H, W) each.
        """
        # Nothing is tuned that a reference could name.
        guidance = replace(self.sr.guidance, reference="")
        plain = replace(self, sr=replace(self.sr, guidance=guidance))
        job = _Job(plain, cascade, example, Tuned(), None)
        done = []
        for text, low in zip(texts, lows, strict=True):
            draw = Draw(Request(text or example.id), 0)
            item = Item(draw, text, self.guidance.weight, self.start)
            for stage in cascade.stages[1:]:
                low = job.sampled(stage, [item], low)
            done.append(low)
        return done

    def texts(self, example: Example, draws: Sequence[Draw], *, tuned: Tuned) -> list[str]:
        """List the texts that sampling these draws will embed.

        Of `tuned` only the names are read, so that it can be asked before anything is tuned.
        """
        found = [self._text(draw, example, tuned) for draw in draws]
        found += [away(guidance, example, tuned) for guidance in (self.guidance, self.sr.guidance)]
        if self.mask is not None:
            found += self.mask.texts(example, about=tuned.about)
        if self.control is not None:
            found += self.control.texts(example, tuned)
        return list(dict.fromkeys(found))

    def check(
        self, cascade: CascadeProtocol, example: Example, draws: Sequence[Draw], *, tuned: Tuned
    ) -> None:
        """Refuse before anything is tuned edits that the control cannot be used for."""
        if self.control is not None:
            edits = [self._text(draw, example, tuned) for draw in draws]
            self.control.check(cascade, example, tuned, edits)

    def _text(self, draw: Draw, example: Example, tuned: Tuned) -> str:
        template = self.template or tuned.template
        return filled(template, example, tuned, edit=draw.request.prompt)

    def _item(self, draw: Draw, example: Example, tuned: Tuned) -> Item:
        weight = self.guidance.weight if draw.weight is None else draw.weight
        start = self.start if draw.start is None else draw.start
        return Item(draw, self._text(draw, example, tuned), weight, start)

    def _allowed(self, source: MaskSource, job: "_Job", items: Sequence[Item]) -> Masks:
        """Ask for the masks of all items.

        The unmasked pictures that a source may want are sampled only when it asks for them.
        """
        cascade, example, tuned = job.cascade, job.example, job.tuned
        draws, texts = [item.draw for item in items], [item.text for item in items]
        free = replace(self, mask=None, interpolation=blend.Interpolation())

        def sample() -> Image:
            edits = free(cascade, example, tuned=tuned, draws=draws, progress=job.progress)
            return torch.cat([edit.image for edit in edits])

        return source(
            MaskRequest(
                example, draws, texts, tuned.about, cascade.stages[0], cascade.encode,
                cascade.tokenize, cascade.max_tokens, sample,
            )
        )  # fmt: skip

    def _interpolated(
        self, x: Image, items: Sequence[Item], example: Example
    ) -> tuple[Image, list[Mask | None]]:
        applies = [self.interpolation.applies(i.draw.request.composed_alike) for i in items]
        if not any(applies):
            return x, [None] * len(items)
        base = reduced(example.image, x.shape[-1]).expand_as(x)
        chosen = torch.tensor(applies)[:, None, None, None]
        mask = torch.where(chosen, self.interpolation.mask(x, base), torch.ones(()))
        used = zip(mask.split(1), applies, strict=True)
        return blend.mix(x, base, mask), [one if applied else None for one, applied in used]


@dataclass(frozen=True)
class _Job:
    """One call of a sampler: what all of its stages and batches share."""

    sampler: Sampler
    cascade: CascadeProtocol
    example: Example
    tuned: Tuned
    progress: Progress | None
    memory: Memory = field(default_factory=dict)

    def sampled(self, stage: Stage, items: Sequence[Item], low: Other | None) -> Image:
        """Sample one stage for a batch; `low` is the picture of the one before, if there is."""
        if low is not None:
            run = self._later(stage, items, low)
            return stage.decode(sampled(run, progress=self.progress))
        companion, control = None, self.sampler.control
        rows = items
        if control is not None:
            about = (self.example, self.tuned, self.memory)
            companion = control.companion(self.cascade, items, *about)
            rows = companion.items
        x_0 = sampled(self._first(stage, rows), companion=companion, progress=self.progress)
        return stage.decode(x_0[-len(items) :])

    def _first(self, stage: Stage, items: Sequence[Item]) -> StageRun:
        sampler, base = self.sampler, self._base(stage)
        text = sampler.text(self._encoded(items), self.tuned.embedding)
        reference = Condition(self._away(sampler.guidance, len(items)))
        return StageRun(
            stage, sampler, items, self.example, Condition(text), reference, base, base,
            starts=[item.start for item in items], weights=[item.weight for item in items],
            reference_from_base=sampler.reference == "base",
        )  # fmt: skip

    def _later(self, stage: Stage, items: Sequence[Item], low: Other) -> StageRun:
        sr, schedule, base = self.sampler.sr, stage.schedule, self._base(stage)
        noise = noise_of(items, self.example, stage, (1, *base.shape[1:]))
        t = min(round(sr.noise_level * schedule.T), schedule.T - 1)
        level = torch.full((len(items),), t)
        origin = stage.upsampled(low)
        noisy = schedule.add_noise(origin, noise("low", 0), level)
        return StageRun(
            stage, sr, items, self.example,
            Condition(self._encoded(items), noisy, level),
            Condition(self._away(sr.guidance, len(items)), noisy, level),
            origin, base,
            starts=[sr.start] * len(items), weights=[sr.guidance.weight] * len(items),
            reference_from_base=self.sampler.reference == "base",
        )  # fmt: skip

    def _base(self, stage: Stage) -> Image:
        return stage.encode(reduced(self.example.image, stage.resolution))

    def _encoded(self, items: Sequence[Item]) -> torch.Tensor:
        return self.cascade.encode([item.text for item in items])

    def _away(self, guidance: Guidance, count: int) -> torch.Tensor:
        return self.cascade.encode([away(guidance, self.example, self.tuned)] * count)
