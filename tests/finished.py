"""A finished run or sweep on disk, made without a model: records, pictures, settings, cards."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from unitune.runs import config
from unitune.storage import records
from unitune.storage.records import Record

COST = {
    "seconds": 2.0, "peak_mib": 500.0, "evaluations": 40.0, "tuning_seconds": 30.0,
    "tuning_peak_mib": 900.0, "optimizer_steps": 128.0, "tuning_evaluations": 512.0,
    "stored_bytes": float(3 * 2**20),
}  # fmt: skip
CARDS = {
    "alignment": {"better": "higher", "what": "cosine"},
    "stlpips": {"better": "lower", "what": "distance"},
}


def run(
    folder: Path, *, method: str = "unitune", sampler: str = "unitune", images: int = 2,
    prompts: Sequence[str] = ("a dog",), seeds: int = 2, shift: float = 0.0, start: float = 0.9,
    lr: float = 1e-4,
) -> Path:  # fmt: skip
    """Write a run of `images` x `prompts` x `seeds` edits, and the reference rows.

    The alignment of an edit is 0.1 x image + shift.
    """
    folder.mkdir(parents=True)
    config.write(yaml.safe_dump({"lr": lr, "sampler": {"name": sampler, "start": start}}), folder)
    (folder / "cards.json").write_text(json.dumps(CARDS))
    for i in range(images):
        for p, prompt in enumerate(prompts):
            scores = {"alignment": 0.1 * i + shift, "stlpips": 0.5 - shift}
            rows = [(method, sampler, "edit", seed, scores, COST) for seed in range(seeds)]
            rows += [("", "", "copy", 0, {"alignment": 0.0, "stlpips": 0.0}, {})]
            rows += [("", "", "target", 0, {"alignment": 0.9, "stlpips": None}, {})]
            for k, (name, by, row, seed, scores, cost) in enumerate(rows):
                file = f"i{i}-{p}-{k}.png"
                level = {"copy": 40, "target": 220}.get(row, 130)
                Image.fromarray(np.full((48, 48, 3), level + i, np.uint8)).save(folder / file)
                record = Record(
                    run=folder.name, method=name, sampler=by, model="tiny", example=f"i{i}",
                    kind="replace", local=True, composed_alike=True, prompt=prompt, text=prompt,
                    seed=seed, weight=4.0, start=start, steps=128, image=file, scores={**scores},
                    cost={**cost}, environment={}, row=row,
                )  # fmt: skip
                records.append(folder / records.FILE, record)
    return folder
