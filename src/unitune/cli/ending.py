"""How the program ends when it cannot go on.

It says one line, or a table for a sweep, returns an exit code, and leaves no folder without a
result.
"""

import difflib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGPIPE
from typing import Any, TextIO

from unitune.cli import groups, kinds
from unitune.errors import Refused
from unitune.report.table_formats import aligned, in_one_line
from unitune.storage import disk

# Files of a run's folder that are worth nothing without a result.
OURS = {"cards.json", "config.yaml", "failed.json", "multirun.yaml", "sweep.yaml"}
FAILED, REFUSED = 1, 2  # exit codes


def one_line(error: BaseException) -> str:
    """Return the first telling line of an error, with the options that Hydra lists after it."""
    if isinstance(error, Refused):  # one line already, but for what it quotes
        return in_one_line(str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    options = ", ".join(line for line in lines[1:] if re.fullmatch(r"[\w./-]+", line))
    said = lines[0] if lines else type(error).__name__
    if "Available options" in str(error) and options:
        return f"{said}; available: {options}"
    if said.endswith(":") and len(lines) > 1:  # what went wrong stands on the next line
        said = f"{said} {lines[1]}"
    where = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    return f"{said} ({where[0]})" if where and where[0] not in said else said


def unwritable(error: OSError) -> str:
    """Say which file the system would not let be written, and why."""
    what = disk.shown(error.filename) if error.filename else "a folder"
    return (
        f"{what} cannot be written ({error.strerror}); choose a folder that can: "
        "hydra.run.dir=DIR (of a sweep hydra.sweep.dir), store.path=DIR"
    )


def nearest(said: str, conf: Path) -> str:
    """Replace Hydra's word on a key that does not exist by one that names the nearest key."""
    if unread := re.match(r"Error parsing override '(.*)'$", said):
        return f"{unread[1]!r} is no setting; write FIELD=VALUE or GROUP=OPTION"
    unknown = re.match(r"Could not override '([^']+)'", said)
    if unknown is None:
        return said
    key, known = unknown[1], sorted({*kinds.fields(conf), *groups.options(conf)})
    if key in known:
        group = key.partition(".")[0]
        return (
            f"{key}, or what is given in it, is no field of the chosen {group}=; "
            "choose the option that has it, or leave it out"
        )
    near = difflib.get_close_matches(key, known, n=1)
    near = near or difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"no key {key!r}{meant} (python run.py --help lists every group and field)"


@dataclass(frozen=True)
class Failure:
    """A run that ended early, and why; `cell` names it within a sweep, "" outside of one."""

    said: str
    refused: bool
    cell: str = ""
    overrides: Sequence[str] = ()


@dataclass
class Ending:
    """How the runs of this process ended, and the folders that were made for them."""

    conf: Path = Path("conf")  # where a misspelt key is looked up
    failures: list[Failure] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    signal: int = 0  # that stopped the program
    swept: Path | None = None  # the folder of a sweep
    kept: str = ""  # what a stopped sweep leaves
    composed: bool = False  # whether there was any run, or cell of a sweep
    began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Forget what an earlier command line of this process left."""
        self.failures, self.folders, self.signal, self.swept, self.kept = [], [], 0, None, ""
        self.composed = False
        self.began = time.monotonic()

    def noted(self, folder: str) -> str:
        """Note a folder that is made for a run or a sweep, and return it.

        One that holds files already is an earlier run's, and stays however this one ends.
        """
        path = Path(folder)
        if not (path.is_dir() and any(path.iterdir())):
            self.folders.append(path)
        return folder

    def failed(self, error: Exception, **more: Any) -> None:
        """Note that a run ended early; `more` are the other fields of `Failure`."""
        self.failures.append(Failure(self._said(error), **more))

    @property
    def code(self) -> int:
        """The exit code: 0 done, 1 failed, 2 refused input, 128 + n stopped by signal n."""
        if self.signal:
            return 128 + self.signal
        if not self.failures:
            return 0
        return REFUSED if all(failure.refused for failure in self.failures) else FAILED

    def report(self) -> list[str]:
        """Say which runs failed: one line outside a sweep, else a table of the failed cells."""
        if not any(failure.cell for failure in self.failures):
            return [f"unitune: {failure.said}" for failure in self.failures]
        rows = sorted(
            (failure.cell, failure.said, " ".join(failure.overrides)) for failure in self.failures
        )
        some = "1 run of the sweep" if len(rows) == 1 else f"{len(rows)} runs of the sweep"
        return [f"unitune: {some} failed:", *(f"  {line}" for line in aligned(rows, left=3))]

    def _said(self, error: Exception) -> str:
        of_network = isinstance(error, ConnectionError | TimeoutError)
        if isinstance(error, OSError) and error.strerror and not of_network:
            return unwritable(error)
        return nearest(one_line(error), self.conf)

    def tell(self, stream: TextIO) -> int:
        """Say what went wrong and return the exit code.

        After refused input alone, the folders that hold no result are removed.
        """
        lines = self.report()
        if self.signal not in (0, SIGPIPE):  # who reads no more is told no more
            kept = f"{self.kept}; " if self.kept else ""
            lines.append(
                f"unitune: stopped; {kept}the same command goes on from the last step that was "
                "saved"
            )
        stream.writelines(f"{line}\n" for line in lines)
        made = sorted(self.folders, key=lambda folder: len(folder.absolute().parts))
        for folder in reversed(made) if self.code == REFUSED else ():
            remove_leftovers(folder)  # those inside others come first
        return self.code


def remove_leftovers(folder: Path) -> None:
    """Remove a run's folder without a result, then folders above it that are empty.

    The working directory and the folders above it stay.
    """
    folder, here = folder.absolute(), Path.cwd()
    stays = (here, *here.parents)
    if folder in stays or not folder.is_dir():
        return
    if not {file.name for file in folder.iterdir()} <= OURS:
        return
    for file in folder.iterdir():
        file.unlink()
    while folder not in stays and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
