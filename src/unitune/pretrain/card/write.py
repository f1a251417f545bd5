"""Measures the shipped pocket models on compositions that pretraining never saw and writes their card: numbers, samples, what they cannot do."""

import json
import logging
import os
import time
from pathlib import Path

import torch
from safetensors import safe_open

from unitune import pocket
from unitune.backends.cascade import Cascade
from unitune.figures.grid import labelled_grid
from unitune.images import to_uint8
from unitune.metrics.clip import Clip, load_clip
from unitune.metrics.judge import SIZE, Judge, load_judge, read_facts
from unitune.pretrain.card import measure
from unitune.pretrain.card.estimates import Row, average, share
from unitune.pretrain.card.learning import draw_curve, fits, read_curve
from unitune.pretrain.card.readings import JUDGE, ONE, TWO, by_noun, fact_rows, readings
from unitune.pretrain.card.text import Card, Part, numbers, text
from unitune.pretrain.scoring import evaluate_clip
from unitune.scenes import caption
from unitune.scenes.scene import COUNT_SHARES
from unitune.types import Refused

log = logging.getLogger(__name__)
SHOWN = (
    "a dog on a beach", "a cat in a city at night", "a penguin in the snow", "a red car in a city", "a blue umbrella on a stage",
    "an owl in a forest at sunset", "two crabs on a beach", "three mushrooms in a meadow", "a dog left of a cat in a meadow",
    "a robot behind a pumpkin on the moon", "a pencil sketch of a rocket in a desert", "a sepia photo of a tractor in a meadow",
)  # fmt: skip
SHOWN_SEEDS = 4
WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of guidance
FOLDERS = {"text": "base/text_encoder", "base": "base/unet", "sr256": "sr256/unet", "clip": "clip", "clip2": "clip2", "judge": "judge"}
CHOICES = {"caption_of_16": "right caption of 16", "noun": "the object of one-object pictures named"}
FEWEST = 16


