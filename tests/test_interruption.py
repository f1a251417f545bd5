"""Signals at random moments of a tuning.

No entry is ever corrupt, the exit code tells the signal, and what is finished later is what an
undisturbed run gives. The runs are forked from one process that has imported everything, so that
thirty of them do not import it thirty times; each is a process of its own.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unitune.models import tiny
from unitune.storage.entries import damage
from unitune.storage.store import MANIFEST

ROOT = Path(__file__).parent.parent
SERVER = """
import json, os, runpy, sys
from unitune.models.compat import ensure_torchvision
ensure_torchvision()
import hydra, pytorch_lightning, torch, transformers.optimization
import unitune.runs.experiment, unitune.methods.unitune, unitune.models.cascade
torch.set_num_threads(1)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        sys.argv[1:] = json.loads(line)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = 1
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
CODES = {signal.SIGKILL: 137, signal.SIGTERM: 143, signal.SIGINT: 130}


class Commands:
    """`python run.py ...` in the working directory `folder`."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONWARNINGS": "ignore",
        }
        code = f"import sys; sys.argv = [{str(ROOT / 'run.py')!r}]\n{SERVER}"
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _line(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def start(self, arguments: list[str]) -> int:
        (self.folder / "said.txt").unlink(missing_ok=True)
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(arguments) + "\n")
        self.server.stdin.flush()
        return self._line()

    def said(self) -> str:
        file = self.folder / "said.txt"
        return file.read_text() if file.exists() else ""

    def until(self, text: str) -> None:
        end = time.monotonic() + 200
        while text not in self.said():
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def ended(self) -> int:
        """The exit code as a shell tells it."""
        code = self._line()
        return 128 - code if code < 0 else code


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    made = Commands(tmp_path)
    yield made
    assert made.server.stdin is not None
    made.server.stdin.close()
    made.server.wait(timeout=60)


def entry(store: Path) -> dict[str, str]:
    """The hashes of the weights of the one whole entry."""
    (folder,) = store.glob("tuned-*")
    assert damage(folder, "tuned") is None
    return {
        name: digest
        for name, digest in json.loads((folder / MANIFEST).read_text())["files"].items()
        if name.endswith(".safetensors")
    }


@pytest.mark.parametrize(
    ("count", "steps"), [(3, 60), pytest.param(30, 400, marks=pytest.mark.slow)]
)
def test_signals_at_random_moments(commands, tmp_path, count, steps):
    tiny.floyd(tmp_path / "tiny")
    small = [
        "model.path=tiny",
        "model.resolution=32",
        "sampler.steps=1",
        "sampler.sr.steps=1",
        "metrics=none",
        "seeds=1",
        "machine=cpu",
        "stage=base",
        "edit=a dog",
    ]
    every = f"snapshots=[{','.join(map(str, range(steps // 40 or 1, steps, steps // 20)))}]"
    command = [*small, f"steps={steps}", every]

    commands.start([*command, "store.path=undisturbed"])
    assert commands.ended() == 0, commands.said()
    length = re.search(r"tuned base: .* in ([\d.]+) s", commands.said())
    assert length is not None

    rng = random.Random(count)
    signals = [list(CODES)[k % len(CODES)] for k in range(count)]
    rng.shuffle(signals)
    for number in signals:
        pid = commands.start([*command, "store.path=disturbed"])
        commands.until(" tensors, ")  # tuning begins
        time.sleep(rng.uniform(0, float(length[1]) / max(20, count)))
        os.kill(pid, number)
        assert commands.ended() == CODES[number], commands.said()
        assert "Traceback" not in commands.said()
        assert not list(
            (tmp_path / "disturbed").glob("tuned-*")
        )  # nothing half-made is ever an entry
    (checkpoint,) = (tmp_path / "disturbed/.work").glob("*.resume/base.ckpt")
    assert (
        0 < torch.load(checkpoint, weights_only=True)["global_step"] < steps
    )  # the last run goes on from here

    commands.start([*command, "store.path=disturbed"])
    assert commands.ended() == 0, commands.said()
    assert entry(tmp_path / "disturbed") == entry(tmp_path / "undisturbed")
    assert len(list((tmp_path / "outputs").rglob("scores.jsonl"))) == 2
