"""Configs, run folders and files of weights that would run code: refused, nothing is executed."""

import json
import pickle
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hostile import BASE, Payload, tiny_model
from omegaconf import OmegaConf
from safetensors.torch import load_file

from unitune.metrics.clip import load_clip
from unitune.metrics.judge import load_judge
from unitune.runs import config
from unitune.storage.store import MANIFEST
from unitune.tuning.interrupt import WholeCheckpoints
from unitune.types import Refused


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_model(tmp_path_factory.mktemp("hostile"))


# What the ecosystem's survey counts as 19 targets that run code or touch files, each with arguments
# that would leave `hacked` or lose `mine.txt`.
TARGETS = {
    "os.system": "command: touch hacked",
    "posix.system": "command: touch hacked",
    "os.popen": "cmd: touch hacked",
    "os.remove": "path: mine.txt",
    "os.rename": "src: mine.txt, dst: hacked",
    "os.makedirs": "name: hacked",
    "subprocess.run": "args: [touch, hacked]",
    "subprocess.Popen": "args: [touch, hacked]",
    "subprocess.check_output": "args: [touch, hacked]",
    "builtins.eval": "_args_: [\"open('hacked', 'w')\"]",
    "builtins.exec": "_args_: [\"open('hacked', 'w')\"]",
    "builtins.open": "_args_: [hacked, w]",
    "builtins.__import__": "_args_: [evil]",
    "importlib.import_module": "name: evil",
    "runpy.run_path": "path_name: evil.py",
    "shutil.rmtree": "path: mine",
    "torch.load": "f: evil.pkl, weights_only: false",
    "joblib.load": "filename: evil.pkl",
    "pandas.read_pickle": "filepath_or_buffer: evil.pkl",
}


@pytest.fixture
def bait(here, monkeypatch) -> Iterator[None]:
    """What the targets would run or destroy, looked at afterwards."""
    monkeypatch.syspath_prepend(str(here))
    (here / "mine").mkdir()
    (here / "mine/mine.txt").touch()
    (here / "mine.txt").touch()
    (here / "evil.py").write_text("open('hacked', 'w')\n")
    (here / "evil.pkl").write_bytes(pickle.dumps(Payload()))
    yield
    assert (
        not (here / "hacked").exists()
        and (here / "mine.txt").exists()
        and (here / "mine/mine.txt").exists()
    )


@pytest.mark.usefixtures("bait")
@pytest.mark.parametrize("target", TARGETS)
def test_hostile_targets_are_not_executed(run, target):
    """Where the program makes objects of a config: at the top, below a part of ours, in a list."""
    node = OmegaConf.create(f"{{_target_: {target}, {TARGETS[target]}}}")
    for tree in (
        node,
        {"_target_": "unitune.storage.store.Store", "path": "s", "more": node},
        {"use": [{"a": node}]},
    ):
        allowed = r"classes of unitune and pytorch_lightning\.loggers"
        said = rf"'{re.escape(target)}' is not allowed; allowed are {allowed}"
        with pytest.raises(Refused, match=said):
            run.make(OmegaConf.create(tree))


@pytest.mark.usefixtures("bait")
@pytest.mark.parametrize(
    "form",
    ["+x={}", "metrics.use=[{}]", "+sampler.more={}", "+logger.x={}", "+method.tune.base.more={}"],
)
def test_hostile_targets_typed(refused, model, form):
    target = ("builtins.open", "joblib.load", "pandas.read_pickle", "os.popen", "subprocess.Popen")[
        len(form) % 5
    ]
    assert f"'{target}' is not allowed" in refused(
        model, *BASE, form.format(f"{{_target_: {target}, {TARGETS[target]}}}")
    )


def test_there_are_19_and_the_dotted_form_is_refused_too(refused, here, model):
    assert len(TARGETS) == 19
    assert "builtins.open" in refused(
        model, *BASE, "+x._target_=builtins.open", "+x._args_=[hacked,w]"
    )
    assert "os.system" in refused(
        model, *BASE, "sampler._target_=os.system", "+sampler.command=touch hacked"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"x: !!python/object/apply:os.system ['touch hacked']\n",
        pickle.dumps(Payload()),
        pickle.dumps(Payload(), protocol=0),
    ],
)
def test_a_hostile_run_folder(refused, here, text):
    (here / "run").mkdir()
    (here / "run/config.yaml").write_bytes(config.HEADER.format(config.VERSION).encode() + text)
    refused("from=run")
    (here / "run/scores.jsonl").write_bytes(text)
    refused("--config-name", "score", "runs=run", "metrics=none")


def stored(here: Path) -> Path:
    (entry,) = (here / "store").glob("tuned-*")
    return entry


def test_a_flipped_bit_in_a_stored_tuning_is_found_said_and_rebuilt(typed, here, model):
    assert typed(model, *BASE).code == 0
    entry = stored(here)
    file = entry / "base-2.safetensors"
    before = file.read_bytes()
    data = bytearray(before)
    data[-5] ^= 1
    file.write_bytes(data)
    load_file(file)  # safetensors itself sees nothing
    again = typed(model, *BASE)
    assert (
        again.code == 0
        and f"stored entry {entry.name} is damaged (base-2.safetensors): rebuilt" in again.err
        and again.count("tuned base: 2 steps") == 1
    )
    assert file.read_bytes() == before
    assert typed(model, *BASE).count("tuned base") == 0


def test_pickles_offered_as_weights_are_refused(typed, here, model, tmp_path):
    """In a stored tuning whose manifest was made to fit, in a checkpoint, as scoring models."""
    evil = pickle.dumps(Payload())
    assert typed(model, *BASE).code == 0
    entry = stored(here)
    (entry / "base-2.safetensors").write_bytes(evil)
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["files"]["base-2.safetensors"] = sha256(evil).hexdigest()
    (entry / MANIFEST).write_text(json.dumps(manifest))
    answer = typed(model, *BASE)
    assert (
        answer.code == 2
        and "base-2.safetensors cannot be read" in answer.err.splitlines()[-1]
        and "Traceback" not in answer.err
    )

    shutil.rmtree(entry)
    resumed = here / f"store/.work/{entry.name}.1.elsewhere.resume"
    resumed.mkdir(exist_ok=True)
    torch.save(Payload(), resumed / "base.ckpt")
    answer = typed(model, *BASE)
    assert (
        answer.code == 2
        and "base.ckpt is damaged or holds more than weights" in answer.err.splitlines()[-1]
        and "Traceback" not in answer.err
    )
    (resumed / "base.ckpt").write_bytes(evil)
    with pytest.raises(Refused, match="more than weights"):
        WholeCheckpoints().load_checkpoint(resumed / "base.ckpt", weights_only=False)

    pocket = Path(__file__).parent.parent / "src/unitune/assets/pocket"
    for part, file, read in (
        ("clip", "open_clip_model.safetensors", load_clip),
        ("judge", "model.safetensors", load_judge),
    ):
        shutil.copytree(pocket / part, tmp_path / part)
        (tmp_path / part / file).write_bytes(evil)
        with pytest.raises(Refused, match="only safetensors are read"):
            read(tmp_path / part)
    assert not (here / "hacked").exists()
