"""A process that runs cells of a sweep: `python -m unitune.cli.worker [FOLDER ...]`.

Without folders it reads them from standard input, a line each, and answers each with a line when it
has ended. Its tables and its log go to standard error.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from unitune.cli.main import log_plainly, run_cell, stopped_by_signals
from unitune.errors import Stopped


def main(folders: Iterable[str]) -> int:
    """Run cells; return 0, or 128 + n after signal n."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    log_plainly()
    try:
        with stopped_by_signals():
            print("ready", file=answers, flush=True)
            for folder in folders:
                run_cell(Path(folder.rstrip("\n")))
                print(folder.rstrip("\n"), file=answers, flush=True)
    except Stopped as stop:
        return 128 + stop.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or sys.stdin))
