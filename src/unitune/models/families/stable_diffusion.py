"""Stable Diffusion as a cascade of one stage: x_0 is the VAE's latent, pictures outside stay RGB in [-1, 1]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitune.diffusion.schedule import Image
from unitune.diffusion.steps import Unbounded
from unitune.models import files
from unitune.models.libraries import AutoencoderKL
from unitune.models.stage import Storage, UNetStage, read_losses, read_network, read_schedule
from unitune.types import Refused


@dataclass(frozen=True)
class Vae:
    """The VAE at the border, in float32, a picture at a time: what a picture becomes does not depend on its batch, and the decoder's memory stays small.

    A picture's latent is the posterior's mean: the one image of a tuning is the same in every step. `scale` brings latents to about unit variance.
    """

    network: AutoencoderKL
    scale: float

    @torch.no_grad()
    def encode(self, image: Image) -> Image:
        """Turn pictures into scaled latents."""
        device = next(self.network.parameters()).device
        rows = [
            self.network.encode(row.to(device)).latent_dist.mode() * self.scale
            for row in image.split(1)
        ]  # type: ignore[union-attr]
        return torch.cat(rows).to(image.device)

    @torch.no_grad()
    def decode(self, x_0: Image) -> Image:
        """Turn scaled latents into pictures, clipped to [-1, 1]."""
        device = next(self.network.parameters()).device
        rows = [self.network.decode(row.to(device) / self.scale).sample for row in x_0.split(1)]  # type: ignore[union-attr]
        return torch.cat(rows).clamp(-1, 1).to(x_0.device)


def load_stage(
    folder: Path, name: str, *, device: torch.device, dtype: torch.dtype, storage: Storage
) -> UNetStage:
    """Read `unet`, `vae` and `scheduler` of a pipeline folder. Latents have no range, so predicted x_0 are not thresholded."""
    network = read_network(folder, device=device, storage=storage)
    variant = files.held_variant(folder / "vae", storage.variant)
    vae: Any = AutoencoderKL.from_pretrained(
        folder / "vae",
        torch_dtype=torch.float32,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
    )
    vae = vae.eval().requires_grad_(False).to(device)
    channels, latent = network.config.in_channels, vae.config.latent_channels
    if channels != latent:
        raise Refused(
            f"the unet in {folder} reads {channels} channels and its VAE gives {latent}; only text-to-image models of Stable Diffusion are edited"
        )
    schedule, settings = read_schedule(folder)
    return UNetStage(
        name=name,
        resolution=network.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
        network=network,
        schedule=schedule,
        loss=read_losses(folder, settings).tuning,
        threshold=Unbounded(),  # type: ignore[arg-type]
        dtype=dtype,
        codec=Vae(vae, vae.config.scaling_factor),
        channels=latent,
        stored=storage.dtype,
    )
