"""What makes samples count on a CPU: ideas for pretraining, each given the same minutes of one core (its own processor time) from fresh weights, beside the recipe.

Command: python experiments/sample_efficiency.py [MINUTES] [IDEA ...]    About 65 minutes on one core.
Expected: v-prediction beats eps; so early, more steps (a smaller batch, a cheaper optimiser) and fewer norm groups count more than anything else.
Writes experiments/records/sample_efficiency.jsonl: mean squared error of x_0 on held-out scenes (all pixels; pixels of objects) at five noise levels.
"""

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitune.compat import ensure_torchvision

ensure_torchvision()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from unitune.pocket import FOLDER as POCKET  # noqa: E402
from unitune.pretrain.muon import MuonAndAdamW  # noqa: E402
from unitune.pretrain.networks import LOSS, base_unet, sr_unet, text_encoder  # noqa: E402
from unitune.pretrain.tasks import DenoiseTask, pixels  # noqa: E402
from unitune.scenes import random_scene, render  # noqa: E402
from unitune.scenes.caption import training_caption  # noqa: E402

RECORD = Path(__file__).parent / "records" / "sample_efficiency.jsonl"
LEVELS = (100, 300, 500, 700, 900)  # t, at which held-out scenes are denoised in one step
POOL, HELD_OUT = 12_000, 256  # scenes; no idea sees the pool twice within a few minutes


@dataclass(frozen=True)
class Idea:
    """One departure from the recipe; `resolutions` share the minutes equally, `side` is where the error is measured."""

    name: str
    optimizer: str = "muon"
    lr: float = 1e-3
    batch_size: int = 64
    prediction: str = "v"
    snr_cap: float = LOSS.gamma
    norm_groups: int | None = None  # None: as the recipe has it
    copy: bool = True  # super-resolution only: first weights that answer with the low-resolution picture
    object_weight: float = 1.0
    only_one: bool = False
    text: str = "pretrained"
    resolutions: tuple[int, ...] = (32,)
    side: int = 32
    stage: str = "base"


IDEAS = (
    Idea("recipe"), Idea("AdamW 1e-3", optimizer="adamw"), Idea("batch 32", batch_size=32), Idea("eps-prediction", prediction="eps"),
    Idea("no min-SNR", snr_cap=1e9), Idea("random text encoder", text="random"), Idea("4 norm groups", norm_groups=4),
    Idea("objects weigh 3", object_weight=3.0), Idea("one object first", only_one=True), Idea("Muon 3e-3", lr=3e-3),
    Idea("32 px, then 64 px", resolutions=(32, 32, 64), side=64), Idea("64 px throughout", resolutions=(64,), side=64),
    Idea("SR recipe", stage="sr256", batch_size=32, side=64), Idea("SR, random first weights", stage="sr256", batch_size=32, side=64, copy=False),
    Idea("SR, random first weights, 8 norm groups", stage="sr256", batch_size=32, side=64, copy=False, norm_groups=8),
)  # fmt: skip


@dataclass(frozen=True)
class Scenes:
    """N scenes: pictures (N, 3, S, S) and object masks (N, 1, S, S) uint8, captions, and whether there is one object."""

    image: Tensor
    mask: Tensor
    captions: list[str]
    single: Tensor

    def rows(self, picked: Tensor) -> "Scenes":
        """Pick rows."""
        return Scenes(self.image[picked], self.mask[picked], [self.captions[int(k)] for k in picked], self.single[picked])


def draw(count: int, *, seed: int, held_out: bool, side: int) -> Scenes:
    """Render scenes once, for all ideas."""
    rng = np.random.default_rng(seed)
    pictures, masks, captions, single = [], [], [], []
    for _ in range(count):
        scene = random_scene(rng, held_out=held_out)
        picture, covers = render(scene, side)
        union = np.any(covers, axis=0).reshape(side, 256 // side, side, 256 // side).mean(axis=(1, 3))
        pictures.append(torch.from_numpy(picture).permute(2, 0, 1))
        masks.append(torch.from_numpy((union * 255).astype(np.uint8))[None])
        captions.append(training_caption(scene, rng))
        single.append(len(scene.objects) == 1)
    return Scenes(torch.stack(pictures), torch.stack(masks), captions, torch.tensor(single))


def network(idea: Idea) -> UNet2DConditionModel:
    """Build the stage's network with the idea's first weights and number of norm groups."""
    unet = base_unet() if idea.stage == "base" else sr_unet()
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm) and idea.norm_groups:
            module.num_groups = idea.norm_groups
    if not idea.copy:
        net: Any = unet
        last = net.up_blocks[-1].resnets[-1]
        for module in (net.conv_in, net.conv_out, last.conv2, last.conv_shortcut):
            module.reset_parameters()
    return unet


