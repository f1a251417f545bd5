"""The folder of a run belongs to that run alone, and holds scores.jsonl once all of it is done.

What an interrupted run has recorded waits in scores.unfinished.jsonl, an image at a time; the same
settings in the same folder go on with the images that it lacks.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unitune.errors import Refused
from unitune.runs import config
from unitune.storage import disk
from unitune.storage.files import write_whole

if TYPE_CHECKING:  # a command line is read without torch, which records ask for their environment
    from unitune.storage.records import Record

RESULT = "scores.jsonl"  # as storage/records.py names it
UNFINISHED = "scores.unfinished.jsonl"
FAILED = "failed.json"  # why a cell of a sweep ended early
# Settings that change no result: where tuned weights are kept, and where a sweep's cells run.
ELSEWHERE = ("store", "launcher", "sweep")
# What may lie in a folder before its run begins.
ALLOWED = {config.FILE, FAILED, "cards.json", "curves", "wandb", "tensorboard"}


def finished(folder: Path) -> bool:
    """Whether a run has left its whole result here."""
    return (folder / RESULT).is_file()


def claim(folder: Path, settings: str) -> bool:
    """Say whether the result of these settings (YAML) is here already.

    Raises Refused where the folder holds anything else: a run of other settings, or files that no
    run of ours left.
    """
    file = folder / config.FILE
    if file.is_file():
        try:
            text = file.read_text(encoding="utf-8")
            there = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            said = " ".join(str(error).split())
            raise Refused(
                f"the settings {disk.shown(file)} of an earlier run cannot be read ({said}); "
                "choose another folder, or remove this one"
            ) from None
        config.check_version(text, folder)
        if difference := _first_difference(there, yaml.safe_load(settings)):
            raise Refused(
                f"the folder {disk.shown(folder)} belongs to a run of other settings "
                f"({difference}); choose another one (hydra.run.dir, of a sweep sweep=NAME), or "
                "remove it"
            )
        return finished(folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if foreign := sorted(name for name in names - ALLOWED if not name.startswith(".")):
        raise Refused(
            f"the folder {disk.shown(folder)} is not empty and holds no run ({foreign[0]}); "
            "choose another one with hydra.run.dir=DIR"
        )
    return False


def begun(folder: Path) -> "list[Record]":
    """Read what an interrupted run has recorded here: whole images, all of their rows."""
    from unitune.storage import records

    file = folder / UNFINISHED
    return records.read(file) if file.is_file() else []


def note(folder: Path, done: "Sequence[Record]") -> None:
    """Keep the records of all images done so far, should the run be interrupted."""
    from unitune.storage import records

    try:
        text = "".join(map(records.line, done))
        write_whole(text.encode("utf-8", "surrogatepass"), folder / UNFINISHED)
    except OSError as error:
        raise disk.explained(error) from error


def finish(folder: Path) -> None:
    """Turn what was noted into the run's result."""
    os.replace(folder / UNFINISHED, folder / RESULT)
    (folder / FAILED).unlink(missing_ok=True)


def _first_difference(there: Any, here: Any) -> str:
    """Name the first setting that differs; empty where none does."""
    if not isinstance(there, Mapping):
        return "its config.yaml holds no settings"
    old, new = (
        dotted({name: tree[name] for name in tree if name not in ELSEWHERE})
        for tree in (there, here)
    )
    for name in {**new, **old}:
        if old.get(name) != new.get(name):
            shown = [values.get(name, "not set") for values in (old, new)]
            return f"{name}: {shown[0]} there, {shown[1]} here"
    return ""


def dotted(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return every setting of nested ones, as text, by its dotted name."""
    return {name: str(value) for name, value in config.leaves(tree)}
