"""What one sees while a diffusion stage trains.

That is its error on unseen scenes, and what the judge finds in its samples.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from unitune.diffusion.guidance import Guidance, conditioned, guided_at_once, thresholded
from unitune.diffusion.loop import denoise
from unitune.diffusion.loss import StageLoss
from unitune.diffusion.stage import Condition
from unitune.diffusion.steps import DDPM, Threshold, levels
from unitune.images import to_uint8
from unitune.metrics.judge import read_facts, reduced
from unitune.models.pocket import GUIDANCE, STEPS
from unitune.models.stage import UNetStage
from unitune.runs.grid import labelled_grid
from unitune.scenes import Scene, caption, random_scene

from unitune_lab.batches import SceneBatches, at_cells
from unitune_lab.obeyed import nouns_of, obeyed

if TYPE_CHECKING:
    from unitune_lab.parts.stage import StagePart

LEVELS = (300, 500, 700, 900)  # t, at which unseen scenes are denoised in one step
UNSEEN, SINGLE, PAIRS = 64, 64, 32  # scenes whose error is measured; samples of one and two objects
SEED = 2


@torch.no_grad()
def errors(part: "StagePart", network: nn.Module, *, resolution: int) -> dict[str, float]:
    """Return the mean squared error of x_0, estimated in one step at LEVELS.

    `error` is over all pixels and levels, `objects_T` over the pixels of objects at level T. The
    scenes and the noise are the same each time.
    """
    count = 16 if part.super_resolution else UNSEEN
    scenes = SceneBatches(seed=1, batch_size=count, size=part.size, captions="plain", held_out=True)
    batch = scenes.batch(0)
    of_all: list[float] = []
    of_objects: list[float] = []
    for t in LEVELS:
        noise = torch.Generator(part.device).manual_seed(t)
        rows = torch.full((count,), t, device=part.device)
        asked = part.noised(batch, resolution, noise=noise, t=rows)
        v, _ = part.output(network, asked["x"], asked["t"], asked["text"], asked["level"])
        # The error of v is that of x_0 times SNR + 1.
        square = (v - asked["v"]).square() / float(1 + part.schedule.snr(rows)[0])
        mask = (at_cells(asked["objects"], v.shape[-1]) > 0)[:, None].expand_as(square)
        of_all.append(float(square.mean()))
        of_objects.append(float(square[mask].mean()))
    by_level = {f"objects_{t}": error for t, error in zip(LEVELS, of_objects, strict=True)}
    return {"error": float(np.mean(of_all)), **by_level}


def sample(
    part: "StagePart",
    network: nn.Module,
    captions: Sequence[str],
    *,
    resolution: int,
    seed: int = SEED,
) -> Tensor:
    """Sample a first stage as `model=pocket` samples, with ancestral steps; (B, 3, S, S)."""
    unet: Any = network["unet"]  # type: ignore[index]
    loss = StageLoss("v_prediction")
    stage = UNetStage(
        "base", resolution, unet, part.schedule, loss, Threshold(0.95, 1.5), dtype=torch.bfloat16
    )
    count = len(captions)
    generator = torch.Generator().manual_seed(seed)

    def noise(*_: object) -> Tensor:
        return torch.randn((count, 3, resolution, resolution), generator=generator)

    steps = levels(part.schedule.T - 1, STEPS)[:, None].expand(-1, count)
    text = Condition(part.embed(captions).cpu())
    empty = Condition(part.embed([""] * count).cpu())
    push = partial(Guidance().push, weight=torch.full((count,), GUIDANCE))
    denoiser = guided_at_once(conditioned(stage.predict, text + empty), push)
    denoiser = thresholded(denoiser, stage.threshold)
    return denoise(denoiser, noise(), steps, schedule=part.schedule, step=DDPM(), noise=noise)


def unseen(count: int, *, objects: int, seed: int) -> list[Scene]:
    """Draw scenes of unseen compositions with so many objects, of different kinds."""
    rng = np.random.default_rng([SEED, seed, objects])
    scenes: list[Scene] = []
    counts = [float(k + 1 == objects) for k in range(3)]
    while len(scenes) < count:
        scene = random_scene(rng, held_out=True, counts=counts)
        if len(nouns_of(scene)) == objects:
            scenes.append(scene)
    return scenes


@torch.no_grad()
def sampled_facts(part: "StagePart", network: nn.Module, *, resolution: int) -> dict[str, float]:
    """Sample captions of unseen scenes and say how many facts the judge finds; draw the samples."""
    single = unseen(SINGLE, objects=1, seed=0)
    pairs = unseen(PAIRS, objects=2, seed=0)
    captions = [caption(scene) for scene in (*single, *pairs)]
    pictures = sample(part, network, captions, resolution=resolution)
    if part.looks is not None:
        _draw(pictures, part.looks / "samples.png")
    if part.judge is None:
        return {}
    found = obeyed((*single, *pairs), read_facts(part.judge, reduced(pictures, 64)))
    return {name: float(np.mean(hits)) for name, hits in found.items()}


def _draw(pictures: Tensor, path: Path) -> None:
    tiles = [to_uint8(picture[None]) for picture in pictures]
    columns = min(16, len(tiles))
    rows = [tiles[k : k + columns] for k in range(0, len(tiles), columns)]
    names = [""] * columns
    labelled_grid(rows, row_labels=[""] * len(rows), column_labels=names, path=path, tile=64)
