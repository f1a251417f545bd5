"""What holds for every test: no network, checked shapes, few threads, a store of its own."""

import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from jaxtyping import install_import_hook

from unitune.models.compat import ensure_torchvision

# Read when huggingface_hub is first imported, which a test module does.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
# Before anything imports unitune.diffusion.
install_import_hook("unitune.diffusion", "beartype.beartype")
ensure_torchvision()  # tests import diffusers and transformers themselves, for parity
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# One of several processes at work (pytest -n) keeps to one core.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, cores))


@pytest.fixture
def tmp_store(tmp_path: Path):
    """An empty store that goes with the test."""
    from unitune.storage.store import Store

    return Store(tmp_path / "store", budget_gib=1)


@pytest.fixture
def hasty(monkeypatch) -> str:
    """Leases that end soon, and a word of waiting soon; the text makes another process alike."""
    from unitune.storage import lease

    monkeypatch.setattr(lease, "SECONDS", 1.0)
    monkeypatch.setattr(lease, "SILENT", 0.2)
    monkeypatch.setattr(lease, "POLL", 0.05)
    return "lease.SECONDS, lease.SILENT = 1.0, 0.2\n"


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory):
    """A tiny random cascade of two stages, 32 px."""
    from unitune.models import tiny
    from unitune.models.cascade import load

    folder, stages = tiny.floyd(tmp_path_factory.mktemp("tiny")), ("base", "sr256")
    return load("tiny", folder, stages=stages, device=torch.device("cpu"), dtype=torch.float32)


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    def count(self, text: str) -> int:
        return self.err.count(text)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty working directory; logging as it was afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    root.handlers[:], root.level = before, level
    GlobalHydra.instance().clear()


@pytest.fixture
def typed(here, capsys, monkeypatch) -> Callable[..., Answer]:
    """`python run.py ...` in this process."""

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(Path(__file__).parent.parent / "run.py"), run_name="__main__")
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Answer(end.value.code, said.out, said.err)

    return run


@pytest.fixture
def refused(typed, here, monkeypatch) -> Callable[..., str]:
    """Run a command that must be refused; return its one line.

    What lies in the working directory before is all that lies there afterwards.
    """
    from unitune.models import cascade

    def no_model(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    def run(*arguments: str) -> str:
        before = sorted(here.rglob("*"))
        with monkeypatch.context() as patched:
            patched.setattr(cascade, "build", no_model)
            answer = typed(*arguments)
        assert answer.code == 2, answer.err
        *notes, line = answer.err.splitlines()
        assert line.startswith("unitune: ") and answer.out == ""
        assert all(
            ".png is " in note for note in notes
        )  # what was done to a picture that is usable
        assert sorted(here.rglob("*")) == before
        return line

    return run


@pytest.fixture(scope="session")
def run() -> ModuleType:
    """The jobs of the command line, for tests that compose a config themselves."""
    from unitune.cli import jobs, main

    assert main.ending, "the module main registers what ${assets:...} in a config stands for"
    return jobs
