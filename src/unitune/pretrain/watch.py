"""What one sees while a diffusion stage trains: its error on unseen scenes, a grid of samples, and what the judge finds in them."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.backends.floyd import FloydStage
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.loop import Condition, denoise
from unitune.diffusion.steps import DDIM, Threshold, levels
from unitune.figures.grid import labelled_grid
from unitune.images import to_uint8
from unitune.metrics.judge import load_judge, read_facts
from unitune.pretrain import networks
from unitune.pretrain.data import SceneBatches
from unitune.pretrain.tasks import DenoiseTask
from unitune.scenes import caption, random_scene

log = logging.getLogger(__name__)
LEVELS = (100, 300, 500, 700, 900)  # t, at which unseen scenes are denoised in one step
UNSEEN, SAMPLES, STEPS, WEIGHT = 64, 32, 16, 4.0


@torch.no_grad()
def held_out_error(task: DenoiseTask, *, resolution: int, count: int = UNSEEN) -> float:
    """Return the mean squared error of x_0, estimated in one step at LEVELS, on scenes that training never sees; the same scenes and noise each time."""
    stream = SceneBatches(seed=1, batch_size=min(32, count), size=task.size, held_out=True)
    errors = []
    for k in range(-(-count // stream.batch_size)):
        batch = stream.batch(k)
        for t in LEVELS:
            rows = torch.full((stream.batch_size,), t, device=task.device)
            error_v = task.error(batch, resolution, t=rows, noise=torch.Generator(task.device).manual_seed(1000 * k + t))
            errors.append(error_v.float() / (1 + task.schedule.snr(rows).to(error_v)))
    return float(torch.cat(errors).mean())


def sample(task: DenoiseTask, captions: list[str], *, resolution: int, seed: int = 0) -> Tensor:
    """Sample a first stage with guidance, deterministic steps; (B, 3, resolution, resolution)."""
    threshold, generator = Threshold(0.95, 1.5), torch.Generator().manual_seed(seed)
    network: Any = task.network
    stage = FloydStage("base", resolution, network, task.schedule, networks.LOSS, threshold, dtype=torch.bfloat16)
    noise = torch.randn((len(captions), 3, resolution, resolution), generator=generator)
    steps = levels(stage.schedule, stage.schedule.T - 1, STEPS)[:, None].expand(-1, len(captions))
    text, empty = (Condition(task.embed(tuple(texts)).cpu()) for texts in (captions, [""] * len(captions)))
    weight = torch.full((len(captions),), Guidance(weight=WEIGHT).weight)
    return denoise(stage, noise, levels=steps, condition=text, reference=empty, weight=weight, step=DDIM(), noise=lambda *_: noise)


def watch(task: DenoiseTask, done: dict, *, folder: Path, resolution: int, judge: Path) -> None:
    """Append a line to `curve.jsonl` (samples, minutes, resolution, error, and for a first stage what the judge finds) and draw `samples.png`."""
    began = time.monotonic()
    was_training = task.network.training
    task.network.eval()
    line: dict = {"samples": done["samples"], "minutes": round(done["minutes"], 2), "resolution": resolution}
    line["error"] = held_out_error(task, resolution=resolution)
    if not task.low_resolution:
        rng = np.random.default_rng(2)
        scenes = [random_scene(rng, held_out=True, counts=(1.0,)) for _ in range(SAMPLES)]
        pictures = sample(task, [caption(scene) for scene in scenes], resolution=resolution)
        if (judge / "config.json").exists():
            found = read_facts(load_judge(judge), F.interpolate(pictures, (64, 64), mode="bilinear"))
            line["noun"] = float(np.mean([scene.objects[0].noun in f["nouns"] for scene, f in zip(scenes, found, strict=True)]))  # type: ignore[operator]
            line["place"] = float(np.mean([scene.place == f["place"] for scene, f in zip(scenes, found, strict=True)]))
        tiles = [to_uint8(p[None]) for p in pictures]
        labelled_grid([tiles[i : i + 8] for i in range(0, 32, 8)], row_labels=[""] * 4, column_labels=[""] * 8, path=folder / "samples.png", tile=96)
    with (folder / "curve.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    task.network.train(was_training)
    log.info("%s: %s (%.0f s)", folder.name, json.dumps(line), time.monotonic() - began)
