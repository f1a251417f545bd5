"""The files that describe the environment agree with each other, and conftest.py does what it says."""

import os
import re
import socket
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

from unitune.diffusion.schedule import Schedule

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]
WEIGHTS_ONLY = "stlpips-pytorch"  # installed for its file of weights; nothing imports it, so pyproject.toml does not name it
TARGETS = {"help", "setup", "demo", "test", "test-slow", "bench", "check", "figures", "clean"}


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


def test_ci_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


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
