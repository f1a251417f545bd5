"""Draws every figure from experiments/records/*.jsonl alone, without a model: make figures."""

import json
from collections import defaultdict
from pathlib import Path

from unitune.figures.curves import Points, curves

RECORDS = Path(__file__).parent / "records"
OUT = Path("outputs/figures")


def read(name: str) -> list[dict]:
    """Read one experiment's records."""
    return [json.loads(line) for line in (RECORDS / f"{name}.jsonl").read_text().splitlines()]


def mean_by(lines: list[dict], x: str, y: str) -> Points:
    """Average y over equal x."""
    groups: dict[float, list[float]] = defaultdict(list)
    for line in lines:
        groups[line[x]].append(line[y])
    return [(key, sum(values) / len(values)) for key, values in groups.items()]


def steps() -> list[Path]:
    """Tuning steps against reconstruction (paper Fig. 3)."""
    lines = read("steps_curve")
    named = {"64 px stage": "psnr_base", "after super-resolution": "psnr_final"}
    return curves(
        {"PSNR to the base image, dB": {label: mean_by(lines, "steps", key) for label, key in named.items()}}, x_label="tuning steps", path=OUT / "steps"
    )


def lr() -> list[Path]:
    """Learning rate against reconstruction and edit success."""
    lines = [line for line in read("lr_curve") if line["lr"] > 0]
    kinds = sorted({line["optimizer"] for line in lines})
    panels = {"PSNR of the rare token alone, dB": "psnr_alone", "edit success (judge)": "success"}
    drawn = {title: {kind: mean_by([line for line in lines if line["optimizer"] == kind], "lr", key) for kind in kinds} for title, key in panels.items()}
    return curves(drawn, x_label="learning rate", path=OUT / "lr", log_x=True)


def main() -> None:
    for name, draw in (("steps_curve", steps), ("lr_curve", lr)):
        if (RECORDS / f"{name}.jsonl").exists():
            for file in draw():
                print(file)


if __name__ == "__main__":
    main()
