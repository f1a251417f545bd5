"""Every notebook runs from top to bottom, holds no outputs and defines nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[dict]:
    return [
        cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_no_outputs_and_no_definitions(notebook):
    cells = code(notebook)
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert not any(line.startswith(("def ", "class ")) for cell in cells for line in cell["source"])


def test_notebooks_run():
    # A notebook's kernel talks through local sockets, which the suite forbids: it gets a process.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "--nbmake",
        "--nbmake-timeout=240",
        *map(str, NOTEBOOKS),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert NOTEBOOKS and done.returncode == 0, done.stdout[-2000:]
