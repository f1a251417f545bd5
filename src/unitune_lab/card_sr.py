"""Super-resolution on the card: exact 64 px pictures brought to 256 px, beside bicubic."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
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

        def denoiser(x_t: Tensor, s: Tensor, condition: Condition = condition) -> Tensor:
            return sampler.threshold(sampler.predict(x_t, s, condition))

        x = stage.schedule.first_image(up, noise(), t)
        fine = denoise(denoiser, x, steps, schedule=stage.schedule, step=DDIM(), noise=noise).clamp(
            -1, 1
        )
        bicubic = F.interpolate(low, 256, mode="bicubic", antialias=True).clamp(-1, 1)
        goal = features(metric.weights, truth)
        near = [float(distance(metric.weights, features(metric.weights, x), goal)[0])
                for x in (fine, bicubic)]  # fmt: skip
        scores.append(
            [*(float(psnr((x + 1) / 2, (truth + 1) / 2)) for x in (fine, bicubic)), *near]
        )
    return gain(scores)
