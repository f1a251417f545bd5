"""Measures how much of its obedience to text a stage keeps when it is tuned on one image.

The measure is how much an edit prompt changes the estimate of x_0, after the tuning over before it.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unitune.images import from_uint8
from unitune.scenes import Scene, caption
from unitune.scenes.render import render

from unitune_lab.parts.stage import TUNING, StagePart, V
from unitune_lab.parts.text import rms
from unitune_lab.watch import unseen

IMAGES, STEPS, BATCH, LR = 4, 128, 4, 1.25e-4
START = 0.95  # cosine time at which predictions are compared


def edits_of(scene: Scene) -> list[Scene]:
    """Return the scene in another place, with another object, and at night or by day."""
    noun = "castle" if scene.objects[0].noun != "castle" else "owl"
    things = (replace(scene.objects[0], noun=noun), *scene.objects[1:])
    place = "beach" if scene.place != "beach" else "forest"
    time = "night" if scene.time != "night" else "day"
    return [replace(scene, place=place), replace(scene, objects=things), replace(scene, time=time)]


def text_kept(part: StagePart, network: nn.Module, *, resolution: int) -> float:
    """Tune copies of the UNet as UniTune does and return the mean ratio over images and edits.

    Each copy is tuned on one unseen scene and its description, with the loss and the rate of what
    ships.
    """
    ratios: list[float] = []
    for k, scene in enumerate(unseen(IMAGES, objects=1, seed=5)):
        image = from_uint8(render(scene, 64)[0])
        image = F.interpolate(image, (resolution, resolution), mode="area")
        noise = torch.Generator().manual_seed(k)
        eps = torch.randn(image.shape, generator=noise)
        prompts = [caption(scene), *(caption(edit) for edit in edits_of(scene))]
        before = _estimates(part, network, image, eps, prompts)
        tuned = _tuned(part, network, image, prompts[0], noise)
        after = _estimates(part, tuned, image, eps, prompts)
        for edit in range(1, len(prompts)):
            ratios.append(rms(after[edit] - after[0]) / rms(before[edit] - before[0]))
    return sum(ratios) / len(ratios)


def _tuned(
    part: StagePart, network: nn.Module, image: Tensor, text: str, noise: torch.Generator
) -> nn.Module:
    network = copy.deepcopy(network).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0)
    states = part.embed([text]).expand(BATCH, -1, -1)
    x_0 = image.expand(BATCH, -1, -1, -1)
    for _ in range(STEPS):
        t = torch.randint(part.schedule.T, (BATCH,), generator=noise)
        eps = torch.randn(x_0.shape, generator=noise)
        x_t = part.schedule.add_noise(x_0, eps, t)
        v, _ = part.output(network, x_t, t, states, None)
        weight = TUNING.weights(part.schedule, t).to(v)[:, None, None, None]
        loss = ((v - V.target(part.schedule, x_0, eps, t)).square() * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def _estimates(
    part: StagePart, network: nn.Module, image: Tensor, eps: Tensor, prompts: Sequence[str]
) -> Tensor:
    network.eval()
    count = len(prompts)
    t = torch.full((count,), part.schedule.level(START))
    x_t = part.schedule.add_noise(image, eps, t[:1]).expand(count, -1, -1, -1)
    v, _ = part.output(network, x_t, t, part.embed(prompts), None)
    return V.x_0(part.schedule, x_t, v, t)
