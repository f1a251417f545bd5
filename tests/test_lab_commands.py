"""The command line of the trainer of the embedded models: what it does and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import T5EncoderModel, T5Tokenizer

from unitune.metrics.judge import Judge, save_judge
from unitune.models.pocket import FOLDER as POCKET
from unitune_lab import networks, watch
from unitune_lab import train as training
from unitune_lab.__main__ import main
from unitune_lab.options import Phase, phases, read
from unitune_lab.parts.stage import StagePart

SOURCE = Path(__file__).parent.parent / "src"
TINY = [
    f"text={POCKET / 'base'}", "device=cpu", "workers=0", "channels=[32, 32, 32, 32]",
    "phases=[{resolution: 16, batch_size: 2, samples: 4}]",
]  # fmt: skip

PLAIN = [
    "device=cpu",
    "workers=0",
    "phases=[{resolution: 64, batch_size: 2, samples: 4}]",
]  # of parts that read 64 px alone


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny stage that was trained through the command line."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagePart, "look", lambda *_: {"error": 0.5})
        assert main(["base", *TINY, f"folder={folder}"]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """Run a command that must be refused in one line; return what it says."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("unitune_lab: ") and said.count("\n") == 1 and said.endswith("\n")
    return said


@pytest.mark.parametrize(
    ("part", "override", "said"),
    [
        ("bass", "lr=1", "part must be one of text, base"),
        ("base", "chanels=[32]", "no option 'chanels'"),
        ("text", "weighting=plain", "no option 'weighting'"),
        ("base", "lr", "write NAME=VALUE"),
        ("base", "lr=fast", "lr must be a number"),
        ("base", "lr=.nan", "lr must be a finite number"),
        ("base", "seed=true", "seed must be a whole number"),
        ("base", "ema=1.5", "ema must be a finite number from 0 to 1"),
        ("base", "workers=-1", "workers must be"),
        ("base", "start=7", "start must be text"),
        ("base", "channels=32", "channels must be a list"),
        ("base", "channels=[32, 64", "cannot be read"),
        ("base", "channels=[32, 32, 32, many]", "multiples of 16"),
        ("base", "channels=[32, 32]", "each of the 2 levels"),
        ("base", "attention=rrxa", "attention must have a letter"),
        ("base", "weighting=snr", "weighting must be one of plain, min_snr; got 'snr'"),
        ("base", "optimizer=sgd", "optimizer must be one of adamw, muon; got 'sgd'"),
        ("text", "optimizer=sgd", "optimizer must be one of"),
        ("base", "device=tpu", "must be auto, cpu or cuda"),
        ("base", "phases=[]", "phases is empty"),
        ("base", "phases=[64]", "a phase needs"),
        (
            "base",
            "phases=[{resolution: 48, batch_size: 2, samples: 4}]",
            "learns at 16, 32, 64 px; got a phase at 48 px",
        ),
        (
            "sr256",
            "phases=[{resolution: 512, batch_size: 2, samples: 4}]",
            "learns at 32, 40, 48, ..., 256 px; got a phase at 512 px",
        ),
        ("base", "channels=[16, 16, 16, 16]", "channels must be multiples of 16"),
        ("sr256", "channels=[16, 32, 32]", "channels must list 4 levels"),
        ("base", "phases=[{resolution: 64, batch_size: 2}]", "a phase needs"),
        ("sr256", "crops=0", "crops must be at least 1"),
        ("base", "text=nowhere", "nowhere holds no text encoder"),
        ("text", "start=nowhere", "nowhere holds no text encoder"),
        ("base", "start=nowhere", "nowhere holds no base"),
        ("judge", "start=nowhere", "nowhere holds no judge"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_followed_is_refused_in_one_line(
    part: str, override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = TINY if part == "base" else PLAIN if part in ("text", "judge") else [TINY[0], *PLAIN]
    command = [part, *options, f"folder={tmp_path / 'lab'}", override]
    assert said in refused(command, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_record_tells_how_a_part_was_trained_and_no_place_of_the_machine(begun: Path):
    text = (begun / "base" / "done.json").read_text()
    assert {"lr", "seed", "phases"} <= json.loads(text)["options"].keys()
    assert str(begun) not in text and str(POCKET) not in text


def test_help_and_options(capsys: pytest.CaptureFixture):
    assert main(["--help"]) == 0 and main([]) == 2
    assert "PART is one of text, base" in capsys.readouterr().out
    options = read("base", ["lr=1e-3", "minutes=5", "start=null"])
    assert (options["lr"], options["minutes"], options["start"]) == (1e-3, 5.0, None)
    assert phases(options)[0] == Phase(32, 32, 400_000)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    torch.manual_seed(0)
    start = tmp_path / "start"
    networks.base_unet([32, 32, 32, 64]).save_pretrained(start / "base" / "unet")
    networks.sr_unet([32, 32, 32, 32]).save_pretrained(start / "sr256" / "unet")
    words = {"nouns": ("cat",), "place": ("beach",), "time": ("day",), "style": ("plain",)}
    save_judge(Judge({**words, "colours": ("red",)}, max_objects=3), start / "judge")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -2.0) for word in networks.vocabulary() if word != "castle"]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(start / "text" / "tokenizer")
    encoder = networks.text_encoder(8)
    encoder.save_pretrained(start / "text" / "text_encoder")
    general, folder = PLAIN, tmp_path / "lab"
    for part, options, said in (
        ("base", TINY, "another architecture: its block_out_channels"),
        ("judge", general, "another architecture or world"),
        ("text", general, "it lacks castle"),
    ):
        command = [part, *options, f"folder={folder}", f"start={start}"]
        assert said in refused(command, capsys)
    other = [*TINY, f"folder={folder}", f"start={start / 'sr256'}"]  # found as FOLDER/unet
    shutil.copytree(start / "sr256" / "unet", start / "sr256" / "base" / "unet")
    assert "its down_block_types" in refused(["base", *other], capsys)
    text = [*TINY[1:], f"folder={folder}", f"text={start / 'text'}"]
    assert "it lacks castle" in refused(["base", *text], capsys)
    networks.tokenizer().save_pretrained(start / "text" / "tokenizer")
    encoder.config.d_model = 64
    T5EncoderModel(encoder.config).save_pretrained(start / "text" / "text_encoder")
    narrow = ["text", *general, f"folder={folder}", f"start={start}"]
    assert "another architecture" in refused(narrow, capsys)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["channels=[32, 32, 32, 64]"], "another architecture"),
        (["auxiliary=0.0"], "another architecture"),  # the head is trained too
        (["optimizer=muon"], "another optimizer (adamw, not muon)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    options: list[str], said: str, begun: Path, capsys: pytest.CaptureFixture
):
    before = contents(begun)
    assert said in refused(["base", *TINY, f"folder={begun}", *options], capsys)
    assert contents(begun) == before


def test_a_checkpoint_of_another_world_or_part_is_refused(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    before = contents(begun)
    (tmp_path / "text").mkdir()
    shutil.copy(begun / "base" / training.CHECKPOINT, tmp_path / "text")
    said = refused(["text", *PLAIN, f"folder={tmp_path}"], capsys)
    assert "another part (base, not text)" in said
    assert len(contents(tmp_path)) == 1
    monkeypatch.setattr(training, "world_digest", lambda: "elsewhere")
    assert "another world" in refused(["base", *TINY, f"folder={begun}"], capsys)
    assert contents(begun) == before


def test_the_trainer_imports_neither_hydra_nor_open_clip():
    modules = "unitune_lab.__main__, unitune_lab.parts.clip, sys"
    code = f"import {modules}; print({{'hydra', 'open_clip'}} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "set()"), ended.stderr


def test_one_can_watch_a_stage_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"UNSEEN": 4, "SINGLE": 2, "PAIRS": 2, "STEPS": 2}.items():
        monkeypatch.setattr(watch, name, value)
    shutil.copytree(POCKET / "judge", tmp_path / "judge" / "export")
    assert main(["base", *TINY, f"folder={tmp_path}"]) == 0
    curve = (tmp_path / "base" / training.CURVE).read_text().splitlines()
    assert len(curve) == 1
    assert '"samples": 4' in curve[0] and '"objects_900"' in curve[0] and '"single"' in curve[0]
    assert (tmp_path / "base" / "samples.png").stat().st_size > 1000
