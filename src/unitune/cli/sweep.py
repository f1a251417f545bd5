"""A sweep: its folder, its cells, which of them are left to run, and how they ended.

Hydra composes every cell; nothing runs before all of them are known. What is done and what failed
is read from the cells' folders, so the same command runs only what is missing.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unitune.errors import Refused
from unitune.launcher import Launcher, cells
from unitune.runs import config
from unitune.runs.folder import ELSEWHERE, claim, dotted, finished
from unitune.storage import disk
from unitune.storage.files import write_whole
from unitune.storage.names import file_name

SWEEPS = "outputs/sweeps"
FILE = "sweep.yaml"  # in the folder of a sweep: what its cells share, and their names
NOT_OF_A_CELL = ("launcher", "sweep")  # settings of the sweep as a whole

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """The sweep of one command line, `settings` being what was typed, as Hydra reads it."""

    settings: Sequence[str] = ()
    cells: dict[Path, Sequence[str]] = field(default_factory=dict)  # with what each one sets
    texts: dict[Path, str] = field(default_factory=dict)  # of the cells' config.yaml
    launcher: Any = None
    shared: dict[str, str] | None = None  # settings that all cells have
    runs: bool = False  # whether cells may be running

    def begin(self) -> None:
        """Forget the sweep of an earlier command line of this process."""
        self.settings, self.cells, self.texts = (), {}, {}
        self.launcher = self.shared = None
        self.runs = False

    def folder(self, name: str | None, default: str | None = None) -> str:
        """Return the folder of the sweep.

        `name` is a name below outputs/sweeps or a folder (with a slash); without it `default` or,
        as that is missing, a name that is made of the command line.
        """
        if name:
            if name in (".", ".."):
                raise Refused(f"sweep={name} is no name; give one, or a folder with a slash")
            path = Path(name).expanduser()
            return str(path if "/" in str(name) else Path(SWEEPS) / path)
        if default:
            return default
        varied = "-".join(key.rpartition(".")[2] for key in _varied(self.settings)) or "sweep"
        return f"{SWEEPS}/{file_name(varied)}-{_digest(sorted(_of_cells(self.settings)))}"

    def cell_name(self, _root_: Any) -> str:
        """Name the folder of a cell by what the sweep varies and a digest of all its settings."""
        parts = [f"{key.rpartition('.')[2]}={value}" for key, value in self._chosen(_root_)]
        name = ",".join(parts) or f"{_root_.method.name}-{_root_.sampler.name}"
        return f"{file_name(name)}-{_digest(OmegaConf.to_yaml(of_cell(_root_, *ELSEWHERE)))}"

    def plain_name(self, _root_: Any) -> str:
        """Name the folder of a cell by what the sweep varies alone, whole keys in their order."""
        parts = sorted(f"{key}={value}" for key, value in self._chosen(_root_))
        return file_name(",".join(parts) or "cell")

    def _chosen(self, _root_: Any) -> list[tuple[str, str]]:
        """List what the sweep varies, with its value in this cell."""
        swept = [*_varied(self.settings), *(_root_.hydra.sweeper.params or {})]
        task = [one.partition("=") for one in _root_.hydra.overrides.task]
        return [(key, value) for key, _, value in task if key in swept]

    def add(self, cfg: Any, folder: Path, overrides: Sequence[str], *, launcher: Any) -> None:
        """Note a cell of these settings; one that is there already is not run twice."""
        text = OmegaConf.to_yaml(cfg)
        if self.texts.setdefault(folder, text) != text:
            raise Refused(
                f"two cells of this sweep would share the folder {disk.shown(folder)}; leave "
                "hydra.sweep.subdir out, which names cells by their settings"
            )
        claim(folder, text)
        self.cells[folder] = list(overrides)
        tree = yaml.safe_load(text)
        own = dotted({name: tree[name] for name in tree if name not in ELSEWHERE})
        before = own if self.shared is None else self.shared
        self.shared = {name: own[name] for name in own if before.get(name) == own[name]}
        self.launcher = launcher

    def run(self, launcher: Launcher, run: Any) -> None:
        """Run the cells that have no result yet; `run` runs one in this process."""
        every = [*self.cells]
        self._keep(every[0].parent)
        self.runs = True
        todo = [cell for cell in every if not finished(cell)]
        if here := len(every) - len(todo):
            log.info(
                "sweep: %d of %d cells are done already, in %s", here, len(every), every[0].parent
            )
        for cell in todo:
            config.write(self.texts[cell], cell)
            cells.begin(cell)
        began, done = time.monotonic(), 0

        def ended(cell: Path) -> None:
            nonlocal done
            done += 1
            seconds = (time.monotonic() - began) / done * (len(todo) - done)
            left = f", about {_duration(seconds)} left" if done < len(todo) else ""
            how = "done" if finished(cell) else "failed"
            log.info(
                "sweep: %d of %d cells, %s %s%s", here + done, len(every), cell.name, how, left
            )

        if todo:
            launcher.launch(todo, run=run, ended=ended)

    def done(self) -> list[Path]:
        """List the cells that have their result."""
        return [cell for cell in self.cells if finished(cell)]

    def _keep(self, folder: Path) -> None:
        """Note in the sweep's folder what its cells share; Refused where that was different."""
        file, names = folder / FILE, [cell.name for cell in self.cells]
        shared = self.shared or {}
        if file.is_file():
            old = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            there = old.get("shared") or {}
            for name, value in there.items():
                if shared.get(name, value) != value:
                    raise Refused(
                        f"{disk.shown(folder)} is the folder of a sweep of other settings "
                        f"({name}: {value} there, {shared[name]} here); choose another one with "
                        "sweep=NAME"
                    )
            shared = {name: shared[name] for name in there if name in shared}
            names = list(dict.fromkeys([*(old.get("cells") or ()), *names]))
        write_whole(yaml.safe_dump({"cells": names, "shared": shared}), file)


def of_cell(cfg: Any, *without: str) -> Any:
    """Return the config without `without` and what belongs to Hydra and to the whole sweep."""
    left_out = ("hydra", *NOT_OF_A_CELL, *without)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in left_out])


def _of_cells(settings: Sequence[str]) -> list[str]:
    """List the settings that change what cells do."""
    beside = ("hydra.", "store.", *(f"{name}{end}" for name in NOT_OF_A_CELL for end in "=."))
    return [one for one in settings if not one.startswith(beside)]


def _varied(settings: Sequence[str]) -> list[str]:
    """Name the settings that were typed with several values."""
    parsed = OverridesParser.create().parse_overrides(list(settings))
    return [one.key_or_group for one in parsed if one.is_sweep_override()]


def _digest(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()[:8]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
