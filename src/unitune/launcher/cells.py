"""What the folder of a cell says: done, failed, or left to run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitune.runs.folder import FAILED, finished
from unitune.storage.files import write_whole


@dataclass(frozen=True)
class Failure:
    """Why a cell ended early; `refused` where its settings or its input cannot be used."""

    said: str
    refused: bool = False


def fail(cell: Path, said: str, *, refused: bool = False) -> None:
    """Note in a cell's folder why it ended early; an earlier reason stays."""
    if not finished(cell) and failure(cell) is None:
        write_whole(json.dumps({"said": said, "refused": refused}) + "\n", cell / FAILED)


def failure(cell: Path) -> Failure | None:
    """Return why a cell ended early; None where it is done or left."""
    file = cell / FAILED
    if finished(cell) or not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Failure(str(told["said"]), bool(told["refused"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Failure(f"its {FAILED} cannot be read")


def left(cells: Sequence[Path]) -> list[Path]:
    """List the cells without a result or a failure."""
    return [cell for cell in cells if not finished(cell) and failure(cell) is None]


def begin(cell: Path) -> None:
    """Forget an earlier failure, because the cell runs again."""
    (cell / FAILED).unlink(missing_ok=True)
