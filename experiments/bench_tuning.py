"""Tuning against a plain loop that encodes the image and the text at every step, as the training scripts of diffusers do.

Command:  make bench  (python experiments/bench_tuning.py --repeat 3)
Targets:  seconds per optimiser step of ours at most 0.8 of the plain loop's, where there is an encoder to spare: a network of the shape of Stable Diffusion 1.5
          with its VAE and text encoder, all at an eighth of the width (random weights), 256 px. The pocket base stage, whose only encoder is a small T5, is
          shown beside it.
Same folder, picture, batch of 4, float32, AdamW over every weight of the network; the two take turns; medians of all steps but each turn's first.
Minutes:  about 4 on two CPU cores.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from unitune.models import cascade as backend
from unitune.models import (
    pocket,  # first: it makes torchvision importable
    tiny,
)
from unitune.models.cascade import Cascade
from unitune.models.files import Model
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import Tuning, fit
from unitune.types import Example, Request

# isort: split
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5EncoderModel

ROOT = Path(__file__).parent.parent
BATCH, LR, PROMPT = 4, 1e-5, "beikkpic"
# Stable Diffusion 1.5's own shapes, widths divided by 8.
UNET = tiny.SD_15 | {
    "attention_head_dim": 8, "block_out_channels": (40, 80, 160, 160), "cross_attention_dim": 96, "layers_per_block": 2, "norm_num_groups": 8, "sample_size": 32,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE = tiny.VAE | {
    "block_out_channels": (16, 32, 64, 64), "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2,
    "norm_num_groups": 8, "sample_size": 256,
}  # fmt: skip
CLIP = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 96,
}
CLOCKS = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}  # the second one hardly sees what else the machine does
Times = list[tuple[float, ...]]  # of steps, by each clock


def now() -> tuple[float, ...]:
    return tuple(clock() for clock in CLOCKS.values())


def since(began: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(b - a for a, b in zip(began, now(), strict=True))


def stable_diffusion(folder: Path) -> Path:
    """Write the narrow pipeline folder: the tiny one's tokenizer and index, with other networks."""
    tiny.sd15(folder)
    torch.manual_seed(0)
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    vocabulary = len(AutoTokenizer.from_pretrained(folder / "tokenizer"))
    CLIPTextModel(
        CLIPTextConfig(**(tiny.CLIP | CLIP | {"vocab_size": vocabulary}))
    ).save_pretrained(folder / "text_encoder")
    PNDMScheduler(skip_prk_steps=True, **tiny.SCHEDULE).save_pretrained(folder / "scheduler")
    return folder


def plain(folder: Path, image: torch.Tensor) -> Callable[[], None]:
    """Return one step of the plain loop."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    vae = (
        AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False)
        if (folder / "vae").is_dir()
        else None
    )
    kind = T5EncoderModel if vae is None else CLIPTextModel
    encoder = (
        kind.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
        .requires_grad_(False)
        .eval()
    )
    unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LR, weight_decay=0.0, fused=True)
    pixels = image.expand(BATCH, -1, -1, -1)

    def step() -> None:
        x_0 = (
            pixels
            if vae is None
            else vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        )
        tokens = tokenizer(
            [PROMPT] * BATCH,
            padding="max_length",
            max_length=77,
            truncation=True,
            return_tensors="pt",
        )
        text = encoder(
            tokens.input_ids, attention_mask=tokens.attention_mask if vae is None else None
        )[0]
        noise, t = (
            torch.randn_like(x_0),
            torch.randint(0, schedule.config.num_train_timesteps, (BATCH,)),
        )
        output = unet(schedule.add_noise(x_0, noise, t), t, text).sample
        if output.shape[1] == 2 * x_0.shape[1]:
            output, _ = output.chunk(2, dim=1)
        target = (
            schedule.get_velocity(x_0, noise, t)
            if schedule.config.prediction_type == "v_prediction"
            else noise
        )
        F.mse_loss(output, target).backward()
        optimizer.step()
        optimizer.zero_grad()
        float(output.detach().flatten()[0])

    return step


def ours(cascade: Cascade, example: Example, steps: int) -> Times:
    """Seconds of each step of `fit`; the first, from its start, holds what is made once."""
    told = [now()]
    with tempfile.TemporaryDirectory() as folder:
        data = OneImage(cascade.stages[0], example, cascade.encode([PROMPT]), 0, BATCH)
        tuning = Tuning(
            lr=LR, steps=steps + 1, snapshots=()
        )  # the last step's time would hold the writing of the result
        fit(data, tuning, folder=Path(folder), report=lambda *_: told.append(now()))
    return [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(told)][
        1:-1
    ]


def compared(
    name: str, cascade: Cascade, folder: Path, example: Example, *, repeat: int, steps: int
) -> None:
    """Print the two side by side."""
    image = torch.nn.functional.interpolate(
        example.image, (cascade.stages[0].resolution,) * 2, mode="area"
    )
    once = plain(folder, image)
    seconds: dict[str, Times] = {"ours": [], "plain": []}
    for _ in range(repeat):
        seconds["ours"] += ours(cascade, example, steps)
        for k in range(steps):
            began = now()
            once()
            seconds["plain"] += [since(began)] if k else []
    for k, clock in enumerate(CLOCKS):
        mine, theirs = (
            statistics.median(times[k] for times in seconds[which]) for which in ("ours", "plain")
        )
        print(
            f"{name:<46}  {clock:<9}  ours {mine:6.3f}  plain {theirs:6.3f}  ratio {mine / theirs:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    print("seconds per optimiser step, medians")
    with tempfile.TemporaryDirectory() as place:
        folder = stable_diffusion(Path(place))
        model = Model("narrow", ("base",), path=str(folder), family="stable_diffusion")
        cascade = backend.build(model, device=torch.device("cpu"), dtype=torch.float32)
        image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
        example = Example("one", image, (Request("a dog"),))
        compared(
            "narrow Stable Diffusion, 256 px (target 0.80)",
            cascade,
            folder,
            example,
            repeat=options.repeat,
            steps=options.steps,
        )
        compared(
            "pocket base stage, 64 px",
            pocket.cascade(device="cpu", precision="fp32"),
            pocket.FOLDER / "base",
            example,
            repeat=options.repeat,
            steps=options.steps,
        )


if __name__ == "__main__":
    main()
