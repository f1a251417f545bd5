"""Records: a line of scores.jsonl is one edit with its settings, its scores and what it cost.

Tables and plots take their numbers from nothing else.
"""

import dataclasses
import importlib.metadata
import json
import logging
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, get_origin

import torch

from unitune.errors import Refused
from unitune.storage import disk

FILE = "scores.jsonl"
TUNINGS = "tunings.jsonl"  # beside it: how well each tuning's prompt is told from others
VERSION = 3  # of a line's fields; raised when a field changes its meaning
REFERENCES: Mapping[str, str] = {  # rows that edits are compared with, and how tables call them
    "copy": "copy of the base",
    "target": "exact target",
    "copy through super-resolution": "copy through 64 px and super-resolution",
    "target through super-resolution": "target through 64 px and super-resolution",
    "oracle": "oracle: untuned, the target's text, from pure noise",
}
# Edits as planned; those drawn in place of rejected ones; the chosen ones, once more; references.
ROWS = ("edit", "redrawn", "selected", *REFERENCES)
TUNING_COSTS: Mapping[str, str] = {  # what a tuning took: in a record's cost, and in Cost
    "tuning_seconds": "seconds",
    "tuning_peak_mib": "peak_mib",
    "optimizer_steps": "optimizer_steps",
    "tuning_evaluations": "network_evaluations",
    "stored_bytes": "stored_bytes",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One edit, or one reference that tables compare edits with, as `row` says."""

    run: str
    method: str  # "" of a reference that no model made
    sampler: str
    model: str
    example: str
    kind: str
    local: bool | None  # less than half of the picture may change
    composed_alike: bool | None  # the objects of the base keep place and outline
    prompt: str
    text: str  # the whole text that was sampled
    seed: int
    weight: float
    start: float
    steps: int  # tuning steps used
    image: str  # PNG file, relative to the folder of the record file
    scores: dict[str, float | None]  # None: the metric does not apply
    cost: dict[str, float]
    environment: dict[str, object]
    row: str = "edit"
    saw_mask: str = ""  # source of the mask that sampling was given; "file" knows the right answer
    version: int = VERSION

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            expected = dict if get_origin(spec.type) is dict else spec.type
            allowed: Any = (int, float) if expected is float else expected
            if not isinstance(value, allowed):
                raise ValueError(f"{spec.name} of a record is {value!r}, not {expected}")
        for name, score in self.scores.items():
            if score is not None and not isinstance(score, int | float):
                raise ValueError(
                    f"score {name!r} of a record is {score!r}; "
                    "it must be a number, or null where the metric does not apply"
                )
        if self.row not in ROWS:
            raise ValueError(f"row of a record is {self.row!r}, not one of {', '.join(ROWS)}")
        if PurePath(self.image).is_absolute() or ".." in PurePath(self.image).parts:
            raise ValueError(
                f"image of a record is {self.image!r}; "
                "it must be relative to the record file and below it"
            )


def line(record: Record) -> str:
    """Write a record as a line of a record file.

    A score that is NaN is stored as null; an infinite number raises ValueError.
    """
    scores: dict[str, float | None] = {}
    for name, value in record.scores.items():
        if value is not None and math.isinf(value):
            raise ValueError(
                f"score {name!r} is infinite: "
                "a metric must return a finite number, or NaN where it does not apply"
            )
        scores[name] = None if value is None or math.isnan(value) else float(value)
    data = {**dataclasses.asdict(record), "scores": scores}
    return json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"


def append(path: Path | str, record: Record) -> None:
    """Add one line to a record file, on disk when this returns."""
    data = line(record).encode("utf-8", "surrogatepass")
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A process was killed within its line: that one is lost, not this one.
                data = data if file.read(1) == b"\n" else b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise disk.explained(error) from error


def folders(path: Path | str) -> list[Path]:
    """List the folders with a record file at and below a folder; itself where there is none."""
    return sorted({file.parent for file in Path(path).rglob(FILE)}) or [Path(path)]


def read(path: Path | str) -> list[Record]:
    """Read a record file, or every scores.jsonl below a folder in the order of their names.

    `by_file` says what the field `run` is then. A line that a killed process left half-written is
    skipped with a warning; a field that is unknown, missing or of another type raises Refused.
    """
    return [record for members in by_file(path).values() for record in members]


def by_file(path: Path | str) -> dict[Path, list[Record]]:
    """Read record files, each apart.

    `run` of what lies below the folder is the way there: cells of two sweeps have equal names.
    """
    path = Path(path)
    files = sorted(path.rglob(FILE)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise Refused(f"{path} holds no {FILE}; name a record file or the folder of a run")
    found = {}
    for file in files:
        found[file] = _read_file(file)
        if path not in (file, file.parent):
            found[file] = _placed(found[file], file.parent.relative_to(path))
    return found


def _placed(found: list[Record], way: PurePath) -> list[Record]:
    # Records that were kept without their runs' folders are of several runs.
    several = len({record.run for record in found}) > 1
    return [
        dataclasses.replace(record, run=(way / record.run if several else way).as_posix())
        for record in found
    ]


def merge(records: Iterable[Record]) -> list[Record]:
    """Join the records of one edit.

    Scoring again appends a line for it, whose scores add to the earlier ones or replace them.
    """
    edits: dict[tuple[object, ...], Record] = {}
    for record in records:
        identity = tuple(
            getattr(record, spec.name)
            for spec in dataclasses.fields(record)
            if spec.name not in ("scores", "cost", "environment")
        )
        earlier = edits.get(identity, record)
        edits[identity] = dataclasses.replace(earlier, scores={**earlier.scores, **record.scores})
    return list(edits.values())


def tuning_cost(found: Sequence[Record], name: str) -> float:
    """Average over images what their tuning took, by a name in TUNING_COSTS.

    An image has one tuning, or one for each prompt, which are added. Records of one tuning are
    those with equal costs, to the last digit of its seconds. Raises KeyError where one lacks them.
    """
    images: dict[tuple[str, str], dict[tuple[float | None, ...], float]] = {}
    for record in found:
        of_tuning = tuple(map(record.cost.get, TUNING_COSTS))
        images.setdefault((record.run, record.example), {})[of_tuning] = record.cost[name]
    return math.fsum(math.fsum(tunings.values()) for tunings in images.values()) / len(images)


def environment(
    *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, object]:
    """Describe what may change a number: versions, device, threads, the networks' precision."""
    device = torch.device(device)
    name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return {
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
        "device": f"{device}{name}",
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
    }


def _read_file(file: Path) -> list[Record]:
    records = []
    for number, text in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        where = f"{file} line {number}"
        try:
            # NaN and Infinity are no JSON: as words they are refused by Record.
            data = json.loads(text, parse_constant=str)
        except ValueError:  # cut within a number, a string or a letter
            log.warning("%s is half-written: skipped", where)
            continue
        if not isinstance(data, dict):
            raise Refused(f"{where} is not a record")
        _check_fields(data, where)
        try:
            records.append(Record(**data))
        except (TypeError, ValueError) as error:
            raise Refused(f"{where} is not a record: {error}") from error
    return records


def _check_fields(data: dict[str, object], where: str) -> None:
    """Refuse a line that another version of this program wrote."""
    again = "score or run it again with this version"
    version = data.get("version", VERSION)
    if version != VERSION:
        raise Refused(
            f"{where} is of version {version!r}, and this program reads version {VERSION}; {again}"
        )
    fields = {spec.name: spec.default for spec in dataclasses.fields(Record)}
    if unknown := sorted(set(data) - set(fields)):
        known = ", ".join(sorted(fields))
        raise Refused(f"{where} has the unknown field {unknown[0]!r}; known: {known}")
    for name, default in fields.items():
        if default is dataclasses.MISSING and name not in data:
            lacks = f"{where} lacks the field {name!r}"
            raise Refused(f"{lacks}, so it is no record of version {VERSION}; {again}")
