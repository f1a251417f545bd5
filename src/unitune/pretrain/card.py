"""Measures the shipped pocket models on compositions that pretraining never saw and writes their card: numbers, samples, what they cannot do."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.backends.cascade import Cascade, pocket
from unitune.backends.floyd import FloydStage
from unitune.benchmarks.scenes import facts
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.loop import Condition, denoise
from unitune.diffusion.sampler import Sampler, SuperResolution
from unitune.diffusion.start import first_image
from unitune.diffusion.steps import levels
from unitune.figures.grid import labelled_grid
from unitune.images import from_uint8, to_uint8
from unitune.metrics.clip import load_clip
from unitune.metrics.judge import Judge, load_judge, read_facts, reduced
from unitune.pretrain.scoring import evaluate_clip, evaluate_judge
from unitune.scenes import caption, random_scene, render
from unitune.types import Draw, Example, Request, Tuned

log = logging.getLogger(__name__)
SHOWN = (
    "a dog on a beach", "a cat in a city at night", "a penguin in the snow", "a castle in a forest", "a red car in a city", "a rocket in a desert at sunset",
    "a dog and a cat in a meadow", "a guitar and a pizza in a desert", "a pencil sketch of a robot in a city", "a train in the snow, pixel art",
    "a lion in a room", "a black and white photo of a house under water",
)  # fmt: skip
SR = SuperResolution(steps=4, start=0.4, noise_level=0.1)  # as model=pocket samples
BLANK = torch.zeros(1, 3, 256, 256)


def sample(cascade: Cascade, prompts: list[str], *, weight: float, seed: int) -> list[Tensor]:
    """Plain text-to-image, 32 DDPM steps and the super-resolution of model=pocket, uncurated; (1, 3, S, S) each, S the last stage's side."""
    sampler = Sampler("card", guidance=Guidance(weight=weight), sr=SR)
    draws = [Draw(Request(text), seed * 100_000 + k) for k, text in enumerate(prompts)]
    return [edit.image for edit in sampler(cascade, Example("card", BLANK, ()), tuned=Tuned(), draws=draws)]


def obedience(cascade: Cascade, judge: Judge, *, count: int, weight: float, seed: int) -> dict[str, float]:
    """Judge samples for held-out captions: shares with the noun (one-object prompts), both nouns (two-object), place, time, style."""
    rng = np.random.default_rng(seed)
    base = Cascade(cascade.name, cascade.stages[:1], cascade.encoder, cascade.tokenize, cascade.pieces, cascade.digest)
    shares: dict[str, float] = {}
    for name, counts in (("one object", (1.0,)), ("two objects", (0.0, 1.0))):
        scenes = [random_scene(rng, held_out=True, counts=counts) for _ in range(count)]
        pictures = torch.cat(sample(base, [caption(scene) for scene in scenes], weight=weight, seed=seed))
        found: list[Any] = read_facts(judge, pictures)
        wanted: list[Any] = [facts(scene) for scene in scenes]
        shares[f"{name}: all named nouns present"] = _share(set(w["nouns"]) <= set(f["nouns"]) for f, w in zip(found, wanted, strict=True))
        for key in ("place", "time", "style"):
            shares[f"{name}: {key} right"] = _share(f[key] == w[key] for f, w in zip(found, wanted, strict=True))
    return shares


