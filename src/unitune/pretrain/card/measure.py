"""Measures the pocket models on compositions that pretraining never saw, uncurated; what is right is known, because prompts come from scenes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.backends.cascade import Cascade
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.loop import Condition, denoise
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.start import first_image
from unitune.diffusion.steps import Threshold, levels
from unitune.images import from_uint8
from unitune.metrics.clip import Clip, image_features
from unitune.metrics.judge import SIZE, Judge, read_facts, reduced
from unitune.metrics.kid import kid
from unitune.metrics.perceptual import STLPIPS, distance, features
from unitune.metrics.pixel import psnr
from unitune.pocket import SR
from unitune.pretrain.card.estimates import Row, average, ratio, spread
from unitune.pretrain.card.readings import ALIKE, ONE, TWO, fact_rows, ordered, readings
from unitune.scenes import Scene, caption, random_scene, render
from unitune.scenes.scene import COUNT_SHARES, relation
from unitune.types import Draw, Example, Request, Tuned

STEPS = 16  # DDPM steps of the base stage
BLANK = torch.zeros(1, 3, 256, 256)
EDGE = 1 - 1 / 255  # |x| beyond which a value is within half a grey level of white or black
SUBSETS = 100  # of KID


def distinct(scene: Scene) -> bool:
    """Say whether no two objects of the scene are of one kind."""
    return len({o.noun for o in scene.objects}) == len(scene.objects)


def alike(scene: Scene) -> bool:
    """Say whether all objects of the scene are of one kind."""
    return len({o.noun for o in scene.objects}) == 1


def draw_scenes(count: int, *, seed: Sequence[int], counts: tuple[float, ...], wanted: Callable[[Scene], bool]) -> list[Scene]:
    """Draw scenes of unseen compositions that are wanted; `counts` are the chances of 1, 2, 3, 4 objects."""
    rng, scenes = np.random.default_rng(list(seed)), []
    while len(scenes) < count:
        scene = random_scene(rng, held_out=True, counts=counts)
        scenes += [scene] if wanted(scene) else []
    return scenes


def draw_groups(count: int, *, seed: int, draw: int) -> dict[str, list[Scene]]:
    """Draw the scenes whose captions are the prompts: `count` of one and of two different objects, an eighth of 2 to 4 of a kind; another `draw`, others."""
    return {
        ONE: draw_scenes(count, seed=(seed, draw, 1), counts=(1.0,), wanted=distinct),
        TWO: draw_scenes(count, seed=(seed, draw, 2), counts=(0.0, 1.0), wanted=distinct),
        ALIKE: draw_scenes(count // 8, seed=(seed, draw, 3), counts=(0.0, 1.0, 1.0, 1.0), wanted=alike),
    }


def renders(scenes: list[Scene], size: int) -> Float[Tensor, "B 3 size size"]:
    """Draw scenes, in [-1, 1]."""
    return torch.cat([from_uint8(render(scene, size)[0]) for scene in scenes])


def first_stage(cascade: Cascade) -> Cascade:
    """Return the cascade without super-resolution."""
    return replace(cascade, stages=cascade.stages[:1])


def sample(cascade: Cascade, prompts: Sequence[str], *, name: str, weight: float, seed: int) -> Float[Tensor, "B 3 S S"]:
    """Plain text-to-image, DDPM and the super-resolution of model=pocket, uncurated; `name` and the place in the list name a picture's noise."""
    sampler = Sampler("card", steps=STEPS, guidance=Guidance(weight=weight), sr=SR)
    draws = [Draw(Request(text), seed * 100_000 + k) for k, text in enumerate(prompts)]
    return torch.cat([edit.image for edit in sampler(cascade, Example(name, BLANK, ()), tuned=Tuned(), draws=draws)])


def leftward(scene: Scene) -> bool:
    """Say whether the scene is a pair of different objects, the first left of the second."""
    return distinct(scene) and relation(scene.objects[0], scene.objects[1]) == "left"


def swapped(scene: Scene) -> Scene:
    """Exchange the two objects of a pair."""
    a, b = scene.objects
    return replace(scene, objects=(replace(a, noun=b.noun, colour=b.colour), replace(b, noun=a.noun, colour=a.colour)))


def relation_rows(cascade: Cascade, judge: Judge, *, count: int, weight: float, seed: int) -> list[Row]:
    """Sample `count` pairs each for "left of" and "right of"; "right of" shows whether the relation is read, or only which noun is named first."""
    rows: list[Row] = []
    for k, words in enumerate(("left of", "right of")):
        scenes = draw_scenes(count, seed=(seed, 10 + k), counts=(0.0, 1.0), wanted=leftward)
        seen = []
        for version in (scenes, [swapped(scene) for scene in scenes]):
            prompts = [caption(scene, related=True).replace(" left of ", f" {words} ") for scene in version]
            seen.append(read_facts(judge, sample(first_stage(cascade), prompts, name=f"card, {words}", weight=weight, seed=seed)))
        rows += ordered(seen[0], seen[1], [(s.objects[0].noun, s.objects[1].noun) for s in scenes], words=words)
    return rows


