"""The files that describe the environment agree, and conftest.py does what it says."""

import importlib
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import pytest_socket
import torch
import yaml
from huggingface_hub import constants as hub
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from unitune.cli import main
from unitune.diffusion.schedule import Schedule
from unitune.models import tiny

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {  # extra -> what it installs
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
OPTIONAL = [one for extra in EXTRAS if extra not in ("all", "dev") for one in EXTRAS[extra]]
RANGES = [*map(Requirement, PROJECT["dependencies"]), *OPTIONAL, *EXTRAS["dev"]]
# Installed for its file of weights; nothing imports it, so pyproject.toml does not name it.
WEIGHTS_ONLY = "stlpips-pytorch"
TARGETS = {"help", "setup", "demo", "test", "test-slow", "bench", "check", "wheel-test"}
TARGETS |= {"figures", "clean"}
MISSING = ("wandb", "tensorboard", "skimage", "scikit_image", "rich", "stlpips")  # file names


def pins(lines: list[str]) -> dict[str, str]:
    """Package name -> version of lines `name==version`; any other form is an error."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
        assert match, f"not a plain pin: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def constraints() -> dict[str, str]:
    return pins(
        [
            line
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line and not line.startswith("#")
        ]
    )


def conda() -> tuple[str, list[str]]:
    """The python version of environment.yml, and the lines of its pip section."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(
        item.removeprefix("python=")
        for item in listed
        if isinstance(item, str) and item.startswith("python=")
    )
    return python, next(item["pip"] for item in listed if isinstance(item, dict))


def test_pins_refuses_what_is_not_a_pin():
    for line in ["numpy>=2", "torch==2.13.0+cpu", "torch @ file.whl", "--pre"]:
        with pytest.raises(AssertionError, match="not a plain pin"):
            pins([line])
    with pytest.raises(AssertionError, match="pinned twice"):
        pins(["open_clip_torch==1", "open-clip-torch==1"])


def test_conda_has_the_pins_of_constraints():
    _, lines = conda()
    options = [line for line in lines if line.startswith("-")]
    assert options == ["-c constraints.txt", "-e ."]
    direct = pins([line for line in lines if line not in options])
    assert direct == {name: constraints()[name] for name in direct}
    assert set(direct) == {canonicalize_name(r.name) for r in RANGES} | {WEIGHTS_ONLY}


def test_conda_has_a_python_that_the_project_supports():
    assert SpecifierSet(PROJECT["requires-python"]).contains(conda()[0])


@pytest.mark.parametrize("wanted", RANGES, ids=lambda r: r.name)
def test_ranges_admit_the_pins(wanted):
    assert wanted.specifier.contains(
        constraints()[canonicalize_name(wanted.name)], prereleases=False
    )


def test_torchvision_pin_was_built_for_the_torch_pin():
    torch_of_torchvision = next(
        r for r in map(Requirement, requires("torchvision") or []) if r.name == "torch"
    )
    assert torch_of_torchvision.specifier.contains(constraints()["torch"])


@pytest.mark.parametrize("name", ["constraints.txt", "environment.yml", "Makefile", ".ci/run"])
def test_no_package_index_is_named(name):
    assert not re.search(r"://|--index|--extra-index|find-links", (ROOT / name).read_text())


def test_make_help_knows_every_target():
    text = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z-]+):.*## \S", text, re.M))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony and described == set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("name", ["run", "wheel"])
def test_ci_is_executable(name):
    assert os.access(ROOT / ".ci" / name, os.X_OK)


def test_extras_are_optional_and_make_setup_installs_them_all():
    (everything,) = EXTRAS["all"]
    assert everything.extras == set(EXTRAS) - {"all", "dev"}
    required = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert not required & {"wandb", "tensorboard", "scikit-image", "rich", WEIGHTS_ONLY}
    assert "-e '.[dev,all]'" in (ROOT / "Makefile").read_text()


def test_the_command_unitune_is_main():
    module, _, name = PROJECT["scripts"]["unitune"].partition(":")
    assert getattr(importlib.import_module(module), name) is main.main