def write(folder: Path, *, count: int = 512, weight: float, seed: int) -> None:
    """Measure the models of a folder; write README.md, card.json, samples.png (and curve.png) there, and a card.json beside the judge and each CLIP.

    `count` prompts of one and of two objects each; the judge and the CLIPs get 4 times as many renders, every guidance weight 1/16, super-resolution and each
    relation 1/8. The same weights, count, seed and machine give the same numbers again.
    """
    if count < FEWEST:
        raise Refused(f"the card needs at least {FEWEST} prompts of a kind, got count={count}")
    began = time.monotonic()
    cascade = pocket.cascade(folder)
    judge, clip = load_judge(folder / "judge"), load_clip(folder / "clip")
    looks = read_curve(folder)

    rows = judge_rows(folder / "judge", judge, count=4 * count, seed=seed)
    for part in ("clip", "clip2"):
        rows += clip_rows(folder / part, count=4 * count, seed=seed) if (folder / part).is_dir() else []
    log.info("judge and CLIP measured; the base stage draws %d pictures", 2 * count + count // 8)
    found, nouns = base_rows(cascade, judge, clip, count=count, weight=weight, seed=seed)
    log.info("base stage measured; next: relations, guidance, super-resolution")
    rows += found + measure.relation_rows(cascade, judge, count=count // 8, weight=weight, seed=seed)
    scenes = measure.draw_groups(count, seed=seed, draw=0)[ONE][: count // 16]
    guidance = measure.guidance_rows(cascade, judge, scenes, weights=WEIGHTS, seed=seed)
    rows.append(average("renders", "clipped in the picture", measure.clipped(measure.renders(scenes, SIZE)).tolist()))
    rows += measure.sharpness_rows(cascade, count=count // 8, seed=seed) + size_rows(folder)
    show(cascade, folder / "samples.png", weight=weight, seed=seed)
    if looks:
        draw_curve(looks, folder / "curve.png")

    sr = {"steps": measure.SR.steps, "start": measure.SR.start, "noise_level": measure.SR.noise_level}
    minutes = (time.monotonic() - began) / 60
    card = Card(
        settings={"count": count, "guidance": weight, "seed": seed, "base_steps": measure.STEPS, "sr": sr},
        measured={"minutes": round(minutes, 1), "machine": _machine(cascade.stages[0].device)},
        parts={part: _part(folder / where) for part, where in FOLDERS.items() if (folder / where).is_dir()},
        training=json.loads((folder / "training.json").read_text()),
        rows=rows, guidance=guidance, nouns=nouns, looks=len(looks), curve=fits(looks),
    )  # fmt: skip
    _write(folder / "card.json", json.dumps(numbers(card), indent=1) + "\n")
    notes = folder / "NOTES.md"
    _write(folder / "README.md", text(card) + (notes.read_text() if notes.exists() else ""))
    log.info("card written to %s in %.1f minutes", folder / "README.md", minutes)


def judge_rows(folder: Path, judge: Judge, *, count: int, seed: int) -> list[Row]:
    """Let the judge read `count` real renders of unseen compositions; also write the shares beside its weights."""
    scenes = measure.draw_scenes(count, seed=(seed, 30), counts=COUNT_SHARES, wanted=lambda _: True)
    names = {"exactly": "nouns_exact", "single": "noun_single"} | {name: name for name in ("place", "time", "style", "count", "colours", "palette", "side")}
    rows = fact_rows(JUDGE, readings(read_facts(judge, measure.renders(scenes, SIZE)), scenes), list(names))
    _write_shares(folder, dict(zip(names.values(), rows, strict=True)))
    return rows


def clip_rows(folder: Path, *, count: int, seed: int) -> list[Row]:
    """Let a CLIP choose captions and nouns for `count` real renders of unseen compositions; also write the shares beside its weights."""
    found = evaluate_clip(load_clip(folder), count=count, seed=seed)
    rows = {name: share(folder.name, CHOICES.get(name, name), [k < round(value * count) for k in range(count)]) for name, value in found.items()}
    _write_shares(folder, rows)
    return list(rows.values())


def base_rows(cascade: Cascade, judge: Judge, clip: Clip, *, count: int, weight: float, seed: int) -> tuple[list[Row], dict[str, list[int]]]:
    """Measure what the judge finds in samples of the base stage, and their distance to renders; also return hits and pictures by noun."""
    groups, others = (measure.draw_groups(count, seed=seed, draw=draw) for draw in (0, 1))
    base, rows, pictures, nouns = measure.first_stage(cascade), [], {}, {}
    for name, scenes in groups.items():
        pictures[name] = measure.sample(base, [caption(scene) for scene in scenes], name=name, weight=weight, seed=seed)
        right = readings(read_facts(judge, pictures[name]), scenes)
        rows += fact_rows(name, right, ("nouns", "exactly", "place", "time", "style", "count", "colours"))
        nouns = by_noun(right, scenes) if name == ONE else nouns
    drawn, own, other = torch.cat([pictures[ONE], pictures[TWO]]), groups[ONE] + groups[TWO], others[ONE] + others[TWO]
    return rows + measure.distance_rows(clip, drawn, own, other, seed=seed), nouns


def size_rows(folder: Path) -> list[Row]:
    """Weigh all weights together, and the largest file."""
    sizes = [file.stat().st_size for file in folder.rglob("*.safetensors")]
    return [
        Row("weights", "all together, MB", sum(sizes) / 1e6, n=len(sizes), at_most=40.0),
        Row("weights", "largest file, MiB", max(sizes) / 2**20, n=len(sizes), at_most=16.0),
    ]


def show(cascade: Cascade, file: Path, *, weight: float, seed: int) -> None:
    """Draw the fixed prompts, a row each, uncurated."""
    prompts = [prompt for prompt in SHOWN for _ in range(SHOWN_SEEDS)]
    pictures = [to_uint8(picture[None]) for picture in measure.sample(cascade, prompts, name="card", weight=weight, seed=seed)]
    rows = [pictures[k : k + SHOWN_SEEDS] for k in range(0, len(pictures), SHOWN_SEEDS)]
    labelled_grid(rows, row_labels=SHOWN, column_labels=[], path=file, tile=128)


def _part(folder: Path) -> Part:
    files = sorted(folder.glob("*.safetensors"))
    parameters = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            parameters += sum(torch.Size(tensors.get_slice(name).get_shape()).numel() for name in tensors.keys())  # noqa: SIM118
    return Part(parameters, sum(file.stat().st_size for file in files) / 1e6)


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"


def _write_shares(folder: Path, rows: dict[str, Row]) -> None:
    _write(folder / "card.json", json.dumps({name: round(row.value, 4) for name, row in rows.items()}, indent=2) + "\n")


def _write(file: Path, content: str) -> None:
    """Write a whole file or nothing."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(content, encoding="utf-8")
    partial.replace(file)
