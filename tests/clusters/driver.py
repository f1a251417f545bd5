"""Sweeps that are killed, timed out and moved, on real launchers: python driver.py KIND FOLDER.

`.ci/clusters` calls it; KIND is local, slurm (whose commands must answer) or ray. Each ends with a
line that says what was found; what is wrong is an AssertionError.
"""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from unitune.models import tiny

ROOT = Path(__file__).parents[2]
QUICK = (
    "model.resolution=32", "metrics=none", "seeds=1", "machine=cpu", "stage=base", "edit=a dog",
    "sampler.steps=2", "sampler.sr.steps=2", "oracle=0",
)  # fmt: skip
SAMPLED = (*QUICK, "method=untuned", "sampler.guidance.weight=1,2,3,4,5")
TUNED = (*QUICK, "steps=400", "snapshots=[]", "seed=1,2")
ONE_CORE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(folder: Path, *settings: str) -> subprocess.Popen[str]:
    """`python run.py -m ...` in a folder."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", "model.path=tiny", *settings]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | ONE_CORE, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Return what a command said on standard error, which must end with this code."""
    _, said = process.communicate(timeout=900)
    assert process.returncode == code, said
    return said


def until(true: Callable[[], object], seconds: float = 600) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def results(folder: Path) -> dict[str, int]:
    """When each cell's result was written, by the cell's name."""
    files = folder.rglob("scores.jsonl")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def pictures(folder: Path) -> dict[str, str]:
    """The sha256 of each edit, by cell and file."""
    found = sorted(folder.glob("outputs/sweeps/*/*/*.png"))
    return {
        f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in found
    }


def weights(folder: Path) -> dict[str, str]:
    """The sha256 of each file of tuned weights, by entry and file."""
    found = sorted(folder.glob("store/tuned-*/**/*.safetensors"))
    return {
        str(file.relative_to(folder / "store")): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in found
    }


def table(folder: Path) -> list[dict[str, str]]:
    """The comparison without what was timed."""
    (file,) = folder.glob("outputs/sweeps/*/comparison.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    timed = ("sampling s", "tuning s", "peak MiB")
    return [{name: row[name] for name in row if name not in timed} for row in rows]


def place(folder: Path, name: str) -> Path:
    """A folder with the tiny model in it."""
    where = folder / name
    where.mkdir(parents=True)
    tiny.floyd(where / "tiny")
    return where


def local(folder: Path) -> str:
    """SIGKILL of the driver at 40 %: the same command runs only what is missing."""
    killed, undisturbed = place(folder, "killed"), place(folder, "undisturbed")
    settings = (*SAMPLED, "launcher=local", "launcher.workers=1")
    ended(start(undisturbed, *settings))
    process = start(killed, *settings)
    until(lambda: len(results(killed)) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(5)  # the worker ends the cell that it has
    before = results(killed)
    said = ended(start(killed, *settings))
    after = results(killed)
    assert len(before) < 5 == len(after), (before, after)
    assert {name: after[name] for name in before} == before
    assert f"sweep: {len(before)} of 5 cells are done already" in said, said
    assert table(killed) == table(undisturbed) and pictures(killed) == pictures(undisturbed)
    return f"killed at {len(before)} of 5 cells, {5 - len(before)} ran again; table identical"


def slurm(folder: Path) -> str:
    """Jobs that are told to save in mid-tuning: requeued, done, the weights of undisturbed runs.

    The signal is the one that Slurm sends before the end of a job's time.
    """
    common = ("launcher.gpus=0", "launcher.cpus=1", "launcher.memory_gb=1.5")
    settings = (*TUNED, "launcher=slurm", *common, "launcher.cells_per_job=1")
    undisturbed, told = place(folder, "undisturbed"), place(folder, "told")
    ended(start(undisturbed, *TUNED))
    process = start(told, *settings)

    def logs() -> list[str]:
        return [file.read_text() for file in sorted(told.rglob("*_log.err"))]

    until(lambda: sum("tensors, " in log for log in logs()) == 2)
    subprocess.run(["scancel", "--signal=USR2", "--name=unitune"], check=True)
    said = ended(process)
    requeued = sum(log.count("DUE TO JOB REQUEUE") for log in logs())
    assert requeued >= 1 and len(results(told)) == 2, (said, logs())
    assert weights(told) == weights(undisturbed) != {}
    said = ended(start(told, *QUICK, "launcher=slurm", "lr=-1,1e-4", *common, "steps=2"), code=2)
    assert "1 run of the sweep failed" in said and "lr=-1" in said, said
    return f"{requeued} requeues in mid-tuning; weights as undisturbed"


def ray(folder: Path) -> str:
    """Two nodes, one killed in mid-tuning: every cell is there once."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": hashlib.sha256().hexdigest()}
    from ray.cluster_utils import Cluster

    where = place(folder, "killed")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    try:
        address = ("launcher=ray", f"launcher.address={cluster.address}", "launcher.cpus=1")
        process = start(where, *TUNED, *address)
        until(lambda: len(list(where.glob("store/.work/tuned-*.lease"))) == 2)  # both are tuning
        assert not results(where)
        cluster.remove_node(other, allow_graceful=False)
        ended(process)
    finally:
        cluster.shutdown()
    lines = [
        json.loads(line)
        for file in where.rglob("scores.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    edits = [(line["run"], line["prompt"]) for line in lines if line["row"] == "edit"]
    assert len(edits) == len({*edits}) == 2, edits
    return "one of two nodes killed in mid-tuning; both cells there once"


if __name__ == "__main__":
    kind = sys.argv[1]
    began = time.monotonic()
    said = {"local": local, "slurm": slurm, "ray": ray}[kind](Path(sys.argv[2]).absolute())
    print(f"ci: {kind}: {said} ({time.monotonic() - began:.0f} s)")
