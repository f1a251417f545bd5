"""What holds for every test: no network, shapes checked at run time, few threads, a store of its own."""

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

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # read when huggingface_hub is first imported, which a test module does
)
os.environ["WANDB_MODE"] = "offline"
install_import_hook(
    "unitune.diffusion", "beartype.beartype"
)  # before anything imports unitune.diffusion
ensure_torchvision()  # tests import diffusers and transformers themselves, for parity
torch.set_num_threads(
    min(
        2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
)


@pytest.fixture
def tmp_store(tmp_path: Path):
    """An empty store that goes with the test."""
    from unitune.storage.store import Store

    return Store(tmp_path / "store", budget_gib=1)


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


@pytest.fixture(scope="session")
def run() -> ModuleType:
    """The jobs of the command line, for tests that compose a config themselves."""
    from unitune.cli import jobs

    return jobs
