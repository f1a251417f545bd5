"""A sampler is a setting of the loop's parts: prompt template, start, guidance, step rule, mask, interpolation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from unitune import prompts, rng
from unitune.diffusion import blend, inversion, masks, start
from unitune.diffusion.blend import Masks, Other, reduced
from unitune.diffusion.control import Chains, PromptToPrompt, shared
from unitune.diffusion.guidance import OFF, Guidance
from unitune.diffusion.loop import Cascade, Condition, Hold, NoiseSource, Progress, Stage, denoise
from unitune.diffusion.schedule import Image
from unitune.diffusion.steps import DDIM, DDPM, Step, levels
from unitune.types import Draw, Edit, Example, Mask, Refused, Request, Tuned, number, whole

PURE_NOISE = 1.0
REFERENCES = ("tuned", "base")


@dataclass(frozen=True)
class SuperResolution:
    """How the later stages are sampled; no text of the paper gives numbers for them. `noise_level` in [0, 1] is Imagen's augmentation level.

    `as_tuned`: a stage that was tuned at one noise level is sampled at that instead.
    """

    steps: int = 12
    step: Step = field(default_factory=DDIM)
    guidance: Guidance = field(default_factory=lambda: Guidance(weight=OFF))
    noise_level: float = 0.25
    start: float = PURE_NOISE  # below 1 the stage begins at the upsampled low-resolution picture noised to it: a weak stage strays less
    as_tuned: bool = True

    def __post_init__(self) -> None:
        if not (number(self.start) and 0 < self.start <= 1):
            raise Refused(f"sr.start must be in (0, 1] (cosine time; 1 = pure noise), got {self.start}")
        if not (number(self.noise_level) and 0 <= self.noise_level <= 1):
            raise Refused(f"sr.noise_level must be in [0, 1], got {self.noise_level}")
        if not isinstance(self.as_tuned, bool):
            raise Refused(f"sr.as_tuned must be true or false, got {self.as_tuned!r}")
        if not (whole(self.steps) and self.steps >= 1):
            raise Refused(f"sr.steps must be a whole number of at least 1, got {self.steps}")


@dataclass(frozen=True)
class Sampler:
    """All dials of sampling. `name` labels tables; `template` makes the prompt from {rare}, {edit} and {caption}, "" leaves that to the method.

    `reference` says whose prediction guidance pushes away from: short tuning also degrades the unconditional one, so "base" takes it from the untouched model.
    """

    name: str
    template: str = ""
    start: float = PURE_NOISE
    steps: int = 32
    guidance: Guidance = field(default_factory=Guidance)
    reference: str = "tuned"
    step: Step = field(default_factory=DDPM)
    interpolation: blend.Interpolation = field(default_factory=blend.Interpolation)
    mask: masks.MaskSource | None = None  # everything outside its masks is held at the base image, step by step
    embedding_mix: float = 0.7  # Imagic's eta: 1 = the text itself, 0 = the learned embedding, whose share in the first stage is 1 - eta; its paper: 0.6 to 0.8
    control: PromptToPrompt | None = None  # in the first stage edits take attention from a chain of the base image's description
    sr: SuperResolution = field(default_factory=SuperResolution)
    max_pixels: int = 2**18  # of all items in one network call: 64 items at 64 px, 4 at 256 px

    def __post_init__(self) -> None:
        if not (number(self.start) and 0 < self.start <= 1):
            raise Refused(f"sampler.start must be in (0, 1] (cosine time; 1 = pure noise), got {self.start}")
        if not (whole(self.steps) and self.steps >= 1):
            raise Refused(f"sampler.steps must be a whole number of at least 1, got {self.steps}")
        if not number(self.embedding_mix):
            raise Refused(f"sampler.embedding_mix must be a finite number (0 = the learned embedding, 1 = the text), got {self.embedding_mix}")
        if self.reference not in REFERENCES:
            raise Refused(f"sampler.reference must be {' or '.join(REFERENCES)} (whose weights guidance pushes away from), got {self.reference!r}")

    def __call__(self, cascade: Cascade, example: Example, *, tuned: Tuned, draws: Sequence[Draw], progress: Progress | None = None) -> list[Edit]:
        """Sample every draw; an item is the same alone or in a batch, because its noise is named by (seed, example, stage, role, step)."""
        items = [self._item(draw, example, tuned) for draw in draws]
        if self.mask is not None:
            allowed = self._allowed(self.mask, cascade, items, example=example, tuned=tuned, progress=progress)
            items = [replace(item, allowed=mask) for item, mask in zip(items, allowed.split(1), strict=True)]
        pictures: dict[str, Image] = {}
        low, used = None, []
        ways: inversion.Ways = {}
        for stage in cascade.stages:
            chunk = max(1, self.max_pixels // stage.resolution**2)
            chunks = [items[i : i + chunk] for i in range(0, len(items), chunk)]
            lows = [None] * len(chunks) if low is None else low.split(chunk)
            done = [
                self._run(cascade, stage, c, example=example, tuned=tuned, low=part, ways=ways, progress=progress) for c, part in zip(chunks, lows, strict=True)
            ]
            low = torch.cat(done)
            low, used = self._interpolated(low, items, example)
            pictures[stage.name] = low
        assert low is not None
        rows = range(len(items))
        return [
            Edit(
                example, item.draw.request, item.draw.seed, item.weight, item.start, item.text,
                image=low[i : i + 1], stages={name: p[i : i + 1] for name, p in pictures.items()}, mask=used[i],
                allowed=item.allowed,
            )
            for i, item in zip(rows, items, strict=True)
        ]  # fmt: skip

    def refined(self, cascade: Cascade, example: Example, lows: Sequence[Other], *, texts: Sequence[str]) -> list[torch.Tensor]:
        """Bring pictures of the first stage's size, each with its text, through the later stages as they are sampled; returns (1, C, H, W) each."""
        plain = replace(self, sr=replace(self.sr, guidance=replace(self.sr.guidance, reference="")))  # nothing is tuned that it could name
        items = [_Item(Draw(Request(text or example.id), 0), text, self.guidance.weight, self.start) for text in texts]
        done = []
        for item, low in zip(items, lows, strict=True):
            for stage in cascade.stages[1:]:
                low = plain._run(cascade, stage, [item], example=example, tuned=Tuned(), low=low, ways={}, progress=None)
            done.append(low)
        return done

    def texts(self, example: Example, draws: Sequence[Draw], *, tuned: Tuned) -> list[str]:
        """List the texts that sampling these draws will embed; of `tuned` only the names are read, so that it can be asked before anything is tuned."""
        away = [self._reference(guidance, example, tuned) for guidance in (self.guidance, self.sr.guidance)]
        away += [] if self.mask is None else self.mask.texts(example, about=tuned.about)
        away += [] if self.control is None else [self._fill(self.control.source, example, tuned)]
        return list(dict.fromkeys([*(self._text(draw, example, tuned) for draw in draws), *away]))

    def check(self, cascade: Cascade, example: Example, draws: Sequence[Draw], *, tuned: Tuned) -> None:
        """Refuse before anything is tuned edits whose words Prompt-to-Prompt cannot align with the source's, or control."""
        if self.control is not None:
            source, edits = self._fill(self.control.source, example, tuned), [self._text(draw, example, tuned) for draw in draws]
            self.control.chains(source, edits=edits, rows=[0] * len(edits), tokenize=cascade.tokenize, offset=0, length=cascade.max_tokens)

    def _text(self, draw: Draw, example: Example, tuned: Tuned) -> str:
        return self._fill(self.template or tuned.template, example, tuned, edit=draw.request.prompt)

    def _reference(self, guidance: Guidance, example: Example, tuned: Tuned) -> str:
        return self._fill(guidance.reference, example, tuned) if guidance.reference else ""

    def _fill(self, template: str, example: Example, tuned: Tuned, *, edit: str = "") -> str:
        return prompts.fill(template, rare=tuned.prompt, edit=edit, caption=example.caption, noun=example.noun, tuned=tuned.about)

    def _item(self, draw: Draw, example: Example, tuned: Tuned) -> "_Item":
        text = self._text(draw, example, tuned)
        weight = self.guidance.weight if draw.weight is None else draw.weight
        return _Item(draw, text, weight, self.start if draw.start is None else draw.start)

    def _run(
        self,
        cascade: Cascade,
        stage: Stage,
        items: list["_Item"],
        *,
        example: Example,
        tuned: Tuned,
        low: Other | None,
        ways: inversion.Ways,
        progress: Progress | None,
    ) -> Image:
        """Sample one stage for a chunk of items; `low` is the previous stage's picture, None in the first stage; `ways` keeps inversions of the base image."""
        n = len(items)
        chains, items = (None, items) if low is not None else self._chains(cascade, items, example=example, tuned=tuned)
        base = stage.encode(reduced(example.image, stage.resolution))
        noise = _noise(items, example, stage, (1, *base.shape[1:]))
        text = cascade.encode([item.text for item in items])
        if low is None and tuned.embedding is not None:
            # Imagic (arXiv 2210.09276): e = eta e_tgt + (1 - eta) e_opt; the later stages see the target text.
            text = self.embedding_mix * text + (1 - self.embedding_mix) * tuned.embedding
        if low is None:
            guidance, step, count = self.guidance, self.step, self.steps
            starts, weights = [item.start for item in items], [item.weight for item in items]
            condition, origin = Condition(text, control=chains), base
        else:
            guidance, step, count = self.sr.guidance, self.sr.step, self.sr.steps
            starts, weights = [self.sr.start] * len(items), [guidance.weight] * len(items)
            share = tuned.low_levels.get(stage.name, self.sr.noise_level) if self.sr.as_tuned else self.sr.noise_level
            level = torch.full((len(items),), min(round(share * stage.schedule.T), stage.schedule.T - 1))
            origin = stage.upsampled(low)
            condition = Condition(text, stage.schedule.add_noise(origin, noise("low", 0), level), level)
        away = self._reference(guidance, example, tuned)
        t = start.first_levels(stage.schedule, starts)
        ts = torch.stack([levels(stage.schedule, int(first), count) for first in t], dim=1)
        x = start.first_image(stage.schedule, origin, t, noise("start", 0))
        if chains is not None and chains.inverted:
            x = inversion.begin(stage, chains, base, levels=ts, condition=condition, step=step, known=ways)
        x_0 = denoise(
            stage,
            x,
            levels=ts,
            condition=condition,
            reference=Condition(cascade.encode([away] * len(items)), condition.low, condition.level),
            weight=torch.tensor(weights, dtype=torch.float32),
            step=step,
            noise=noise,
            reference_from_base=self.reference == "base",
            rescaling=guidance.rescale,
            hold=_hold(items, base),
            progress=progress,
        )
        return stage.decode(x_0[-n:])

    def _chains(self, cascade: Cascade, items: list["_Item"], *, example: Example, tuned: Tuned) -> tuple[Chains | None, list["_Item"]]:
        """Put the items of the source chains before the edits; where edits have one start and noise, they share one."""
        if self.control is None:
            return None, items
        if tuned.embedding is not None or tuned.tokens:
            raise Refused("prompt-to-prompt aligns the tokenizer's words, and this method samples learned ones; use another sampler")
        text = self._fill(self.control.source, example, tuned)
        inverted = self.control.inverts(tuned, text, stage=cascade.stages[0].name)
        first, rows = shared([item.start if inverted else (item.start, item.weight, item.draw.seed) for item in items])
        places = {"offset": (length := cascade.encode([text]).shape[1]) - cascade.max_tokens, "length": length}
        chains = self.control.chains(text, edits=[item.text for item in items], rows=rows, tokenize=cascade.tokenize, **places)
        return replace(chains, inverted=inverted), [*(replace(items[k], text=text) for k in first), *items]

    def _allowed(self, source: masks.MaskSource, cascade: Cascade, items: list["_Item"], *, example: Example, tuned: Tuned, progress: Progress | None) -> Masks:
        """Ask for the masks of all items; the unmasked pictures that a source may want are sampled only then."""
        draws, texts = [item.draw for item in items], [item.text for item in items]
        free = replace(self, mask=None, interpolation=blend.Interpolation())

        def sample() -> Image:
            return torch.cat([edit.image for edit in free(cascade, example, tuned=tuned, draws=draws, progress=progress)])

        return source(masks.Asked(example, draws, texts, tuned.about, cascade.stages[0], cascade.encode, cascade.tokenize, cascade.max_tokens, sample))

    def _interpolated(self, x: Image, items: list["_Item"], example: Example) -> tuple[Image, list[Mask | None]]:
        applies = [self.interpolation.applies(item.draw.request.composed_alike) for item in items]
        if not any(applies):
            return x, [None] * len(items)
        base = reduced(example.image, x.shape[-1]).expand_as(x)
        mask = torch.where(torch.tensor(applies)[:, None, None, None], self.interpolation.mask(x, base), torch.ones(()))
        return blend.mix(x, base, mask), [one if applied else None for one, applied in zip(mask.split(1), applies, strict=True)]


@dataclass(frozen=True)
class _Item:
    draw: Draw
    text: str
    weight: float
    start: float
    allowed: Masks | None = None


def _noise(items: list[_Item], example: Example, stage: Stage, shape: tuple[int, ...]) -> NoiseSource:
    return lambda role, step: torch.cat([rng.noise(shape, seed=i.draw.seed, example=example.id, stage=stage.name, role=role, step=step) for i in items])


def _hold(items: list[_Item], base: Image) -> Hold | None:
    """What outside the items' masks is kept, at the resolution of a stage's x_0."""
    allowed = [masks.at(item.allowed, base.shape[-1]) for item in items if item.allowed is not None]
    return Hold(base, torch.cat(allowed)) if allowed else None
