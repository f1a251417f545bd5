"""A sampler is a setting of the loop: prompt, start, guidance, step rule, mask, blending."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from unitune.diffusion.hold import Item, MaskRequest, MaskSource
from unitune.diffusion.interpolation import Interpolation, mix
from unitune.diffusion.sampling import (
    Control,
    Memory,
    Progress,
    StageRun,
    StageSampling,
    SuperResolution,
    sampled,
)
from unitune.diffusion.schedule import Image
from unitune.diffusion.stage import CascadeProtocol, Condition, OtherSize, Stage, reduced
from unitune.diffusion.texts import Mix, filled, reference_text
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
    interpolation: Interpolation = field(default_factory=Interpolation)
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
        self,
        cascade: CascadeProtocol,
        example: Example,
        *,
        tuned: Tuned,
        draws: Sequence[Draw],
        progress: Progress | None = None,
    ) -> list[Edit]:
        """Sample every draw.

        An item is the same alone or in a batch, because its noise is named by (seed, example,
        stage, role, step).
        """
        job = _Job(self, cascade, example, tuned, progress)
        items = self._items(draws, example, tuned)
        if self.mask is not None:
            masks = self.mask(job.mask_request(items)).split(1)
            items = [replace(i, allowed=mask) for i, mask in zip(items, masks, strict=True)]
        pictures: dict[str, Image] = {}
        low, used = None, []
        for stage in cascade.stages:
            count = max(1, self.max_pixels // stage.resolution**2)
            chunks = [items[i : i + count] for i in range(0, len(items), count)]
            lows = [None] * len(chunks) if low is None else low.split(count)
            done = [job.sampled(stage, c, part) for c, part in zip(chunks, lows, strict=True)]
            low, used = self._interpolated(torch.cat(done), items, example)
            pictures[stage.name] = low
        edits = []
        for i, item in enumerate(items):
            stages = {name: x[i : i + 1] for name, x in pictures.items()}
            image = stages[cascade.stages[-1].name]
            edits.append(Edit(example, **vars(item), image=image, stages=stages, mask=used[i]))
        return edits

    def refined(
        self,
        cascade: CascadeProtocol,
        example: Example,
        lows: Sequence[OtherSize],
        *,
        texts: Sequence[str],
    ) -> list[torch.Tensor]:
        """Bring pictures of the first stage's size, each with its text, through the later stages.

        They are sampled as edits are; returns (1, C, H, W) each.
        """
        # Nothing is tuned that a reference could name.
        guidance = replace(self.sr.guidance, reference="")
        plain = replace(self, sr=replace(self.sr, guidance=guidance))
        job = _Job(plain, cascade, example, Tuned())
        done = []
        for text, low in zip(texts, lows, strict=True):
            request = Request(text or example.id)
            item = Item(request, 0, self.guidance.weight, self.start, text)
            for stage in cascade.stages[1:]:
                low = job.sampled(stage, [item], low)
            done.append(low)
        return done

    def texts(self, example: Example, draws: Sequence[Draw], *, tuned: Tuned) -> list[str]:
        """List the texts that sampling these draws will embed.

        Of `tuned` only the names are read, so that it can be asked before anything is tuned.
        """
        found = [item.prompt for item in self._items(draws, example, tuned)]
        found += [
            reference_text(guidance, example, tuned)
            for guidance in (self.guidance, self.sr.guidance)
        ]
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
            edits = [item.prompt for item in self._items(draws, example, tuned)]
            self.control.check(cascade, example, tuned, edits)

    def _items(self, draws: Sequence[Draw], example: Example, tuned: Tuned) -> list[Item]:
        template = self.template or tuned.template
        return [
            Item(
                request=draw.request,
                seed=draw.seed,
                weight=self.guidance.weight if draw.weight is None else draw.weight,
                start=self.start if draw.start is None else draw.start,
                prompt=filled(template, example, tuned, edit=draw.request.prompt),
            )
            for draw in draws
        ]

    def _interpolated(
        self, x: Image, items: Sequence[Item], example: Example
    ) -> tuple[Image, list[Mask | None]]:
        applies = [self.interpolation.applies(i.request.composed_alike) for i in items]
        if not any(applies):
            return x, [None] * len(items)
        base = reduced(example.image, x.shape[-1]).expand_as(x)
        chosen = torch.tensor(applies)[:, None, None, None]
        mask = torch.where(chosen, self.interpolation.mask(x, base), torch.ones(()))
        used = zip(mask.split(1), applies, strict=True)
        return mix(x, base, mask), [one if applied else None for one, applied in used]


@dataclass(frozen=True)
class _Job:
    """One call of a sampler: what all of its stages and batches share."""

    sampler: Sampler
    cascade: CascadeProtocol
    example: Example
    tuned: Tuned
    progress: Progress | None = None
    memory: Memory = field(default_factory=dict)

    def mask_request(self, items: Sequence[Item]) -> MaskRequest:
        """Ask for masks; the unmasked pictures are sampled only where a source wants them."""
        free = replace(self.sampler, mask=None, interpolation=Interpolation())
        draws = [Draw(item.request, item.seed, item.weight, item.start) for item in items]

        def sample() -> Image:
            about = {"tuned": self.tuned, "draws": draws, "progress": self.progress}
            return torch.cat([edit.image for edit in free(self.cascade, self.example, **about)])

        return MaskRequest(self.example, items, self.tuned.about, self.cascade, sample)

    def sampled(self, stage: Stage, items: Sequence[Item], low: OtherSize | None) -> Image:
        """Sample one stage for a batch; `low` is the picture of the one before, if there is."""
        if low is not None:
            return stage.decode(sampled(self._later(stage, items, low), progress=self.progress))
        companion, rows = None, items
        if self.sampler.control is not None:
            about = (self.example, self.tuned, self.memory)
            companion = self.sampler.control.companion(self.cascade, items, *about)
            rows = companion.items
        x_0 = sampled(self._first(stage, rows), companion=companion, progress=self.progress)
        return stage.decode(x_0[-len(items) :])

    def _first(self, stage: Stage, items: Sequence[Item]) -> StageRun:
        run = self._run(stage, self.sampler, items)
        text = self.sampler.text(run.condition.text, self.tuned.embedding)
        return replace(run, condition=Condition(text))

    def _later(self, stage: Stage, items: Sequence[Item], low: OtherSize) -> StageRun:
        sr, T = self.sampler.sr, stage.schedule.T
        items = [replace(item, start=sr.start, weight=sr.guidance.weight) for item in items]
        run, origin = self._run(stage, sr, items), stage.upsampled(low)
        level = torch.full((len(items),), min(round(sr.noise_level * T), T - 1))
        seen = {"low": stage.schedule.add_noise(origin, run.noise("low", 0), level), "level": level}
        return replace(
            run,
            condition=replace(run.condition, **seen),
            reference=replace(run.reference, **seen),
            origin=origin,
        )

    def _run(self, stage: Stage, how: StageSampling, items: Sequence[Item]) -> StageRun:
        """Condition a stage on text alone; it starts at the base image."""
        base = stage.encode(reduced(self.example.image, stage.resolution))
        reference = [reference_text(how.guidance, self.example, self.tuned)] * len(items)
        return StageRun(
            stage=stage,
            how=how,
            items=items,
            example=self.example,
            condition=Condition(self.cascade.encode([item.prompt for item in items])),
            reference=Condition(self.cascade.encode(reference)),
            origin=base,
            base=base,
            reference_from_base=self.sampler.reference == "base",
        )
