"""What is known of the trainings behind a folder of parts: their records and their looks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitune_lab.options import PARTS

CURVE, DONE = "curve.jsonl", "done.json"  # of a part while it trains
TRAINING, LEARNING = "training.json", "training_curve.jsonl"  # of all parts, as they ship


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the record of each part's training, of a training's folder or of one that ships."""
    shipped = folder / TRAINING
    known = json.loads(shipped.read_text(encoding="utf-8")) if shipped.exists() else {}
    for part in PARTS:
        if (file := folder / part / DONE).exists():
            known[part] = json.loads(file.read_text(encoding="utf-8"))
    return {part: known[part] for part in PARTS if part in known}


def history(done: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a part's trainings, the first one first: each holds what it went on from."""
    before = done.get("before") or {}
    return [*(history(before) if before else []), *([done] if done else [])]


def total(done: Mapping[str, Any], name: str) -> float:
    """Sum steps, samples or minutes over a part's trainings."""
    return sum(one.get(name, 0) for one in history(done))


def looks(folder: Path) -> list[dict[str, Any]]:
    """Return what the trainings saw of their parts, a line for each look with its part."""
    own = {part: _lines(folder / part / CURVE) for part in PARTS}
    kept = [line for line in _lines(folder / LEARNING) if not own.get(line["part"])]
    return kept + [{"part": part, **line} for part, lines in own.items() for line in lines]


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
