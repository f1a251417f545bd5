"""The doctor's checks of what is installed: Python, libraries, the device."""

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from unitune.models import compat, machine

OK, WARN, FAIL = "ok", "warn", "fail"
PACKAGE = "unitune"
PINS = Path(__file__).parents[3] / "constraints.txt"  # of a checkout; a package has none
Settings = Mapping[str, Any]  # the main job's config as plain data


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: str
    found: str
    advice: str = ""

    def line(self, check: str) -> str:
        """Write the table's row."""
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.level:<5} {check:<12} {self.found}{advice}"


def python(settings: Settings) -> Finding:
    """Judge the Python version."""
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    here = platform.python_version()
    if Requirement(f"python{wanted}").specifier.contains(here, prereleases=True):
        return Finding(OK, here)
    advice = "make a new environment: make clean setup PYTHON=python3.12"
    return Finding(FAIL, f"{here} is not supported ({wanted})", advice)


def libraries(settings: Settings) -> Finding:
    """Compare the libraries with the ranges that work and the versions that were tested."""
    pins = PINS.read_text() if PINS.is_file() else ""
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", pins, re.MULTILINE))
    here = {
        canonicalize_name(distribution.name): distribution.version.partition("+")[0]
        for distribution in importlib.metadata.distributions()
        if distribution.name
    }
    wanted = [requirement for requirement in _requirements(PACKAGE) if requirement.marker is None]
    broken = []
    for requirement in wanted:
        found = here.get(canonicalize_name(requirement.name))
        if not requirement.specifier.contains(found or "0", True):
            broken.append(f"{requirement} (found {found})" if found else str(requirement))
    if broken:
        found = f"missing or outside the range that works: {', '.join(broken)}"
        return Finding(FAIL, found, "make setup")
    moved = [
        f"{name} {version} for {pin}"
        for name, pin in tested.items()
        if (version := here.get(canonicalize_name(name), pin)) != pin
    ]
    if moved:
        found = f"not the tested versions: {', '.join(moved[:5])}{', ...' if moved[5:] else ''}"
        return Finding(WARN, found, "make setup installs those of constraints.txt")
    met = f"all {len(tested)} pins met" if tested else "no constraints.txt to compare with"
    return Finding(OK, f"{len(wanted)} in their ranges, {met}")


def torchvision(settings: Settings) -> Finding:
    """Find out whether torchvision was built for this torch and its compiled part loads."""
    if importlib.util.find_spec("torchvision") is None:
        return Finding(FAIL, "torchvision is missing; CLIP scores need it", "make setup")
    version = importlib.metadata.version("torchvision")
    pair = f"torchvision {version} beside torch {torch.__version__}"
    for built in _requirements("torchvision"):
        here = torch.__version__.partition("+")[0]
        if built.name == "torch" and not built.specifier.contains(here, prereleases=True):
            found = f"{pair}, but it was built for {built}"
            return Finding(FAIL, found, "install the pair of constraints.txt: make setup")
    if (compiled := compat.compiled_torchvision()) is None or not compat.is_loadable(compiled):
        found = f"{pair}: its compiled part does not load; nothing here uses it"
        advice = "other programs need torch and torchvision from one source"
        return Finding(WARN, found, advice)
    return Finding(OK, pair)


def device(settings: Settings) -> Finding:
    """Find out whether the device is there and its arithmetic native."""
    chosen = machine.device(settings["machine"]["device"])
    dtype = machine.precision(settings["machine"]["precision"], chosen)
    arithmetic = str(dtype).removeprefix("torch.")
    if chosen.type == "cpu":
        return Finding(OK, f"cpu, {torch.get_num_threads()} threads, {arithmetic}")
    name = torch.cuda.get_device_name(chosen)
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding(WARN, f"{name} computes no bf16 of its own", "machine.precision=fp32")
    return Finding(OK, f"{name}, CUDA {torch.version.cuda}, {arithmetic}")


def _requirements(package: str) -> Iterator[Requirement]:
    return map(Requirement, importlib.metadata.requires(package) or [])


def launcher(settings: Settings) -> Finding:
    """Find out whether the cells of a sweep can run where the settings say."""
    from unitune.cli.jobs import make

    chosen = make(settings["launcher"])
    chosen.check()
    return Finding(OK, chosen.name)
