"""One cell after another in this process, which keeps its model loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path


class Serial:
    """Runs the cells of a sweep one after another in this process."""

    name = "serial"

    def check(self) -> None:
        """Nothing is needed."""

    def launch(
        self, cells: Sequence[Path], *, run: Callable[[Path], None], ended: Callable[[Path], None]
    ) -> None:
        """Run cells."""
        for cell in cells:
            run(cell)
            ended(cell)
