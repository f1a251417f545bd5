"""The benchmarks run, at tiny size on a CPU; what they measure means nothing here."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitune.models import tiny

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "experiments/bench"
sys.path.insert(0, str(BENCH))

import stock  # noqa: E402  # a script
import stock_sides  # noqa: E402
from stock_sides import CASES, Case, Size  # noqa: E402

WITHOUT = """
import runpy, sys
sys.modules.update(hydra=None, open_clip=None, omegaconf=None)
sys.path.insert(0, sys.argv.pop(1))
runpy.run_path(sys.path[0] + "/gpu.py", run_name="__main__")
"""


def test_the_gpu_table_without_hydra_and_open_clip(tmp_path):
    folder, out = tiny.floyd(tmp_path / "tiny", resolutions=(8, 16)), tmp_path / "out"
    sizes = {"tuning-steps": 3, "batch-size": 2, "steps": 2, "samples": 2, "matrix": 64, "crop": 8}
    options = ["--device=cpu", "--base=base", "--sr=sr256", f"--out={out}"]
    options += [f"--{name}={size}" for name, size in sizes.items()]
    command = [sys.executable, "-c", WITHOUT, str(BENCH), str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for line in (out / "bench_gpu.jsonl").read_text().splitlines()]
    assert [record["what"].split()[0] for record in records] == ["tune", "tune", "edit"]
    assert len(done.stdout.splitlines()) == 7
    for record in records[:2]:
        assert record["steps_per_second"] > 0 and record["flop_per_step"] > 1e6
        assert record["share_of_matrix_rate"] > 0
    assert records[2]["seconds_per_edit"] > 0
    assert all("torch" in record["versions"] and record["card"] for record in records)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Size:
    monkeypatch.setattr(stock_sides, "POCKET", tiny.floyd(tmp_path / "tiny"))
    return Size(batch=2, steps=1, seeds=2)


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("sampling-64", 1), pytest.param("4x4-in-one-call", 2, marks=pytest.mark.slow)],
)
def test_both_sides_of_a_row_cost_equal_evaluations(small, name, seeds):
    record = stock.compare(dataclasses.replace(named(name), memory_target=None), small, 1)
    assert record["evaluations"] == small.batch * 2 * small.steps * seeds
    assert record["ratio"] > 0 and record["cpu_ratio"] > 0
    row = stock.row(record)
    assert "time ratio" not in row and row.count("|") == 9


@pytest.mark.parametrize("name", ["sampling-256", "sampling-latent"])
def test_both_sides_of_every_row_run(small, name):
    sides = (side(small) for side in (named(name).ours, named(name).theirs))
    counts = [stock.evaluations(network, run) for run, network in sides]
    assert counts == [small.batch * 2 * small.steps] * 2


def test_memory_is_of_what_a_side_runs():
    held = []

    def ours(size):
        return (lambda: held.append(torch.ones(size.batch * 2**20 // 4)) or held.clear()), None

    found = stock.memory(Case("memory", 1.0, ours, ours), Size(batch=64), "ours")
    assert found["added"] > 32 and found["peak"] > found["added"]
