"""Cascades of pixels shaped like DeepFloyd IF: IF itself and the embedded cascade.

Limits: texts are read by the first stage's T5, 77 tokens in lower case; the variance that IF
predicts beside eps is not used; a stage above the first reads the picture of the one below, noised.
IF's weights are gated and for non-commercial research, and were not at hand here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitune.diffusion.steps import Threshold
from unitune.models.families import config_keys
from unitune.models.families.interface import Family, Placement, Published

# A stage's folder may hold this file beside what diffusers reads: {"align_corners": false}.
# IF aligns corners, which moves the low-resolution picture by up to 1.5 px at 256 px; a network of
# small reach, trained on crops, cannot know by how much, so the embedded one aligns pixels.
SETTINGS = "upsampling.json"


def read_encoder(*place: Any, **how: Any) -> Any:
    """Read the T5."""
    from unitune.models.text import T5

    return T5(*place, **how)


def problems(folder: Path, first: Path | None) -> Iterator[str]:
    """List what of a stage's folder is not as IF's; it reads RGB, a later stage twice."""
    later = folder != first
    read = [6 if later else 3]
    yield from config_keys.channels(folder / "unet", in_channels=read, out_channels=[3, 6])
    yield from config_keys.unet(folder / "unet", labels="timestep" if later else None)
    if first is not None:
        yield from config_keys.text(folder / "unet", first / "text_encoder", ["t5"])


def load_stage(folder: Path, name: str, low: int, placement: Placement) -> Any:
    """Read one stage's `unet` and `scheduler` from its pipeline folder."""
    from unitune.models import stage, weight_files

    network = stage.read_network(folder, placement)
    schedule, settings = stage.read_schedule(folder)
    cap = settings.get("sample_max_value", 1.0) if settings.get("thresholding") else 1.0
    upsampling = folder / SETTINGS
    chosen = weight_files.json_object(upsampling) if upsampling.is_file() else {}
    return stage.UNetStage(
        name=name,
        resolution=network.config.sample_size,
        network=network,
        schedule=schedule,
        loss=stage.read_losses(folder, settings).tuning,
        threshold=Threshold(settings.get("dynamic_thresholding_ratio", 0.995), cap),
        low_resolution=low,
        align_corners=chosen.get("align_corners", True),
        dtype=placement.dtype,
        stored=placement.stored,
    )


# Parameters of IF-I-XL, IF-II-L and T5-XXL are those of their published files; IF-I-M, IF-I-L and
# IF-II-M were built from configurations that fit the published "400M", "900M" and "450M".
FAMILY = Family(
    title="DeepFloyd IF",
    first=("unet", "scheduler", "text_encoder", "tokenizer"),
    later=("unet", "scheduler"),
    read_encoder=read_encoder,
    load_stage=load_stage,
    problems=problems,
    networks={"unet": "UNet2DConditionModel", "text_encoder": "T5EncoderModel"},
    tokenizer="T5Tokenizer",
    published={
        "DeepFloyd/IF-I-M-v1.0": Published(371_605_830, 64, 734),
        "DeepFloyd/IF-I-L-v1.0": Published(935_365_830, 64, 1221),
        "DeepFloyd/IF-I-XL-v1.0": Published(4_304_695_110, 64, 2680),
        "DeepFloyd/IF-II-M-v1.0": Published(460_997_382, 256, 16 * 225),
        "DeepFloyd/IF-II-L-v1.0": Published(1_243_277_190, 256, 6217),
    },
    text_parameters={"DeepFloyd": 4_762_310_656},
    gated=("DeepFloyd",),
)
