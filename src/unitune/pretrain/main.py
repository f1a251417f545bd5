"""Trains one part by name, and puts the trained parts together as the folder that ships in the package."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import DDPMScheduler

from unitune import machine, pocket
from unitune.backends.floyd import SETTINGS
from unitune.backends.stage import LOSS
from unitune.pretrain import networks
from unitune.pretrain.card import write as card
from unitune.pretrain.card.text import chain
from unitune.pretrain.scoring import ClipTask, JudgeTask
from unitune.pretrain.tasks import DenoiseTask, Task, TextTask
from unitune.pretrain.train import Phase, Watch, train
from unitune.pretrain.warm import warm_start
from unitune.pretrain.watch import watch
from unitune.types import Refused

log = logging.getLogger(__name__)
PARTS = ("text", "base", "sr256", "clip", "clip2", "judge")
STARTS = ("fresh", "shipped")


def run(part: str, *, parts: Mapping[str, Mapping], start: str, minutes: float, folder: Path, text_encoder: Path, seed: int, device: str, workers: int) -> None:
    """Train one of PARTS as `parts` says; or "assemble" what was trained into the package; or measure that and write its "card"."""
    if part == "assemble":
        assemble(folder, pocket.FOLDER, machine_name=cpu_name())
    elif part == "card":
        card.write(pocket.FOLDER, count=512, weight=4.0, seed=seed)
    elif part in PARTS:
        if start not in STARTS:
            raise Refused(f"start must be one of {', '.join(STARTS)}; got {start!r}")
        options = {"start": start, "minutes": minutes, "folder": folder, "text_encoder": text_encoder, "device": device, "workers": workers}
        train_part(part, **{"seed": seed, **parts[part]}, **options)
    else:
        raise Refused(f"part must be one of {', '.join(PARTS)}, assemble or card; got {part!r}")


def train_part(
    part: str,
    *,
    lr: float,
    ema_decay: float,
    phases: Sequence[Mapping[str, int]],
    start: str,
    minutes: float,
    folder: Path,
    text_encoder: Path,
    seed: int,
    device: str,
    workers: int,
) -> None:
    """Train a part for so many minutes, from its last checkpoint on; `text_encoder` is the exported folder of part "text".

    Without a checkpoint it starts from `fresh` weights or from the `shipped` ones.
    """
    if part != "text" and not (text_encoder / "tokenizer").is_dir():
        raise Refused(f"part {part} needs the text part first, and {text_encoder} has no tokenizer: run part=text")
    torch.manual_seed(seed)
    task = _task(part, machine.device(device), text_encoder)
    log.info("%s: %.2f M parameters", part, sum(p.numel() for p in task.network.parameters()) / 1e6)
    before = warm_start(task.network, part, pocket.FOLDER, task.tokenizer) if start == "shipped" and not (folder / part / "checkpoint.pt").exists() else {}
    options = {"lr": lr, "seed": seed, "ema_decay": ema_decay, "minutes": minutes, "workers": workers}
    eye = partial(look, task, folder=folder / part, judge=folder / "judge" / "export") if isinstance(task, DenoiseTask) else None
    train(task, [Phase(**phase) for phase in phases], folder / part, before=before, watch=Watch(eye) if eye else None, **options)


def look(task: DenoiseTask, done: dict, resolution: int, *, folder: Path, judge: Path) -> None:
    """Watch a diffusion stage."""
    watch(task, done, folder=folder, resolution=resolution, judge=judge)


def _task(part: str, device: torch.device, text: Path) -> Task:
    if part == "text":
        return TextTask(device)
    if part == "base":
        return DenoiseTask(device, network=networks.base_unet(), text_folder=text, low_resolution=False)
    if part == "sr256":
        return DenoiseTask(device, network=networks.sr_unet(), text_folder=text, low_resolution=True)
    return JudgeTask(device) if part == "judge" else ClipTask(device, text_folder=text)


def assemble(trained: Path, pocket: Path, *, machine_name: str) -> None:
    """Copy exported parts into the folder of the pocket models: `base` and `sr256` as stock IF pipelines read them, `clip`, `clip2`, `judge`, `words.json`.

    A part that `trained` lacks stays as it is, with its record.
    """
    exports = {part: folder for part in PARTS if (folder := trained / part / "export").is_dir()}
    if "text" in exports:
        shutil.copytree(exports["text"], pocket / "base", dirs_exist_ok=True)
        (pocket / "words.json").write_text(json.dumps(networks.vocabulary()) + "\n")
    for part in ("base", "sr256"):
        if part in exports:
            shutil.rmtree(pocket / part / "unet", ignore_errors=True)
            shutil.copytree(exports[part], pocket / part / "unet")
            _write_schedulers(part, pocket / part)
    for part in ("clip", "clip2", "judge"):
        if part in exports:
            shutil.rmtree(pocket / part, ignore_errors=True)
            shutil.copytree(exports[part], pocket / part)
    _write_record(trained, pocket, machine_name)


def _write_schedulers(part: str, out: Path) -> None:
    """Write what makes a stage's folder one of a stock pipeline."""
    networks.scheduler(sample_max_value=1.5 if part == "base" else 1.0).save_pretrained(out / "scheduler")
    (out / LOSS).write_text(json.dumps(networks.LOSSES.plain()) + "\n")
    parts: dict[str, object] = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DConditionModel"]}
    if part == "base":
        parts |= {"_class_name": "IFPipeline", "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"]}
    else:
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(out / "image_noising_scheduler")
        parts |= {"_class_name": "IFSuperResolutionPipeline", "image_noising_scheduler": ["diffusers", "DDPMScheduler"]}
        parts |= {"text_encoder": [None, None], "tokenizer": [None, None]}
        (out / SETTINGS).write_text(json.dumps({"align_corners": False}) + "\n")  # as DenoiseTask trains it
    parts |= {"safety_checker": [None, None], "feature_extractor": [None, None], "watermarker": [None, None], "requires_safety_checker": False}
    (out / "model_index.json").write_text(json.dumps(parts, indent=2) + "\n")


def _write_record(trained: Path, pocket: Path, machine_name: str) -> None:
    """Write what the trainings behind the weights were, and how their scores moved: samples of a curve count from the first training on."""
    file, curve = pocket / "training.json", pocket / "training_curve.jsonl"
    known = json.loads(file.read_text()) if file.exists() else {}
    looks = _lines(curve)
    for part in PARTS:
        done = _done(trained / part)
        if not done:
            continue
        known[part] = {"machine": machine_name, **done}
        before = sum(training["samples"] for training in chain(done.get("before", {})))
        looks = [look for look in looks if look["part"] != part or look["samples"] <= before]
        looks += [{"part": part, **look, "samples": before + look["samples"]} for look in _lines(trained / part / "curve.jsonl")]
    file.write_text(json.dumps({part: known[part] for part in PARTS if part in known}, indent=2) + "\n")
    curve.write_text("".join(json.dumps(look) + "\n" for look in looks))


def _lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _done(folder: Path) -> dict:
    """Return steps, samples and minutes of a trained part: `done.json` where another machine trained it, else its checkpoint's; empty where there is none."""
    if (folder / "done.json").exists():
        return json.loads((folder / "done.json").read_text())
    return torch.load(folder / "checkpoint.pt", weights_only=True)["done"] if (folder / "checkpoint.pt").exists() else {}


def cpu_name() -> str:
    """Say in a few words what trains: the number of cores and, where there is one, the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