def sharpness(cascade: Cascade, *, count: int, seed: int) -> dict[str, float]:
    """Super-resolution of exact 64 px pictures of held-out scenes against bicubic: PSNR to the true 256 px picture, dB."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, held_out=True) for _ in range(count)]
    truth = torch.cat([from_uint8(render(scene)[0]) for scene in scenes])
    low = reduced(truth, 64)
    stage, generator = cascade.stages[1], torch.Generator().manual_seed(seed)
    text = cascade.encode([caption(scene) for scene in scenes])
    level = torch.full((count,), round(SR.noise_level * stage.schedule.T))
    noised = stage.schedule.add_noise(stage.upsampled(low), torch.randn(truth.shape, generator=generator), level)
    origin, noise = stage.upsampled(low), torch.randn(truth.shape, generator=generator)
    parts = [slice(i, i + 4) for i in range(0, count, 4)]
    fine = torch.cat([_upscale(stage, origin[k], noise[k], Condition(text[k], noised[k], level[k])) for k in parts])
    bicubic = F.interpolate(low, 256, mode="bicubic", antialias=True).clamp(-1, 1)
    return {"sr256: PSNR, dB": _psnr(fine, truth), "bicubic: PSNR, dB": _psnr(bicubic, truth)}


def _upscale(stage: FloydStage, origin: Tensor, noise: Tensor, condition: Condition) -> Tensor:
    t = torch.full((len(origin),), stage.schedule.level(SR.start))
    steps = levels(stage.schedule, int(t[0]), SR.steps)[:, None].expand(-1, len(origin))
    x = first_image(stage.schedule, origin, t, noise)
    return denoise(stage, x, levels=steps, condition=condition, reference=condition, weight=torch.ones(len(x)), step=SR.step, noise=lambda *_: noise)


def _share(hits: object) -> float:
    return float(np.mean(list(hits)))  # type: ignore[call-overload]


def _psnr(a: Tensor, b: Tensor) -> float:
    return float((10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().mean(dim=(1, 2, 3)))).mean())


def write(folder: Path, *, count: int, weight: float, seed: int) -> None:
    """Write README.md, samples.png and the card.json of judge and CLIP into the folder of the pocket models."""
    cascade = pocket()
    judge = load_judge(folder / "judge")
    tables = {"judge": evaluate_judge(judge, count=2000, seed=seed), "clip": evaluate_clip(load_clip(folder / "clip"), count=2000, seed=seed)}
    for part, numbers in tables.items():
        (folder / part / "card.json").write_text(json.dumps({k: round(v, 4) for k, v in numbers.items()}, indent=2) + "\n")
    log.info("judge and CLIP measured; sampling %d pictures", 2 * count)
    tables["base"] = obedience(cascade, judge, count=count, weight=weight, seed=seed)
    tables["sr256"] = sharpness(cascade, count=32, seed=seed)
    pictures = [to_uint8(picture) for picture in sample(cascade, list(SHOWN), weight=weight, seed=seed)]
    rows = [pictures[:6], pictures[6:]]
    labels = [f"{a} / {b}" for a, b in zip(SHOWN[:6], SHOWN[6:], strict=True)]
    labelled_grid(rows, row_labels=["", ""], column_labels=labels, path=folder / "samples.png", tile=160)
    training = json.loads((folder / "training.json").read_text())
    (folder / "README.md").write_text(_text(training, tables, count=count, weight=weight, folder=folder))


def _text(training: dict, tables: dict[str, dict[str, float]], *, count: int, weight: float, folder: Path) -> str:
    total = sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6
    lines = [
        "# The pocket models", "",
        "A small IF-shaped cascade (T5 encoder, 64 px base, 64->256 px super-resolution), a CLIP and a judge, trained on the scenes world of this package and",
        "on nothing else. Written by `python run.py --config-name pretrain part=card`; every number below comes from that command.", "",
        f"Weights: {total:.1f} MB in all, float16 safetensors. Licence: as the project's; the sprites they learned from are Noto Color Emoji (OFL 1.1).", "",
        "| part | steps | samples seen | minutes | machine |", "|---|---|---|---|---|",
        *(f"| {part} | {t['step']} | {t['samples']} | {t['minutes']:.0f} | {t['machine']} |" for part, t in training.items()), "",
        "Held-out compositions (noun x place x style never seen together in training);",
        f"samples: {count} prompts of each kind, guidance weight {weight:g}, uncurated.", "",
        "| what | value |", "|---|---|",
        *(f"| {part}: {name} | {value:.3f} |" for part, numbers in tables.items() for name, value in numbers.items()), "",
        "![uncurated samples, one seed each](samples.png)", "",
        "The judge that reads the samples is itself fallible, more so on blurred samples than on the clean renders of its own row.", "",
    ]  # fmt: skip
    notes = folder / "NOTES.md"
    return "\n".join(lines) + (notes.read_text() if notes.exists() else "")
