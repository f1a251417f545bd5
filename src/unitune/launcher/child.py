"""One worker process that runs given cells, for a job or a task of a cluster."""

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from unitune.errors import Refused, number, whole
from unitune.launcher import WORKER

POLL = 0.2  # seconds
AGAIN = 15.0  # seconds after which a process that was asked to stop is asked again


class Child:
    """A worker process that was given cells (folders), in the working directory `where`."""

    def __init__(self, cells: Sequence[str], where: str) -> None:
        self.process = subprocess.Popen([*WORKER, *cells], cwd=where)

    def wait(self) -> int:
        """Return the exit code when the process has ended.

        Not Popen.wait(), which holds a lock that a signal's handler would wait for, for ever.
        """
        while self.process.poll() is None:
            time.sleep(POLL)
        return self.process.returncode

    def stop(self) -> int:
        """Ask the process to save what it has; return its exit code when it has ended.

        Python loses what a signal's handler raises where nothing may raise, as in a callback of an
        import: then it is asked again.
        """
        asked = 0.0
        while self.process.poll() is None:
            if time.monotonic() - asked > AGAIN:
                self.process.send_signal(signal.SIGTERM)
                asked = time.monotonic()
            time.sleep(POLL)
        return self.process.returncode


def groups(cells: Sequence[Path], size: int) -> list[list[Path]]:
    """Part cells into groups of `size`, each for one worker."""
    return [list(cells[k : k + size]) for k in range(0, len(cells), size)]


def check_numbers(launcher: object, least: dict[str, float]) -> None:
    """Refuse a field of a launcher that is no number or less than its least value.

    Fields whose least value is a whole number are whole numbers.
    """
    for name, low in least.items():
        value = getattr(launcher, name)
        of_kind = whole(value) if isinstance(low, int) else number(value)
        if not (of_kind and value >= low):
            kind = "a whole number" if isinstance(low, int) else "a number"
            raise Refused(f"launcher.{name} must be {kind} of at least {low}; got {value!r}")
