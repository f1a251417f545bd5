"""Our loop beside stock diffusers pipelines, in one run: time and memory as ratios, medians of 3.

Command:  make bench  (python experiments/bench/stock.py --repeat 3; --only sampling-64 for one row)
Claim:    the one loop costs nothing over the pipelines that it replaces: time <= 1.05, peak memory
          <= 1.0, and 16 samples in one call <= 0.6 of 16 calls.
Fair:     the same files, float32, network evaluations (counted), batch, steps, guidance in one
          doubled batch, and prompt embeddings made beforehand; except in the last rows, where each
          call gets its prompt as a person would give it, and the very last, where ours may use bf16
          as the main job does. Runs alternate ours, theirs, theirs, ours, ours, theirs after one of
          each. CPU time stands beside the clock, because another program on the machine changes the
          clock. Memory is the peak of a fresh process after its model is loaded and one run is
          done; also what the run added to that process.
Minutes:  about 3 on two CPU cores. Appends to experiments/records/bench_stock.jsonl.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from stock_sides import CASES, Case, Size, Timed

from unitune.storage.cost import peak_memory_mib, reset_peak

RECORDS = Path(__file__).parent.parent / "records/bench_stock.jsonl"
SIDES = ("ours", "theirs")
HEAD = (
    "case", "network evaluations", "ours, s", "stock, s", "time ratio", "CPU time ratio",
    "peak memory ratio", "ratio of what sampling adds",
)  # fmt: skip
# glibc moves its own threshold between heap and mapped blocks as a program goes, and the peak of a
# row by 30 %; fixed, what is freed is given back at once.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}


def side_of(case: Case, side: str, size: Size) -> Timed:
    return (case.ours if side == "ours" else case.theirs)(size)


def evaluations(network: Any, run: Callable[[], object]) -> int:
    """Count the pictures that pass through a network in one run."""
    seen: list[int] = []
    handle = network.register_forward_pre_hook(
        lambda _module, arguments: seen.append(len(arguments[0]))
    )
    run()
    handle.remove()
    return sum(seen)


def compare(case: Case, size: Size, repeat: int) -> dict[str, Any]:
    """Measure one row."""
    sides = {side: side_of(case, side, size) for side in SIDES}
    counts = {side: evaluations(network, run) for side, (run, network) in sides.items()}  # warms up
    assert counts["ours"] == counts["theirs"], f"{case.name}: unequal network evaluations {counts}"
    clock: dict[str, list[float]] = {side: [] for side in SIDES}
    busy: dict[str, list[float]] = {side: [] for side in SIDES}
    for k in range(repeat):
        for side in SIDES if k % 2 == 0 else SIDES[::-1]:
            began, used = time.perf_counter(), time.process_time()
            sides[side][0]()
            clock[side].append(time.perf_counter() - began)
            busy[side].append(time.process_time() - used)
    memory: dict[str, list[dict[str, float]]] = {}
    if case.memory_target:
        times = range(repeat)
        memory = {side: [in_fresh_process(case, size, side) for _ in times] for side in SIDES}
    return {
        "experiment": "bench_stock",
        "case": case.name,
        "target": case.target,
        "memory_target": case.memory_target,
        "size": dataclasses.asdict(size),
        "evaluations": counts["ours"],
        "seconds": clock,
        "cpu_seconds": busy,
        "memory_mib": memory,
        "ratio": ratio(clock),
        "cpu_ratio": ratio(busy),
        "memory_ratio": ratio_of(memory, "peak"),
        "added_ratio": ratio_of(memory, "added"),
        "environment": environment(),
    }


def ratio(values: Mapping[str, Sequence[float]]) -> float:
    """Divide the medians."""
    return statistics.median(values["ours"]) / max(1e-9, statistics.median(values["theirs"]))


def ratio_of(memory: Mapping[str, Sequence[Mapping[str, float]]], what: str) -> float | None:
    return ratio({side: [m[what] for m in memory[side]] for side in SIDES}) if memory else None


def in_fresh_process(case: Case, size: Size, side: str) -> dict[str, float]:
    """Peak MiB of a process that does nothing but one side of a row."""
    sizes = [f"--{name}={value}" for name, value in dataclasses.asdict(size).items()]
    options = ["--one", side, "--only", case.name, "--threads", str(torch.get_num_threads())]
    command = [sys.executable, __file__, *options, *sizes]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR
    )
    return json.loads(done.stdout.splitlines()[-1])


def memory(case: Case, size: Size, side: str) -> dict[str, float]:
    """Peak of a second run, and what that was above the loaded model."""
    run, _ = side_of(case, side, size)
    reset_peak()
    before = peak_memory_mib()
    run()
    peak = peak_memory_mib()
    return {"peak": peak, "added": peak - before}


def environment() -> dict[str, object]:
    import diffusers

    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def row(record: dict[str, Any]) -> str:
    peak = added = ""
    if record["memory_ratio"] is not None:
        peak = f"{record['memory_ratio']:.3f} (<= {record['memory_target']:g})"
        added = f"{record['added_ratio']:.2f}"
    cells = (
        record["case"],
        record["evaluations"],
        *(f"{statistics.median(record['seconds'][side]):.2f}" for side in SIDES),
        f"{record['ratio']:.3f} (<= {record['target']:g})",
        f"{record['cpu_ratio']:.3f}",
        peak,
        added,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one row")
    parser.add_argument("--one", choices=SIDES, help="print one side's memory as JSON")
    for field in dataclasses.fields(Size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--dry", action="store_true", help="write no record")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = Size(options.batch, options.steps, options.seeds)
    chosen = [case for case in CASES if options.only in (None, case.name)]
    if options.one:
        print(json.dumps(memory(chosen[0], size, options.one)))
        return
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for case in chosen:
        record = compare(case, size, options.repeat)
        print(row(record), flush=True)
        if not options.dry:
            with RECORDS.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
