"""What tables, figures and reports read: records with the settings and metric cards that stand beside them, so that every number leads back to these."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from unitune.report.tables import Cards
from unitune.storage import records
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

CARDS, CONFIG = "cards.json", "config.yaml"
SHOWN = 6  # settings that a label names
NAMED = re.compile(r"\$\{([\w.]+)\}")  # of one setting to another, in a run's config.yaml


@dataclass(frozen=True)
class Source:
    """Records from a record file, a run's folder or a folder of runs; folders and settings by the name of the run."""

    path: Path
    files: tuple[Path, ...]
    records: tuple[Record, ...]
    folders: Mapping[str, Path]
    configs: Mapping[str, str]
    settings: Mapping[str, str]
    cards: Cards

    @property
    def provenance(self) -> tuple[str, ...]:
        """Say where a reader finds the record, the settings, the pictures and the metric card behind a number."""
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in self.files)).hexdigest()[:12]
        many = (
            f"{len(self.files)} files {records.FILE} below {_short(self.path)}"
            if len(self.files) > 1
            else _short(*self.files)
        )
        beside = f"beside it: {CONFIG} (the settings), {CARDS} (what each number is) and the pictures that the field `image` names"
        if not self.configs:  # records kept without their run
            beside = (
                f"what each number is stands in {next(map(_cards_of, self.files)).name} beside it"
                if self.cards
                else "their runs' folders are not kept with them"
            )
        return (
            f"Records: {many} (sha256 {digest}); the column `run` is the field of that name; {beside}.",
        )


def _short(path: Path) -> str:
    """Write a path as seen from the working directory where it lies below that: tables travel, and a machine's folders do not."""
    full = path.absolute()
    return (full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else path).as_posix()


def load(path: Path | str) -> Source:
    """Read records and what stands beside them. Raises Refused where there are none, or where they are not of this version."""
    path = Path(path)
    read = records.by_file(path)
    every = tuple(record for members in read.values() for record in members)
    if not every:
        raise Refused(f"{path} holds no record; name the folder of a finished run or sweep")
    folders = {record.run: file.parent for file, members in read.items() for record in members}
    configs = {
        run: (folder / CONFIG).read_text(encoding="utf-8")
        for run, folder in folders.items()
        if (folder / CONFIG).is_file()
    }
    cards: dict[str, Mapping[str, str]] = {}
    for file in read:
        if (beside := _cards_of(file)).is_file():
            cards |= _cards(beside)
    return Source(path, tuple(read), every, folders, configs, _settings(every, configs), cards)


def _cards_of(file: Path) -> Path:
    """Name the file of cards beside a record file: its own where it has one, else the run's."""
    own = file.with_name(f"{file.stem}-{CARDS}")
    return own if own.is_file() else file.with_name(CARDS)


def _cards(file: Path) -> dict[str, Mapping[str, str]]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise Refused(
            f"the metric cards {file} cannot be read ({error}); score the run again, which writes them"
        ) from None


def _settings(every: tuple[Record, ...], configs: Mapping[str, str]) -> dict[str, str]:
    """Say of each run what was set in it and not alike in all runs of its method and sampler."""
    groups: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for record in every:
        if record.row not in REFERENCES and record.run in configs:
            groups.setdefault((record.method, record.sampler), {})[record.run] = {}
    for runs in groups.values():
        for run in runs:
            runs[run] = dict(_flat(yaml.safe_load(configs[run])))
    told = {}
    for runs in groups.values():
        names = dict.fromkeys(name for flat in runs.values() for name in flat)
        varied = [name for name in names if len({flat.get(name) for flat in runs.values()}) > 1]
        told |= {
            run: ", ".join(
                f"{name.rpartition('.')[2]}={_value(flat, name)}" for name in varied[:SHOWN]
            )
            for run, flat in runs.items()
        }
    return told


def _value(flat: Mapping[str, str], name: str) -> str:
    """Follow a setting that only names another one, as stage.tuned names the model's stages."""
    value, seen = flat.get(name, ""), {name}
    while (named := NAMED.fullmatch(value)) and named[1] in flat and named[1] not in seen:
        seen.add(named[1])
        value = flat[named[1]]
    return value


def _flat(tree: object, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for name, child in tree.items():
            yield from _flat(child, f"{where}.{name}" if where else str(name))
    else:
        yield where, str(tree)
