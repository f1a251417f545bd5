"""What ships is put together from trained parts.

These are stock folders, their losses, and the record of each training.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from unitune.models.cascade import load
from unitune.models.pocket import FOLDER as POCKET
from unitune.models.stage import read_losses
from unitune_lab import assemble
from unitune_lab.options import read
from unitune_lab.parts.stage import TUNING, StagePart, digest
from unitune_lab.records import CURVE, DONE, LEARNING, TRAINING

CPU = torch.device("cpu")


def trained(folder: Path, part: str, **done: object) -> None:
    """A tiny stage as the trainer leaves it."""
    stage = StagePart(
        POCKET / "base", CPU, super_resolution=part == "sr256", channels=[32, 32, 32, 32]
    )
    stage.export(stage.network, folder / part / "export")
    record = {
        "samples": 10,
        "minutes": 1.0,
        "before": {},
        "reads": digest(POCKET / "base"),
        "options": read(part, []),
    }
    (folder / part / DONE).write_text(json.dumps(record | done))
    (folder / part / CURVE).write_text(
        json.dumps({"samples": 10, "minutes": 1.0, "error": 0.5}) + "\n"
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that ships a text encoder alone."""
    shutil.copytree(POCKET / "base" / "text_encoder", tmp_path / "out" / "base" / "text_encoder")
    shutil.copytree(POCKET / "base" / "tokenizer", tmp_path / "out" / "base" / "tokenizer")
    return tmp_path / "out"


def test_assembled_stages_are_read_as_a_cascade_with_the_losses_that_they_learned(
    tmp_path: Path, out: Path
):
    for part in ("base", "sr256"):
        trained(tmp_path / "lab", part)
    assert assemble.assemble(tmp_path / "lab", out) == ["base", "sr256"]
    cascade = load("tiny", out, stages=("base", "sr256"), device=CPU, dtype=torch.float32)
    assert [stage.resolution for stage in cascade.stages] == [64, 256]
    for part, weighting in (("base", "plain"), ("sr256", "min_snr")):
        losses = read_losses(
            out / part, json.loads((out / part / "scheduler" / "scheduler_config.json").read_text())
        )
        assert (losses.pretraining.weighting, losses.tuning) == (weighting, TUNING)
    assert cascade.encode(["a cat"]).shape == (1, 77, 128)


def test_a_stage_of_another_text_encoder_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture
):
    trained(tmp_path / "lab", "base", reads="0" * 64)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert assemble.main([str(tmp_path / "lab"), str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "base was trained with the text encoder 000000000000" in said
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_an_export_without_its_record_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture
):
    trained(tmp_path / "lab", "base")
    (tmp_path / "lab" / "base" / DONE).unlink()
    assert assemble.main([str(tmp_path / "lab"), str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"base holds no {DONE}" in said


def test_the_curve_goes_on_where_the_earlier_training_ended(tmp_path: Path, out: Path):
    trained(tmp_path / "lab", "base")
    assemble.assemble(tmp_path / "lab", out)
    assemble.assemble(tmp_path / "lab", out)
    lines = [json.loads(line) for line in (out / LEARNING).read_text().splitlines()]
    assert [(line["part"], line["samples"]) for line in lines] == [("base", 10)], (
        "the same training is not told twice"
    )
    trained(tmp_path / "more", "base", before=json.loads((out / TRAINING).read_text())["base"])
    assemble.assemble(tmp_path / "more", out)
    lines = [json.loads(line) for line in (out / LEARNING).read_text().splitlines()]
    assert [(line["samples"], line["minutes"]) for line in lines] == [(10, 1.0), (20, 2.0)]


def test_a_folder_without_a_trained_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert assemble.main([]) == assemble.main([str(tmp_path)]) == 2
    assert "holds no trained part" in capsys.readouterr().err
