"""What the main job costs on this machine: medians of 3, as a table.

Command:  make bench  (python experiments/bench.py --repeat 3)
Targets on two CPU cores: both tunings <= 120 s; 16 edits at 256 px <= 60 s; a second edit of a tuned image, process start to grid, 4 samples <= 25 s;
>= 90 % of tuning inside forward, backward and optimiser; peak resident memory < 3 GB.
Minutes:  about 8 on two CPU cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from unitune.benchmarks.manifest import Folder
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.methods.unitune import UniTune
from unitune.models import pocket
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import Tuning
from unitune.types import Draw, Tuned

ROOT = Path(__file__).parent.parent


class Clock:
    """Adds up the seconds spent in one function."""

    def __init__(self, function: object) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: object, **named: object) -> object:
        began = time.perf_counter()
        try:
            return self.function(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began


def tuning(cascade, example, folder: Path) -> tuple[float, float, float]:
    """Seconds of both tunings, share of them inside forward, backward and optimiser, peak MiB."""
    clocks = {}
    for owner, name in ((torch.optim.AdamW, "step"), (OneImage, "batch")):
        clock = clocks[name] = Clock(getattr(owner, name))
        setattr(owner, name, lambda self, *a, _clock=clock, **k: _clock(self, *a, **k))
    reset_peak()
    began = time.perf_counter()
    try:
        method = UniTune(tune={"base": Tuning(lr=2.5e-4), "sr256": Tuning(lr=2.5e-4, crop=64)})
        make.prepare(method.recipe(example), cascade, example, store=Store(folder))
    finally:
        torch.optim.AdamW.step, OneImage.batch = clocks["step"].function, clocks["batch"].function
    seconds = time.perf_counter() - began
    # Lightning hands forward and backward to the optimiser's step as a closure, and the batch is made inside it.
    return seconds, (clocks["step"].seconds - clocks["batch"].seconds) / seconds, peak_memory_mib()


def sampling(cascade, example) -> tuple[float, float]:
    """Seconds and peak MiB of 16 edits at 256 px."""
    sampler = Sampler("bench", start=0.95, guidance=Guidance(pocket.GUIDANCE), sr=pocket.SR)
    draws = [Draw(request, seed) for request in example.requests for seed in range(4)]
    reset_peak()
    began = time.perf_counter()
    sampler(cascade, example, tuned=Tuned("beikkpic"), draws=draws)
    return time.perf_counter() - began, peak_memory_mib()


def second_edit(folder: Path) -> float:
    """Seconds from process start to grid for one more prompt of a tuned image, 4 samples, all scores."""
    command = [
        sys.executable,
        "run.py",
        f"store.path={folder}",
        f"hydra.run.dir={folder}/run-{time.time_ns()}",
    ]
    if not any(folder.glob("tuned-*")):
        subprocess.run(
            [*command, "edit=a cat on a beach", "seeds=1"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    began = time.perf_counter()
    subprocess.run([*command, "edit=a cat in a forest"], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    cascade = pocket.cascade()
    example = Folder(ROOT / "src/unitune/assets/demo").examples(cascade.resolution)[0]
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(options.repeat):
            seconds, share, peak = tuning(cascade, example, Path(folder) / f"tune-{k}")
            sample_seconds, sample_peak = sampling(cascade, example)
            for name, value in (
                ("both tunings, 128 x 4 each, s (target 120)", seconds), ("share in forward, backward, optimiser, % (target 90)", 100 * share),
                ("tuning, peak MiB (target 3000)", peak), ("16 edits at 256 px, s (target 60)", sample_seconds), ("sampling, peak MiB (target 3000)", sample_peak),
                ("second edit, process start to grid, 4 samples, s (target 25)", second_edit(Path(folder))),
            ):  # fmt: skip
                rows.setdefault(name, []).append(value)
    width = max(map(len, rows))
    for name, values in rows.items():
        print(
            f"{name:<{width}}  {statistics.median(values):8.1f}   ({', '.join(f'{v:.1f}' for v in values)})"
        )


if __name__ == "__main__":
    main()
