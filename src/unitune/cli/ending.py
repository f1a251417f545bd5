"""What the program answers when it cannot go on: one line, or a table for a sweep, an exit code, and no folder without a result."""

import difflib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from unitune.storage import disk

OURS = (
    "cards.json",
    "config.yaml",
    "multirun.yaml",
)  # files of a run's folder that are worth nothing without a result
FAILED, REFUSED = 1, 2  # exit codes


def one_line(error: BaseException) -> str:
    """Return the first telling line of an error, with the options where Hydra lists them on the lines after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    options = ", ".join(line for line in lines[1:] if re.fullmatch(r"[\w./-]+", line))
    said = lines[0] if lines else type(error).__name__
    if "Available options" in str(error) and options:
        return f"{said}; available: {options}"
    if said.endswith(":") and len(lines) > 1:  # what went wrong stands on the next line
        said = f"{said} {lines[1]}"
    where = next(
        (line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), ""
    )
    return said if where in said else f"{said} ({where})"


def unwritable(error: OSError) -> str:
    """Say which file the system would not let be written, and why."""
    what = disk.shown(error.filename) if error.filename else "a folder"
    return f"{what} cannot be written ({error.strerror}); choose a folder that can: hydra.run.dir=DIR (of a sweep hydra.sweep.dir), store.path=DIR"


def nearest(said: str, conf: Path) -> str:
    """Add to Hydra's word on a key that does not exist the one that comes nearest."""
    if (key := re.match(r"Could not override '([^']+)'", said)) is None:
        return said
    known = sorted(set(keys(conf)))
    if key[1] in known:  # the key is right, something below it is not
        return said
    near = difflib.get_close_matches(key[1], known, n=1) or difflib.get_close_matches(
        key[1].rpartition(".")[2], known, n=1
    )
    return f"no key {key[1]!r}{f'; did you mean {near[0]!r}?' if near else ''} (python run.py --help lists every group and field)"


def keys(conf: Path) -> Iterator[str]:
    """List what can be set: groups, and the fields of every file with their group's name before them."""
    import yaml  # here, because --help must stay quick

    for file in sorted(conf.rglob("*.yaml")):
        group = "" if file.parent == conf else file.parent.name
        yield from [group] if group else []
        fields = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        yield from _fields(
            {name: value for name, value in fields.items() if name not in ("defaults", "hydra")},
            f"{group}." if group else "",
        )


def _fields(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")


@dataclass(frozen=True)
class Failure:
    """A run that ended early; `cell` names it within a sweep, "" outside of one."""

    error: Exception
    refused: bool
    cell: str
    overrides: Sequence[str]


@dataclass
class Ended:
    """How the runs of this process ended, and the folders that were made for them; `conf` is where a misspelt key is looked up."""

    conf: Path = Path("conf")
    failures: list[Failure] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    signal: int = 0  # that stopped the program
    swept: Path | None = None  # the folder of a sweep
    began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Forget what an earlier command line of this process left."""
        self.failures, self.folders, self.signal, self.swept = [], [], 0, None
        self.began = time.monotonic()

    def noted(self, folder: str) -> str:
        """Note a folder that is made for a run or a sweep, and return it."""
        self.folders.append(Path(folder))
        return folder

    def failed(
        self, error: Exception, *, refused: bool, cell: str = "", overrides: Sequence[str] = ()
    ) -> None:
        """Note that a run ended early."""
        self.failures.append(Failure(error, refused, cell, overrides))

    def stopped(self, signal: int) -> None:
        """Note that a signal ended the program."""
        self.signal = signal

    @property
    def code(self) -> int:
        """The exit code: 0 done, 1 failed, 2 refused input, 128 + n stopped by signal n."""
        if self.signal or not self.failures:
            return 128 + self.signal if self.signal else 0
        return REFUSED if all(failure.refused for failure in self.failures) else FAILED

    def report(self) -> list[str]:
        """Say which runs failed: one line outside a sweep, else a table with one line per failed cell."""
        if not any(failure.cell for failure in self.failures):
            return [f"unitune: {self._said(failure.error)}" for failure in self.failures]
        rows = [
            (failure.cell, self._said(failure.error), " ".join(failure.overrides))
            for failure in self.failures
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        some = "1 run of the sweep" if len(rows) == 1 else f"{len(rows)} runs of the sweep"
        return [
            f"unitune: {some} failed:",
            *(f"  {cell:{widths[0]}}  {why:{widths[1]}}  {what}" for cell, why, what in rows),
        ]

    def _said(self, error: Exception) -> str:
        return (
            unwritable(error)
            if isinstance(error, OSError) and error.strerror
            else nearest(one_line(error), self.conf)
        )

    def tell(self, stream: TextIO) -> int:
        """Say what went wrong and return the exit code; after refused input alone, remove the folders that hold no result."""
        lines = self.report() + (
            ["unitune: stopped; the same command goes on from the last step that was saved"]
            if self.signal
            else []
        )
        stream.writelines(f"{line}\n" for line in lines)
        for folder in self.folders if self.code == REFUSED else []:
            remove_leftovers(folder)
        return self.code


def remove_leftovers(folder: Path) -> None:
    """Remove a run's folder that holds no result, and then the folders above it that are left empty, up to the working directory."""
    folder, here = folder.absolute(), Path.cwd()
    while (
        folder != here
        and folder not in here.parents
        and folder.is_dir()
        and {file.name for file in folder.iterdir()} <= set(OURS)
    ):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        folder = folder.parent
