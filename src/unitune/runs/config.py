"""A run's config.yaml: its settings, and on the first line the version of the run's folder."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.storage import disk
from unitune.storage.files import write_whole

FILE = "config.yaml"
VERSION = 2  # raised when this program cannot run or score what an earlier one wrote
HEADER = "# The folder of a run, version {}\n"


def leaves(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """List the settings of nested ones with their values, by dotted names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value


def write(settings: str, folder: Path) -> None:
    """Write the settings, as YAML, of the run in this folder."""
    write_whole(HEADER.format(VERSION) + settings, folder / FILE)


def check_version(text: str, folder: Path) -> None:
    """Refuse the folder of a run, by the text of its config.yaml, that is of another version."""
    named = re.match(HEADER.format(r"(\d+)"), text)
    version = int(named[1]) if named else 1  # which named none
    if version != VERSION:
        raise Refused(
            f"the run in {disk.shown(folder)} is of version {version}, and this program reads "
            f"version {VERSION}; run it again by its own command line, "
            "or use the program of that version"
        )
