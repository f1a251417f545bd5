"""Trains one part by name, and puts the trained parts together as the folder that ships in the package."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler

from unitune import machine
from unitune.pretrain import card, networks
from unitune.pretrain.scoring import ClipTask, JudgeTask
from unitune.pretrain.tasks import DenoiseTask, Task, TextTask
from unitune.pretrain.train import Phase, train
from unitune.types import Refused

log = logging.getLogger(__name__)
PARTS = ("text", "base", "sr256", "clip", "judge")
POCKET = Path(__file__).parent.parent / "assets" / "pocket"


def run(part: str, *, parts: Mapping[str, Mapping], minutes: float, folder: Path, text_encoder: Path, seed: int, device: str, workers: int) -> None:
    """Train one of PARTS as `parts` says; or "assemble" what was trained into the package; or measure that and write its "card"."""
    if part == "assemble":
        assemble(folder, POCKET, machine_name=cpu_name())
    elif part == "card":
        card.write(POCKET, count=48, weight=4.0, seed=seed)
    elif part in PARTS:
        train_part(part, **parts[part], minutes=minutes, folder=folder, text_encoder=text_encoder, seed=seed, device=device, workers=workers)
    else:
        raise Refused(f"part must be one of {', '.join(PARTS)}, assemble or card; got {part!r}")


def train_part(
    part: str,
    *,
    lr: float,
    ema_decay: float,
    phases: Sequence[Mapping[str, int]],
    minutes: float,
    folder: Path,
    text_encoder: Path,
    seed: int,
    device: str,
    workers: int,
) -> None:
    """Train a part for so many minutes, from its last checkpoint on; `text_encoder` is the exported folder of part "text"."""
    if part != "text" and not (text_encoder / "tokenizer").is_dir():
        raise Refused(f"part {part} needs the text part first, and {text_encoder} has no tokenizer: run part=text")
    torch.manual_seed(seed)
    task = _task(part, machine.device(device), text_encoder)
    log.info("%s: %.2f M parameters", part, sum(p.numel() for p in task.network.parameters()) / 1e6)
    train(task, [Phase(**phase) for phase in phases], folder / part, lr=lr, seed=seed, ema_decay=ema_decay, minutes=minutes, workers=workers)


def _task(part: str, device: torch.device, text: Path) -> Task:
    if part == "text":
        return TextTask(device)
    if part == "base":
        return DenoiseTask(device, network=networks.base_unet(), text_folder=text, low_resolution=False)
    if part == "sr256":
        return DenoiseTask(device, network=networks.sr_unet(), text_folder=text, low_resolution=True)
    return ClipTask(device, text_folder=text) if part == "clip" else JudgeTask(device)


def assemble(trained: Path, pocket: Path, *, machine_name: str) -> None:
    """Copy exported parts into the folder of the pocket models: `base` and `sr256` as stock IF pipelines read them, `clip`, `judge`, `words.json`."""
    for stage, cap, pipeline in (("base", 1.5, "IFPipeline"), ("sr256", 1.0, "IFSuperResolutionPipeline")):
        out = pocket / stage
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(trained / stage / "export", out / "unet")
        networks.scheduler(sample_max_value=cap).save_pretrained(out / "scheduler")
        parts: dict[str, object] = {"_class_name": pipeline, "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DConditionModel"]}
        absent = {"safety_checker": [None, None], "feature_extractor": [None, None], "watermarker": [None, None], "requires_safety_checker": False}
        if stage == "base":
            shutil.copytree(trained / "text" / "export", out, dirs_exist_ok=True)
            parts |= {"text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"]}
        else:
            DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(out / "image_noising_scheduler")
            parts |= {"text_encoder": [None, None], "tokenizer": [None, None], "image_noising_scheduler": ["diffusers", "DDPMScheduler"]}
        (out / "model_index.json").write_text(json.dumps(parts | absent, indent=2) + "\n")
    for part in ("clip", "judge"):
        if (trained / part / "export").is_dir():
            shutil.rmtree(pocket / part, ignore_errors=True)
            shutil.copytree(trained / part / "export", pocket / part)
    files = {part: trained / part / "checkpoint.pt" for part in PARTS}
    done = {part: torch.load(file, weights_only=True)["done"] | {"machine": machine_name} for part, file in files.items() if file.exists()}
    (pocket / "training.json").write_text(json.dumps(done, indent=2) + "\n")
    (pocket / "words.json").write_text(json.dumps(networks.vocabulary()) + "\n")


def cpu_name() -> str:
    """Say in a few words what trains: the number of cores and, where there is one, the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
