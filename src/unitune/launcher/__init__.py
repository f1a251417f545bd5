"""Where the cells of a sweep run: in this process, in others, as jobs of Slurm, as tasks of Ray.

A cell is a folder with its config.yaml; whether it is done, failed or left is read from that folder
alone (cells.py). All launchers but `serial` start the same command, WORKER, which runs the cells
that it is given one after another and so keeps its model loaded.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

WORKER = (sys.executable, "-m", "unitune.cli.worker")
LOGS = ".launcher"  # of a sweep's folder: what workers print


class Launcher(Protocol):
    """Runs cells somewhere."""

    name: str

    def check(self) -> None:
        """Refuse, in one line, what this launcher lacks on this machine."""

    def launch(
        self, cells: Sequence[Path], *, run: Callable[[Path], None], ended: Callable[[Path], None]
    ) -> None:
        """Run cells, all in one folder, and return when each has ended.

        `run` runs a cell in this process; `ended` is told of each cell that has ended, however it
        did. Cells whose worker died get the reason into their folder.
        """