@dataclass
class Denoiser:
    """The network with what it predicts; `x_0` returns its estimate in one step."""

    task: DenoiseTask
    idea: Idea

    def estimate(self, scenes: Scenes, t: Tensor, side: int, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the true x_0, the estimate and the pixels' weights of objects."""
        x_0, mask = pixels(scenes.image, self.task.device), scenes.mask.float() / 255
        schedule, extra = self.task.schedule, {}
        condition = None
        if self.idea.stage == "sr256":
            low = F.interpolate(F.interpolate(x_0, scale_factor=0.25, mode="area"), x_0.shape[-2:], mode="bilinear", align_corners=False)
            i, j = (int(torch.randint(x_0.shape[-1] - side + 1, (), generator=noise)) for _ in range(2))
            x_0, low, mask = (x[..., i : i + side, j : j + side] for x in (x_0, low, mask))
            level = torch.randint(schedule.T // 4, (len(t),), generator=noise)
            condition, extra = schedule.add_noise(low, torch.randn(low.shape, generator=noise), level), {"class_labels": level}
        elif x_0.shape[-1] != side:
            x_0, mask = F.interpolate(x_0, (side, side), mode="area"), F.interpolate(mask, (side, side), mode="area")
        x_t = schedule.add_noise(x_0, torch.randn(x_0.shape, generator=noise), t)
        net_in = x_t if condition is None else torch.cat([x_t, condition], dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            states = self.task.embed(tuple(scenes.captions))
            out = self.task.network(net_in.contiguous(memory_format=torch.channels_last), t, states, **extra).sample[:, :3].float()
        a, s = (x.to(x_t).view(-1, 1, 1, 1) for x in (schedule.alpha_bar[t].sqrt(), (1 - schedule.alpha_bar[t]).sqrt()))
        return x_0, (a * x_t - s * out if self.idea.prediction == "v" else (x_t - s * out) / a.clamp(min=1e-3)), mask


def loss(denoiser: Denoiser, scenes: Scenes, side: int, noise: torch.Generator) -> Tensor:
    """Min-SNR weighted error of x_0: SNR capped, the same for v and eps."""
    idea, schedule = denoiser.idea, denoiser.task.schedule
    t = torch.randint(schedule.T, (len(scenes.captions),), generator=noise)
    x_0, estimate, mask = denoiser.estimate(scenes, t, side, noise)
    snr = schedule.snr(t).float()
    weight = snr.clamp(max=idea.snr_cap) if idea.snr_cap < 1e8 else snr + 1
    error = (estimate - x_0).square() * (1 + (idea.object_weight - 1) * mask)
    return (error.mean(dim=(1, 2, 3)) * weight).mean()


@torch.no_grad()
def measure(denoiser: Denoiser, held_out: Scenes) -> dict[str, float]:
    """Return the mean squared error of x_0 over LEVELS, of all pixels and of the objects' pixels."""
    every, objects = [], []
    for t in LEVELS:
        noise = torch.Generator().manual_seed(t)
        for part in torch.arange(len(held_out.captions)).split(32):
            x_0, estimate, mask = denoiser.estimate(held_out.rows(part), torch.full((len(part),), t), denoiser.idea.side, noise)
            error = (estimate.clamp(-1, 1) - x_0).square().mean(dim=1, keepdim=True)
            every.append(error.mean())
            objects.append((error * mask).sum() / mask.sum())
    return {"error": float(torch.stack(every).mean()), "error_objects": float(torch.stack(objects).mean())}


def train(idea: Idea, pool: Scenes, held_out: Scenes, *, minutes: float) -> dict[str, float]:
    """Train the idea for so many minutes and measure it."""
    torch.manual_seed(0)
    task = DenoiseTask(torch.device("cpu"), network=network(idea), text_folder=POCKET / "base", low_resolution=idea.stage == "sr256")
    if idea.text == "random":
        task.encoder = text_encoder(len(task.tokenizer)).requires_grad_(False).eval()
    denoiser = Denoiser(task, idea)
    muon = MuonAndAdamW(task.network, lr=idea.lr)
    adamw = torch.optim.AdamW(task.network.parameters(), lr=idea.lr, betas=(0.9, 0.99))
    noise, samples, began = torch.Generator().manual_seed(1), 0, time.process_time()
    order = torch.nonzero(pool.single).flatten() if idea.only_one else torch.arange(len(pool.captions))
    while (part := (time.process_time() - began) / (60 * minutes)) < 1:
        picked = order[torch.arange(samples, samples + idea.batch_size) % len(order)]
        lr = idea.lr * min(1.0, (samples / idea.batch_size + 1) / 40) * (1 if part < 0.7 else (1 - part) / 0.3)  # a short decay stands in for EMA
        loss(denoiser, pool.rows(picked), idea.resolutions[int(part * len(idea.resolutions))], noise).backward()
        if idea.optimizer == "muon":
            muon.set_lr(lr)
            muon.step()
        else:
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
            adamw.zero_grad()
        samples += idea.batch_size
    return {"samples": samples, "minutes": minutes, **measure(denoiser, held_out)}


def main(minutes: float, names: list[str]) -> None:
    """Run every idea (or those named) and append a line each."""
    torch.set_num_threads(1)
    pools: dict[int, tuple[Scenes, Scenes]] = {}
    for idea in IDEAS:
        if names and idea.name not in names:
            continue
        side = 64 if idea.stage == "base" else 256
        if side not in pools:
            count = POOL if side == 64 else POOL // 4
            pools[side] = draw(count, seed=0, held_out=False, side=side), draw(HELD_OUT, seed=1, held_out=True, side=side)
        line = dataclasses.asdict(idea) | train(idea, *pools[side], minutes=minutes)
        with RECORD.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps({k: line[k] for k in ("name", "samples", "error", "error_objects")}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, nargs="?", default=5.0, help="of each idea")
    parser.add_argument("names", nargs="*", metavar="IDEA", help=f"these alone, of: {', '.join(idea.name for idea in IDEAS)}".replace("%", "%%"))
    options = parser.parse_args()
    main(options.minutes, options.names)
