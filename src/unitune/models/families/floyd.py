"""IF-shaped cascades from the standard diffusers folder format: DeepFloyd IF and the pocket cascade."""

import json
from pathlib import Path

import torch

from unitune.diffusion.steps import Threshold
from unitune.models.stage import (
    CHANNELS,
    Storage,
    UNetStage,
    read_losses,
    read_network,
    read_schedule,
)
from unitune.types import Refused

FloydStage = UNetStage  # in pixels
# A stage's folder may hold this file beside what diffusers reads: {"align_corners": false}. IF aligns corners, which moves the low-resolution picture by up to
# 1.5 px at 256 px; a network of small reach, trained on crops, cannot know by how much, so the pocket cascade aligns pixels.
SETTINGS = "upsampling.json"


def load_stage(
    folder: Path,
    name: str,
    *,
    low_resolution: int,
    device: torch.device,
    dtype: torch.dtype,
    storage: Storage | None = None,
) -> UNetStage:
    """Read one stage's `unet` and `scheduler` from its pipeline folder."""
    storage = storage or Storage()
    network = read_network(folder, device=device, storage=storage)
    if network.config.in_channels != (2 * CHANNELS if low_resolution else CHANNELS):
        raise Refused(
            f"stage {name} in {folder} reads {network.config.in_channels} channels; a first stage reads 3, a super-resolution stage 6"
        )
    schedule, settings = read_schedule(folder)
    cap = settings.get("sample_max_value", 1.0) if settings.get("thresholding") else 1.0
    return UNetStage(
        name=name,
        resolution=network.config.sample_size,
        network=network,
        schedule=schedule,
        loss=read_losses(folder, settings).tuning,
        threshold=Threshold(settings.get("dynamic_thresholding_ratio", 0.995), cap),
        low_resolution=low_resolution,
        align_corners=_aligns_corners(folder),
        dtype=dtype,
        stored=storage.dtype,
    )


def _aligns_corners(folder: Path) -> bool:
    file = folder / SETTINGS
    return json.loads(file.read_text()).get("align_corners", True) if file.is_file() else True
