"""What holds for every test: no network, shapes checked at run time, few threads, a store of its own."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

from unitune.compat import ensure_torchvision

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, which a test module does
os.environ["WANDB_MODE"] = "offline"
install_import_hook("unitune.diffusion", "beartype.beartype")  # before anything imports unitune.diffusion
ensure_torchvision()  # tests import diffusers and transformers themselves, for parity
torch.set_num_threads(min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


@pytest.fixture
def tmp_store(tmp_path: Path):
    """An empty store that goes with the test."""
    from unitune.store import Store

    return Store(tmp_path / "store", budget_gib=1)
