"""Tuning against a plain loop that encodes image and text at every step, as diffusers' scripts do.

Command:  make bench  (python experiments/bench/tuning.py --repeat 3)
Targets:  seconds per optimiser step of ours at most 0.8 of the plain loop's, where there is an
          encoder to spare: a network of the shape of Stable Diffusion 1.5 with its VAE and text
          encoder, all at an eighth of the width (random weights), 256 px. The pocket base stage,
          whose only encoder is a small T5, is shown beside it.
Minutes:  about 4 on two CPU cores.

Same folder, picture, batch of 4, float32, AdamW over every weight of the network; the two take
turns; medians of all steps but each turn's first.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from unitune.diffusion.stage import reduced
from unitune.models import cascade as backend
from unitune.models import pocket, tiny  # first: it makes torchvision importable
from unitune.models.cascade import Cascade
from unitune.models.files import Model
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import fit
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Request

# isort: split
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5EncoderModel

BATCH, LR, PROMPT = 4, 1e-5, "beikkpic"
# Stable Diffusion 1.5's own shapes, widths divided by 8.
NARROW = {"layers_per_block": 2, "norm_num_groups": 8}
UNET = tiny.SD_15 | NARROW | {
    "attention_head_dim": 8, "block_out_channels": (40, 80, 160, 160), "cross_attention_dim": 96,
    "sample_size": 32, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE = tiny.VAE | NARROW | {
    "block_out_channels": (16, 32, 64, 64), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "sample_size": 256,
}  # fmt: skip
CLIP = tiny.CLIP | {
    "hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 12, "num_hidden_layers": 12,
    "projection_dim": 96,
}  # fmt: skip
# The second clock hardly sees what else the machine does.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Times = list[tuple[float, ...]]  # of steps, by each clock


def now() -> tuple[float, ...]:
    return tuple(clock() for clock in CLOCKS.values())


def between(times: Times) -> Times:
    """The differences of readings that follow each other."""
    pairs = itertools.pairwise(times)
    return [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairs]


def stable_diffusion(folder: Path) -> Path:
    """Write the narrow pipeline folder: the tiny one's tokenizer and index, with other networks."""
    tiny.sd15(folder)
    torch.manual_seed(0)
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    words = len(AutoTokenizer.from_pretrained(folder / "tokenizer"))
    encoder = CLIPTextModel(CLIPTextConfig(**CLIP | {"vocab_size": words}))
    encoder.save_pretrained(folder / "text_encoder")
    PNDMScheduler(skip_prk_steps=True, **tiny.SCHEDULE).save_pretrained(folder / "scheduler")
    return folder


def plain(folder: Path, image: torch.Tensor) -> Callable[[], None]:
    """Return one step of the plain loop."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).train()
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    vae, kind = None, T5EncoderModel
    if (folder / "vae").is_dir():
        vae = AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False)
        kind = CLIPTextModel
    encoder = kind.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    encoder = encoder.requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LR, weight_decay=0.0, fused=True)
    pixels = image.expand(BATCH, -1, -1, -1)
    padded: dict[str, Any] = {"padding": "max_length", "max_length": 77, "truncation": True}

    def step() -> None:
        x_0 = pixels
        if vae is not None:
            x_0 = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        tokens = tokenizer([PROMPT] * BATCH, return_tensors="pt", **padded)
        mask = tokens.attention_mask if vae is None else None
        text = encoder(tokens.input_ids, attention_mask=mask)[0]
        noise = torch.randn_like(x_0)
        t = torch.randint(0, schedule.config.num_train_timesteps, (BATCH,))
        output = unet(schedule.add_noise(x_0, noise, t), t, text).sample
        output = output[:, : x_0.shape[1]]  # IF's learned variance is left out
        target = noise
        if schedule.config.prediction_type == "v_prediction":
            target = schedule.get_velocity(x_0, noise, t)
        F.mse_loss(output, target).backward()
        optimizer.step()
        optimizer.zero_grad()
        float(output.detach().flatten()[0])

    return step


def ours(cascade: Cascade, example: Example, steps: int) -> Times:
    """Seconds of each step of `fit` but the first, which holds what is made once."""
    told = [now()]
    # The last step holds the writing.
    tuning = Tuning(lr=LR, steps=steps + 1, batch_size=BATCH, snapshots=())
    data = OneImage(cascade.stages[0], example, cascade.encode([PROMPT]), 0, tuning)
    with tempfile.TemporaryDirectory() as folder:
        fit(data, folder=Path(folder), report=lambda *_: told.append(now()))
    return between(told)[1:-1]


def theirs(once: Callable[[], None], steps: int) -> Times:
    """Seconds of each step of the plain loop but the first."""
    told = [now()]
    for _ in range(steps):
        once()
        told.append(now())
    return between(told)[1:]


def compared(
    name: str, cascade: Cascade, folder: Path, example: Example, *, repeat: int, steps: int
) -> None:
    """Print the two side by side."""
    once = plain(folder, reduced(example.image, cascade.stages[0].resolution))
    mine: Times = []
    other: Times = []
    for _ in range(repeat):
        mine += ours(cascade, example, steps)
        other += theirs(once, steps)
    for k, clock in enumerate(CLOCKS):
        a, b = (statistics.median(times[k] for times in side) for side in (mine, other))
        said = f"ours {a:6.3f}  plain {b:6.3f}  ratio {a / b:.2f}"
        print(f"{name:<46}  {clock:<9}  {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    how = vars(parser.parse_args())
    print("seconds per optimiser step, medians")
    with tempfile.TemporaryDirectory() as place:
        folder = stable_diffusion(Path(place))
        model = Model("narrow", ("base",), path=str(folder), family="stable_diffusion")
        narrow = backend.build(model, device=torch.device("cpu"), dtype=torch.float32)
        image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
        example = Example("one", image, (Request("a dog"),))
        name = "narrow Stable Diffusion, 256 px (target 0.80)"
        compared(name, narrow, folder, example, **how)
        cascade = pocket.cascade(device="cpu", precision="fp32")
        compared("pocket base stage, 64 px", cascade, pocket.FOLDER / "base", example, **how)


if __name__ == "__main__":
    main()
