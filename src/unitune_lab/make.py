"""Builds a part from its options, and lets it go on from trained weights."""

from pathlib import Path
from typing import Any

from unitune.metrics.judge import load_judge
from unitune.models import machine

from unitune_lab.networks import tokenizer
from unitune_lab.parts import Part
from unitune_lab.parts.judge import JudgePart
from unitune_lab.parts.stage import StagePart
from unitune_lab.parts.text import TextPart
from unitune_lab.records import records
from unitune_lab.start import (
    check_tokenizer,
    exported,
    start_scoring,
    start_stage,
    start_text,
    text_folder,
)

STAGE_OPTIONS = (
    "channels",
    "attention",
    "weighting",
    "objects",
    "auxiliary",
    "crops",
    "level_power",
)


def build(part: str, options: dict[str, Any]) -> Part:
    """Build an untrained part."""
    device, folder = machine.device(options["device"]), Path(options["folder"])
    if part == "text":
        return TextPart(tokenizer(), device)
    if part == "judge":
        return JudgePart(device)
    text = text_folder(*_folders("text", options))
    check_tokenizer(text)
    if part.startswith("clip"):
        from unitune_lab.parts.clip import ClipPart  # timm is needed here alone

        return ClipPart(text, device)
    chosen = {name: options[name] for name in STAGE_OPTIONS if name in options}
    stage = StagePart(text, device, super_resolution=part == "sr256", **chosen)
    stage.looks = folder / part
    if part == "base":  # no other stage's samples are read
        judges = [exported(place, "judge") for place in _folders("judge", options)]
        stage.judge = next((load_judge(judge) for judge in judges if judge is not None), None)
    return stage


def _folders(name: str, options: dict[str, Any]) -> list[Path]:
    """List where another part may lie: where it is named, else here or where the start is."""
    given = [options[name]] if options[name] else [options["folder"], options["start"]]
    return [Path(folder) for folder in given if folder]


def go_on(part: str, trained: Part, folder: Path) -> dict:
    """Take the mean weights of a folder over; return what is known of their training.

    Where the folder has no record of it, that is noted, so that no sum passes for the whole.
    """
    if part == "text":
        start_text(trained.network, folder)
    elif part in ("base", "sr256"):
        start_stage(trained.network, part, folder)
    else:
        start_scoring(trained.network, part, folder)
    unknown = {"samples": 0, "minutes": 0.0, "unrecorded": True}
    return records(folder).get(part, unknown)
