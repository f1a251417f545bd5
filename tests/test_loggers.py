"""Loggers: curves while a run goes on, then grids, settings, table; wandb never stops a run."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import finished
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unitune.report import loggers

USE = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
logging.getLogger("wandb").setLevel(logging.CRITICAL)
from unitune.report.loggers import Wandb
began = time.monotonic()
for folder in sys.argv[1:]:
    logger = Wandb(folder, offline=False)
    for stage in ("base", "sr256"):
        for step in (1, 2, 3):
            logger.log_metrics({f"cat/{stage}/loss": 1 / step}, step=step)
    logger.finalize("success")
    print("mode", logger.mode)
print("seconds", time.monotonic() - began)
"""


def run(tmp_path: Path, name: str = "run") -> Path:
    folder = finished.run(tmp_path / name)
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(folder / "grid.png")
    return folder


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_curves_as_csv(tmp_path):
    logger = loggers.Csv(str(tmp_path))
    for step in (1, 2):
        logger.log_metrics({"cat/base/loss": 1 / step}, step=step)
    logger.finalize("success")
    curve = [(line["step"], float(line["cat/base/loss"])) for line in lines(tmp_path)]
    assert curve == [("1", 1.0), ("2", 0.5)]


def test_tensorboard_shows_curves_grids_settings_and_the_table(tmp_path):
    folder = run(tmp_path)
    logger = loggers.TensorBoard(str(folder))
    for step in (1, 2):
        logger.log_metrics({"cat/base/loss": 1 / step}, step=step)
    logger.finalize("success")
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    curve = [(event.step, event.value) for event in found.Scalars("cat/base/loss")]
    assert curve == [(1, 1.0), (2, 0.5)]
    (picture,) = found.Images("grid")
    assert (picture.width, picture.height) == (40, 30)
    texts = {
        tag.removesuffix("/text_summary"): found.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
    }
    assert "    lr: 0.0001" in texts["config"]
    assert "unitune" in texts["scores"] and "alignment" in texts["scores"]
    *_, means = lines(folder)  # the CSV is written too, and ends with the means of the run
    assert len(lines(folder)) == 3 and float(means["copy of the base/alignment"]) == 0.0
    assert found.Scalars("exact target/alignment")[0].value == pytest.approx(0.9)


def used(*folders: Path, **environment: str) -> tuple[str, float]:
    """Use wandb in a process of its own, without a network: what it said, and its seconds."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    there = {
        "NETRC": str(folders[0] / "none"),
        "WANDB_CONFIG_DIR": str(folders[0].parent),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_HTTP_TIMEOUT": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", USE, *map(str, folders)]
    env = clean | there | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr, float(done.stdout.rpartition("seconds ")[2])


def test_wandb_without_a_key_stays_offline_with_one_warning(tmp_path):
    folders = [run(tmp_path, name) for name in ("a", "b")]
    said, seconds = used(*folders)
    assert said.count("mode offline") == 2 and said.count("WARNING") == 1 and seconds < 25
    assert "WARNING wandb stays offline: there is no key (wandb login, or WANDB_API_KEY)" in said
    for folder in folders:  # each cell of a sweep is a run of its own, in its folder
        (kept,) = (folder / "wandb").glob("offline-run-*")
        for pattern in ("*.wandb", "media/images/grid*.png", "scores*.json"):
            assert len(list(kept.rglob(pattern))) == 1
        assert len(lines(folder)) == 7


@pytest.mark.slow
def test_wandb_with_a_key_and_no_network_stays_offline_and_the_run_goes_on(tmp_path):
    said, seconds = used(run(tmp_path), WANDB_API_KEY="a" * 40)
    assert "mode offline" in said and said.count("WARNING") == 1 and seconds < 25
    assert "WARNING wandb stays offline: Failed to authenticate with http" in said


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        (True, "online"),
        (False, "offline"),
        (ValueError("an API key must have 40 characters: it has 3"), "offline"),
    ],
)
def test_the_mode_is_decided_before_the_first_run(answer, mode, monkeypatch, caplog):
    import wandb

    def login(**_) -> bool:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.delenv("WANDB_MODE")
    loggers.online_or_not.cache_clear()
    try:
        assert loggers.online_or_not() == loggers.online_or_not() == mode
        assert len(caplog.records) == (mode == "offline")
        loggers.online_or_not.cache_clear()
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert loggers.online_or_not() == "disabled"
    finally:
        loggers.online_or_not.cache_clear()
