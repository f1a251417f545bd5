"""What the main job costs on this machine: medians of 3, as a table.

Command:  make bench  (python experiments/bench/job.py --repeat 3)
Targets:  on two CPU cores: both tunings <= 120 s; 16 edits at 256 px <= 60 s; a second edit of a
          tuned image, process start to grid, 4 samples <= 25 s; >= 90 % of tuning inside forward,
          backward and optimiser; peak resident memory < 3 GB.
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
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Tuned

ROOT = Path(__file__).parent.parent.parent


class Clock:
    """Adds up the seconds spent in a method of a class, while it is entered."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name, self.seconds = owner, name, 0.0
        self.function = getattr(owner, name)

    def __enter__(self) -> "Clock":
        def timed(*arguments: object, **named: object) -> object:
            began = time.perf_counter()
            try:
                return self.function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began

        setattr(self.owner, self.name, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.name, self.function)


def tuning(cascade, example, folder: Path) -> tuple[float, float, float]:
    """Seconds of both tunings, % of them in forward, backward and optimiser, peak MiB."""
    reset_peak()
    method = UniTune(tune={"base": Tuning(lr=2.5e-4), "sr256": Tuning(lr=2.5e-4, crop=64)})
    began = time.perf_counter()
    with Clock(torch.optim.AdamW, "step") as step, Clock(OneImage, "batch") as batch:
        make.prepare(method.recipe(example), cascade, example, store=Store(folder))
    seconds = time.perf_counter() - began
    # Lightning hands forward and backward to the optimiser's step as a closure, and the batch is
    # made inside it.
    return seconds, 100 * (step.seconds - batch.seconds) / seconds, peak_memory_mib()


def sampling(cascade, example) -> tuple[float, float]:
    """Seconds and peak MiB of 16 edits at 256 px."""
    sampler = Sampler("bench", start=0.95, guidance=Guidance(pocket.GUIDANCE), sr=pocket.SR)
    draws = [Draw(request, seed) for request in example.requests for seed in range(4)]
    reset_peak()
    began = time.perf_counter()
    sampler(cascade, example, tuned=Tuned("beikkpic"), draws=draws)
    return time.perf_counter() - began, peak_memory_mib()


def second_edit(folder: Path) -> float:
    """Seconds from process start to grid for a further prompt of a tuned image, all scores."""

    def edit(*asked: str) -> None:
        place = (f"store.path={folder}", f"hydra.run.dir={folder}/run-{time.time_ns()}")
        command = [sys.executable, "run.py", *place, *asked]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    if not any(folder.glob("tuned-*")):
        edit("edit=a cat on a beach", "seeds=1")
    began = time.perf_counter()
    edit("edit=a cat in a forest")
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
            seconds, share, tuning_peak = tuning(cascade, example, Path(folder) / f"tune-{k}")
            sample_seconds, sample_peak = sampling(cascade, example)
            measured = {
                "both tunings, 128 x 4 each, s (target 120)": seconds,
                "share in forward, backward, optimiser, % (target 90)": share,
                "tuning, peak MiB (target 3000)": tuning_peak,
                "16 edits at 256 px, s (target 60)": sample_seconds,
                "sampling, peak MiB (target 3000)": sample_peak,
                "second edit, process start to grid, 4 samples, s (target 25)": second_edit(
                    Path(folder)
                ),
            }
            for name, value in measured.items():
                rows.setdefault(name, []).append(value)
    width = max(map(len, rows))
    for name, values in rows.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:<{width}}  {statistics.median(values):8.1f}   ({each})")


if __name__ == "__main__":
    main()
