"""The benchmarks run, at tiny size on a CPU; what they measure means nothing here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitune.models import tiny

ROOT = Path(__file__).parent.parent


def test_the_gpu_table_without_hydra_and_open_clip(tmp_path):
    folder = tiny.floyd(tmp_path / "tiny", resolutions=(8, 16))
    sizes = [
        "--device=cpu",
        "--tuning-steps=3",
        "--batch-size=2",
        "--steps=2",
        "--samples=2",
        "--matrix=64",
        f"--out={tmp_path / 'out'}",
        "--crop=8",
    ]
    code = "import runpy, sys; sys.modules.update(hydra=None, open_clip=None, omegaconf=None); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [
        sys.executable,
        "-c",
        code,
        str(ROOT / "experiments/bench_gpu.py"),
        str(folder),
        "--base=base",
        "--sr=sr256",
        *sizes,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = [
        json.loads(line) for line in (tmp_path / "out/bench_gpu.jsonl").read_text().splitlines()
    ]
    assert [record["what"].split()[0] for record in records] == ["tune", "tune", "edit"] and len(
        done.stdout.splitlines()
    ) == 7
    assert all(
        record["steps_per_second"] > 0
        and record["flop_per_step"] > 1e6
        and record["share_of_matrix_rate"] > 0
        for record in records[:2]
    )
    assert records[2]["seconds_per_edit"] > 0 and all(
        "torch" in record["versions"] and record["card"] for record in records
    )


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location(
        "bench_stock", ROOT / "experiments/bench_stock.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_stock"] = module  # where its dataclasses look their names up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "POCKET", tiny.floyd(tmp_path / "tiny"))
    return bench.Size(batch=2, steps=1, seeds=2)


@pytest.mark.parametrize(
    "name", ["sampling-64", pytest.param("4x4-in-one-call", marks=pytest.mark.slow)]
)
def test_both_sides_of_a_row_cost_equal_evaluations(bench, small, name):
    case = next(case for case in bench.CASES if case.name == name)
    record = bench.compare(bench.dataclasses.replace(case, memory_target=None), small, 1)
    assert record["evaluations"] == small.batch * 2 * small.steps * (
        small.seeds if "4x4" in name else 1
    )
    assert (
        record["ratio"] > 0
        and record["cpu_ratio"] > 0
        and "time ratio" not in bench.row(record)
        and bench.row(record).count("|") == 9
    )


@pytest.mark.parametrize("name", ["sampling-256", "sampling-latent"])
def test_both_sides_of_every_row_run(bench, small, name):
    case = next(case for case in bench.CASES if case.name == name)
    counts = [
        bench.evaluations(network, run) for run, network in (case.ours(small), case.theirs(small))
    ]
    assert counts == [small.batch * 2 * small.steps] * 2


def test_memory_is_of_what_a_side_runs(bench):
    held = []

    def ours(size):
        return (lambda: held.append(torch.ones(size.batch * 2**20 // 4)) or held.clear()), None

    found = bench.memory(bench.Case("memory", 1.0, ours, ours), bench.Size(batch=64), "ours")
    assert found["added"] > 32 and found["peak"] > found["added"]
