"""Sweeps of conf/experiment: their cells, the folders these lie in, the records kept of them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from unitune.report.groups import edit_of
from unitune.storage import records
from unitune.storage.files import write_whole
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

from .contrasts import REFERENCE

ROOT = Path(__file__).parent.parent.parent
RECORDS = ROOT / "experiments/records"
SWEEPS = Path("outputs/experiments")  # as conf/experiment/quick.yaml has it


def grid(sweep: str) -> dict[str, list[str]]:
    """Read the settings that a sweep varies."""
    conf = yaml.safe_load((ROOT / f"conf/experiment/{sweep}.yaml").read_text())
    params = conf["hydra"]["sweeper"]["params"]
    return {key: str(values).split(",") for key, values in params.items()}


def cells(sweep: str) -> list[dict[str, str]]:
    """List the cells of a sweep."""
    varied = grid(sweep)
    return [
        dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())
    ]


def label(cell: Mapping[str, str]) -> str:
    """Name a cell's folder, as Hydra's override_dirname does."""
    return ",".join(sorted(f"{key}={value}" for key, value in cell.items()))


def folder(sweep: str, images: int) -> Path:
    """Name the folder of a sweep."""
    return SWEEPS / f"{sweep}-{images}"


def ran(sweep: str, images: int) -> bool:
    """Whether a sweep has left records."""
    return any(folder(sweep, images).glob(f"*/{records.FILE}"))


def swept(sweep: str, images: int) -> list[Record]:
    """Read a sweep: every cell's edits under the run "sweep/cell", the reference rows once."""
    kept, references = [], {}
    place = folder(sweep, images)
    for record in records.merge(records.read(place)) if ran(sweep, images) else ():
        image = f"{place.name}/{record.run}/{record.image}"
        if record.row in REFERENCES:
            one = replace(record, run=f"{sweep}/{REFERENCE}={record.row}", image=image)
            references.setdefault((record.row, *edit_of(record), record.seed), one)
        else:
            kept.append(replace(record, run=f"{sweep}/{record.run}", image=image))
    if not kept:
        raise Refused(
            f"no sweep in {place}; make it: python run.py -m experiment={sweep} "
            f"benchmark.limit={images}, or read the committed records: --from-records"
        )
    return [*kept, *references.values()]


def keep(found: Sequence[Record], file: Path) -> None:
    """Write records with five digits a number."""
    lines = []
    for record in found:
        line = asdict(record)
        for numbers in (line["scores"], line["cost"]):
            for name, value in numbers.items():
                numbers[name] = None if value is None else float(f"{value:.5g}")
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole("".join(lines), file)
