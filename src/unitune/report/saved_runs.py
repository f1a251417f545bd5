"""What runs left on disk: records, with the settings and metric cards that stand beside them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from unitune.metrics.statistics import group_by
from unitune.report.groups import Cards
from unitune.runs import config
from unitune.runs.folder import dotted
from unitune.storage import records
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

CARDS = "cards.json"
SHOWN = 6  # settings that a label names
NAMED = re.compile(r"\$\{([\w.]+)\}")  # of one setting to another, in a run's config.yaml


@dataclass(frozen=True)
class SavedRuns:
    """Records from a record file, a run's folder or a folder of runs.

    `folders`, `configs` (the texts of config.yaml) and `settings` (what was set in a run and not
    in others, as a label says it) are by the name of the run.
    """

    path: Path
    files: tuple[Path, ...]
    records: tuple[Record, ...]
    folders: Mapping[str, Path]
    configs: Mapping[str, str]
    settings: Mapping[str, str]
    cards: Cards

    @property
    def provenance(self) -> str:
        """Say where a reader finds record, settings, pictures and metric card behind a number."""
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in self.files)).hexdigest()[:12]
        first, *others = self.files
        where = _short(first)
        if others:
            where = f"{len(self.files)} files {records.FILE} below {_short(self.path)}"
        beside = (
            f"beside it: {config.FILE} (the settings), {CARDS} (what each number is) "
            "and the pictures that the field `image` names"
        )
        if not self.configs:  # records kept without their run
            beside = "their runs' folders are not kept with them"
            if self.cards:
                beside = f"what each number is stands in {_cards_of(first).name} beside it"
        field = "the column `run` is the field of that name"
        return f"Records: {where} (sha256 {digest}); {field}; {beside}."


def load(path: Path | str) -> SavedRuns:
    """Read records and what stands beside them.

    Raises Refused where there are none, or where they are not of this version.
    """
    path = Path(path)
    read = records.by_file(path)
    every = tuple(record for members in read.values() for record in members)
    if not every:
        raise Refused(f"{path} holds no record; name the folder of a finished run or sweep")
    folders = {record.run: file.parent for file, members in read.items() for record in members}
    configs = {
        run: _config(folder / config.FILE)
        for run, folder in folders.items()
        if (folder / config.FILE).is_file()
    }
    cards = {name: card for file in read for name, card in _cards(_cards_of(file)).items()}
    return SavedRuns(path, tuple(read), every, folders, configs, _settings(every, configs), cards)


def _short(path: Path) -> str:
    """Write a path from the working directory: tables travel, and a machine's folders do not."""
    full = path.absolute()
    return (full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else path).as_posix()


def _cards_of(file: Path) -> Path:
    """Name the file of cards beside a record file: its own where it has one, else the run's."""
    own = file.with_name(f"{file.stem}-{CARDS}")
    return own if own.is_file() else file.with_name(CARDS)


def _config(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"the settings {file} cannot be read ({error}); "
            "remove the file, and the page goes without them"
        ) from None


def _cards(file: Path) -> dict[str, Mapping[str, str]]:
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
        _ = [card["better"] for card in found.values()]
        return found
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"the metric cards {file} cannot be read ({error}); "
            "score the run again, which writes them"
        ) from None


def _settings(every: Sequence[Record], configs: Mapping[str, str]) -> dict[str, str]:
    """Say of each run what was set in it and not alike in all runs of its method and sampler."""
    edits = [one for one in every if one.row not in REFERENCES and one.run in configs]
    told = {}
    for members in group_by(edits, lambda record: (record.method, record.sampler)).values():
        names = dict.fromkeys(one.run for one in members)
        runs = {run: dotted(yaml.safe_load(configs[run])) for run in names}
        settings = dict.fromkeys(name for flat in runs.values() for name in flat)
        varied = [name for name in settings if len({flat.get(name) for flat in runs.values()}) > 1]
        for run, flat in runs.items():
            said = [f"{name.rpartition('.')[2]}={_value(flat, name)}" for name in varied[:SHOWN]]
            told[run] = ", ".join(said)
    return told


def _value(flat: Mapping[str, str], name: str) -> str:
    """Follow a setting that only names another one, as stage.tuned names the model's stages."""
    value, seen = flat.get(name, ""), {name}
    while (named := NAMED.fullmatch(value)) and named[1] in flat and named[1] not in seen:
        seen.add(named[1])  # settings that name each other in a circle have no end
        value = flat[named[1]]
    return _short(Path(value)) if value.startswith("/") else value
