"""Entries of a store for tests: quick builds, and other processes that use the same store."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unitune.storage.store import Store

KEY = {"lr": 1e-4, "steps": 128, "image": "ab12"}


class Build:
    """Writes two files and counts its calls."""

    def __init__(self, text: str = "weights", size: int = 0) -> None:
        self.calls, self.text, self.size = 0, text, size

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "weights.bin").write_bytes(self.text.encode() + bytes(self.size))
        (folder / "images").mkdir()
        (folder / "images" / "0.png").write_bytes(b"png")


def stored(
    store: Store, kind: str, key: Mapping[str, object], build: Callable[[Path], Any]
) -> Path:
    """The folder of an entry, made where it is missing."""
    with store.get_or_make(kind, key, build) as entry:
        return entry


def entries(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.name != ".work")


def unfinished(path: Path) -> list[str]:
    return sorted(child.name for child in (path / ".work").iterdir())


def first_line(process: "subprocess.Popen[str]") -> str:
    """What a process says first; waits for it."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def started(path: Path, body: str) -> "subprocess.Popen[str]":
    """A process that runs `body` with a store of this path."""
    head = "import fcntl, logging, os, signal, socket, sys, time\nfrom pathlib import Path\n"
    head += "from unitune.storage import lease, private\n"
    head += "from unitune.storage.store import Store\n"
    head += f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom stores import stored\n"
    head += "logging.basicConfig(level=logging.INFO, stream=sys.stderr)\n"
    script = f"{head}path = Path({str(path)!r})\nstore = Store(path)\n{body}"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script], stdout=pipe, stderr=pipe, text=True)