def clipped(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Return each picture's share of pixel values with |x| >= 1, up to half a grey level."""
    return (x.abs() > EDGE).float().mean(dim=(1, 2, 3))


@dataclass
class Counting:
    """A threshold that notes each picture's clipped share before it acts."""

    threshold: Threshold
    calls: list[Tensor] = field(default_factory=list)

    def __call__(self, x_0: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Note and threshold."""
        self.calls.append(clipped(x_0))
        return self.threshold(x_0)


def guidance_rows(cascade: Cascade, judge: Judge, scenes: list[Scene], *, weights: Sequence[float], seed: int) -> dict[float, list[Row]]:
    """Measure accuracy and clipping at every weight, on the same prompts and noise."""
    table: dict[float, list[Row]] = {}
    for weight in weights:
        counting = Counting(cascade.stages[0].threshold)
        stage: Any = replace(cascade.stages[0], threshold=counting)
        pictures = sample(replace(cascade, stages=[stage]), [caption(scene) for scene in scenes], name=ONE, weight=weight, seed=seed)
        before = torch.cat([torch.stack(counting.calls[k : k + STEPS]).mean(dim=0) for k in range(0, len(counting.calls), STEPS)])
        part = f"base, guidance {weight:g}"
        table[weight] = [
            *fact_rows(part, readings(read_facts(judge, pictures), scenes), ("nouns", "place", "style")),
            average(part, "clipped before thresholding", before.tolist()),
            average(part, "clipped in the picture", clipped(pictures).tolist()),
        ]
    return table


@torch.no_grad()
def sharpness_rows(cascade: Cascade, *, count: int, seed: int) -> list[Row]:
    """Super-resolve exact low-resolution pictures of `count` unseen scenes, as model=pocket does, beside bicubic: PSNR and ST-LPIPS to the true picture."""
    stage, generator, metric = cascade.stages[1], torch.Generator().manual_seed(seed), STLPIPS()
    scores: list[list[float]] = []
    for scene in draw_scenes(count, seed=(seed, 20), counts=COUNT_SHARES, wanted=lambda _: True):
        truth = renders([scene], stage.resolution)
        low = reduced(truth, stage.low_resolution)

        def noise(*_: object, shape: torch.Size = truth.shape) -> Tensor:
            return torch.randn(shape, generator=generator)

        level = torch.full((1,), min(round(SR.noise_level * stage.schedule.T), stage.schedule.T - 1))
        noised = stage.schedule.add_noise(stage.upsampled(low), noise(), level)
        condition, reference = (Condition(cascade.encode([text]), noised, level) for text in (caption(scene), ""))
        t = torch.tensor([stage.schedule.level(SR.start)])
        x = first_image(stage.schedule, stage.upsampled(low), t, noise())
        steps, weight = levels(stage.schedule, int(t[0]), SR.steps)[:, None], torch.tensor([SR.guidance.weight])
        fine = denoise(stage, x, levels=steps, condition=condition, reference=reference, weight=weight, step=SR.step, noise=noise).clamp(-1, 1)
        bicubic = F.interpolate(low, stage.resolution, mode="bicubic", antialias=True).clamp(-1, 1)
        goal = features(metric.weights, truth)
        apart = [float(distance(metric.weights, features(metric.weights, x), goal)) for x in (fine, bicubic)]
        scores.append([*(float(psnr((x + 1) / 2, (truth + 1) / 2)) for x in (fine, bicubic)), *apart])
    sharp, plain, near, far = (list(column) for column in zip(*scores, strict=True))
    return [
        average("sr256", "PSNR to the true picture, dB", sharp), average("bicubic", "PSNR to the true picture, dB", plain),
        average("sr256", "PSNR above bicubic, dB", [a - b for a, b in zip(sharp, plain, strict=True)], at_least=2.0),
        average("sr256", "ST-LPIPS to the true picture", near), average("bicubic", "ST-LPIPS to the true picture", far),
        ratio("sr256", "ST-LPIPS over that of bicubic", near, far, at_most=0.5),
    ]  # fmt: skip


def distance_rows(clip: Clip, pictures: Tensor, scenes: list[Scene], others: list[Scene], *, seed: int) -> list[Row]:
    """KID of pictures, and of renders of their own scenes as the floor, to renders of other scenes, in CLIP features of length sqrt(D), times 1000."""
    sets = [image_features(clip, x) for x in (pictures, renders(scenes, SIZE), renders(others, SIZE))]
    sampled, own, other = (x * x.shape[1] ** 0.5 for x in sets)  # the kernel is then (cosine + 1)^3
    options = {"subsets": SUBSETS, "size": len(scenes) // 2, "seed": seed}
    kinds = {"KID x 1000, samples to renders of other scenes": sampled, "KID x 1000, renders to renders of other scenes": own}
    return [spread("base", what, [1000 * v for v in kid(x, other, **options)], n=len(scenes)) for what, x in kinds.items()]
