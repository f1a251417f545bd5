"""Super-resolution on the card: exact 64 px pictures brought to 256 px, beside bicubic."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from unitune.diffusion.guidance import conditioned, thresholded
from unitune.diffusion.loop import denoise
from unitune.diffusion.stage import Condition
from unitune.diffusion.steps import DDIM, Threshold, levels
from unitune.metrics.perceptual import STLPIPS, distance, features
from unitune.metrics.pixel import psnr
from unitune.models.pocket import SR
from unitune.models.stage import UNetStage
from unitune.scenes import caption

from unitune_lab.card_scenes import SEED, draw, picture
from unitune_lab.card_text import Row, gain
from unitune_lab.parts.stage import StagePart


@torch.no_grad()
def sr_rows(stage: StagePart, count: int) -> list[Row]:
    """Super-resolve exact 64 px pictures as the embedded cascade does, beside bicubic."""
    unet: Any = stage.network.eval()["unet"]  # type: ignore[index]
    sampler = UNetStage(
        "sr256", 256, unet, stage.schedule, stage.loss_of_stage, Threshold(0.95, 1.0),
        low_resolution=64, align_corners=False, dtype=torch.bfloat16,
    )  # fmt: skip
    generator, metric = torch.Generator().manual_seed(SEED), STLPIPS()
    scores: list[list[float]] = []
    for scene in draw(count, counts=(0.5, 0.33, 0.17), seed=20, wanted=lambda _: True):
        truth = picture(scene, 256)
        low = F.interpolate(truth, (64, 64), mode="area")
        up = sampler.upsampled(low)

        def noise(*_: object, shape: torch.Size = truth.shape) -> Tensor:
            return torch.randn(shape, generator=generator)

        level = torch.full((1,), round(SR.noise_level * stage.schedule.T))
        text = stage.embed([caption(scene)])
        condition = Condition(text, stage.schedule.add_noise(up, noise(), level), level)
        t = torch.tensor([stage.schedule.level(SR.start)])
        steps = levels(int(t[0]), SR.steps)[:, None]

        denoiser = thresholded(conditioned(sampler.predict, condition), sampler.threshold)
        x = stage.schedule.first_image(up, noise(), t)
        fine = denoise(denoiser, x, steps, schedule=stage.schedule, step=DDIM(), noise=noise)
        bicubic = F.interpolate(low, 256, mode="bicubic", antialias=True)
        goal = features(metric.weights, truth)
        sharp, near = [], []
        for picture_256 in (fine.clamp(-1, 1), bicubic.clamp(-1, 1)):
            sharp.append(float(psnr((picture_256 + 1) / 2, (truth + 1) / 2)))
            found = features(metric.weights, picture_256)
            near.append(float(distance(metric.weights, found, goal)[0]))
        scores.append([*sharp, *near])
    return gain(scores)