def test_conf_is_read_from_the_package_or_else_from_the_checkout(tmp_path, monkeypatch):
    assert main.conf() == ROOT / "conf"
    (packaged := tmp_path / "conf").mkdir()
    monkeypatch.setattr(main, "ASSETS", tmp_path / "assets")
    assert main.conf() == packaged


WITHOUT = """
import importlib, io, json, sys
from contextlib import redirect_stderr, redirect_stdout
for name in MODULES:
    importlib.import_module(name)
from unitune.cli.main import main

answers = []
for typed in COMMANDS:
    sys.argv[1:] = typed
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main()
    answers.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""
MODULES = ("unitune.cli.main", "unitune.cli.jobs", "unitune.runs.experiment")
MODULES += ("unitune.report.page", "unitune.report.loggers")


def test_what_a_user_need_not_have_is_optional(tmp_path):
    """A run in a process that sees every installed package but those that are optional."""
    (packages := tmp_path / "packages").mkdir()
    for place in {sysconfig.get_path(name) for name in ("purelib", "platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.lower().startswith(MISSING):
                (packages / entry.name).symlink_to(entry)
    run = [f"model.path={tiny.floyd(tmp_path / 'tiny')}", "model.resolution=32", "stage=base"]
    run += ["steps=0", "snapshots=[]", "sampler.steps=1", "sampler.sr.steps=1", "seeds=1"]
    own = [f"image={ROOT}/src/unitune/assets/demo/cat-city-0.png", "edit=a cat", "oracle=0"]
    commands = [
        [*run, *own],
        [*run, *own, "logger=wandb"],
        [*run, *own, "logger=tensorboard"],
        [*run, "benchmark=photo"],
        [*run, *own, "metrics.use=[{_target_: unitune.metrics.perceptual.STLPIPS}]"],
    ]
    code = f"MODULES, COMMANDS = {MODULES!r}, {commands!r}\n{WITHOUT}"
    paths = os.pathsep.join([str(ROOT / "src"), str(packages)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (worked, wandb, tensorboard, photo, stlpips) = json.loads(done.stdout.splitlines()[-1])
    assert worked[0] == 0 and "psnr" in worked[1] and "stlpips" not in worked[1], worked
    assert "the metric stlpips needs" in worked[2] and "its column is left out" in worked[2]
    for answer, said in (
        (wandb, "pip install wandb"),
        (tensorboard, "pip install tensorboard"),
        (photo, "pip install scikit-image"),
        (stlpips, "the package stlpips-pytorch, which is not installed"),
    ):
        *_, line = answer[2].splitlines()
        assert answer[0] == 2 and line.startswith("unitune: ") and said in line, answer
        assert answer[2].count("unitune: ") == 1 and "loading" not in answer[2]


def test_licence_files_exist():
    for name in PROJECT["license-files"]:
        assert "LICENSE" in (ROOT / name).read_text().upper()


def test_every_file_of_conf_is_a_yaml_mapping():
    for path in sorted(
        p for p in (ROOT / "conf").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ):
        assert path.suffix == ".yaml", f"{path} is no .yaml file"
        assert isinstance(yaml.safe_load(path.read_text()) or {}, dict), f"{path} holds no mapping"


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_tests_have_no_network():
    assert hub.HF_HUB_OFFLINE and os.environ["WANDB_MODE"] == "offline"
    with pytest.raises(pytest_socket.SocketBlockedError):
        socket.socket(socket.AF_INET)


def test_shapes_are_checked_at_run_time():
    schedule, t = Schedule.cosine(10), torch.tensor([0, 9])
    x_0, three = torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4)
    assert schedule.add_noise(x_0, x_0, t).shape == x_0.shape
    with pytest.raises(TypeCheckError):
        schedule.add_noise(x_0, three, t)
    with pytest.raises(TypeCheckError):
        schedule.add_noise(x_0, x_0, t.float())


def test_each_test_has_an_empty_store(tmp_store, tmp_path):
    assert tmp_store.path.is_relative_to(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
