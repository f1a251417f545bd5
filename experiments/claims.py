"""What the scripts of claims share: a sweep's records are kept, tabulated with intervals over images, and asked whether the claim held.

A script is its header (Command, Claim, Expected, Minutes) and a call of `answer`. A group of records is named by what they have in common, as
"method=unitune,aligned=yes": settings of the sweep's cell, the edit's `method`, `sampler`, `weight` and `start`, its `kind`, `aligned` (yes, no) and `scope` (local,
global).
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from unitune import records
from unitune.figures.tables import unequal_threads
from unitune.records import Record
from unitune.statistics import Interval, by_image, check_budgets, interval, verdict
from unitune.types import Refused

RECORDS = Path(__file__).parent / "records"
SWEEPS = Path("outputs/experiments")  # as conf/experiment/quick.yaml has it
SEVERAL = {  # claims of more than one sweep
    "methods": ("methods", "methods_late_start"),
    "tradeoff": ("tradeoff_start", "tradeoff_weight", "tradeoff_mix"),
    "baselines": ("baselines", "baselines_late_start"),
}
SCOPES = dict.fromkeys(("restyle", "background", "time"), "global") | {"two": ""}  # of an edit by its kind, the others are local; two edits may be both
SCORES = {
    "success": "edit success (judge)", "alignment": "alignment (pocket CLIP)", "psnr_target": "PSNR to the exact target, dB", "psnr": "PSNR to the base image, dB",
    "stlpips": "ST-LPIPS to the base image", "mse_outside": "error outside the mask",
}  # fmt: skip
COSTS = {  # of tuning and of what is stored by image (of all its tunings, where each prompt needs its own), the others by edit
    "tuning_seconds": "tuning of an image, s",
    "optimizer_steps": "optimiser steps of an image",
    "tuning_evaluations": "network evaluations: tuning of an image",
    "seconds": "an edit, s",
    "evaluations": "network evaluations: an edit",
    "stored_bytes": "stored of an image, MB",
}
REFERENCE = "reference"

Records = Callable[[list[Record]], list[Record]]


@dataclass(frozen=True)
class Claim:
    """Something that is said of the records, and the number, by image or as an interval over so many images, that it says is above `above`."""

    says: str
    number: Callable[[Sequence[Record]], Mapping[str, float] | tuple[Interval, int]]
    above: float = 0.0

    def decided(self, found: Sequence[Record]) -> str:
        """Say whether it held, with the number behind that."""
        try:
            number = self.number(found)
        except Refused as refused:  # a cell of the sweep failed, or has not run
            return f"- {self.says}: **not asked** ({refused})"
        span, images = (interval(number), len(number)) if isinstance(number, Mapping) else number
        more = f" against {self.above:g}" if self.above else ""
        return f"- {self.says}: **{verdict(span, images=images, above=self.above)}** ({span}{more}; {images} image{'s' * (images != 1)})"


def traits(record: Record) -> dict[str, str]:
    """What a record can be named by: its cell's settings and its edit's nature."""
    cell = record.run.partition("/")[2]
    aligned = {True: "yes", False: "no", None: ""}[record.aligned]
    of_cell = dict(setting.partition("=")[::2] for setting in cell.split(",") if setting)
    dials = {"method": record.method, "sampler": record.sampler, "weight": f"{record.weight:g}", "start": f"{record.start:g}"}
    return {"kind": record.kind, "aligned": aligned, "scope": SCOPES.get(record.kind, "local")} | dials | of_cell


def matching(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits; reference rows only by their own, "reference=NAME": they have a weight and a start, too."""
    wanted = dict(trait.partition("=")[::2] for trait in name.split(","))
    return [record for record in found if wanted.items() <= traits(record).items() and (record.row == REFERENCE) == (REFERENCE in wanted)]


def group(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits; refuse a name that no record answers to."""
    if not (taken := matching(found, name)):
        raise Refused(f"no record has {name}; run the sweep to its end, or look at what its cells are called")
    return taken


def contrast(metric: str, terms: Mapping[str, float]) -> Callable[[Sequence[Record]], dict[str, float]]:
    """Make a weighted sum of a metric's means in named groups, by image: {"snapshot=64": 1, "snapshot=0": -1} is what 64 steps have more than none.

    Images that a group lacks (not every image has every kind of edit) are left out of all.
    """

    def number(found: Sequence[Record]) -> dict[str, float]:
        means = [by_image(group(found, name), metric) for name in terms]
        common = [image for image in means[0] if all(image in mean for mean in means)]
        return {image: sum(weight * mean[image] for weight, mean in zip(terms.values(), means, strict=True)) for image in common}

    return number


def swept(name: str, images: int) -> list[Record]:
    """Read a sweep's folder: every cell's edits under the run "name/cell", and the reference rows once."""
    folder = SWEEPS / f"{name}-{images}"
    kept, references = [], {}
    for record in records.merge(records.read(folder)) if any(folder.glob(f"*/{records.FILE}")) else ():
        placed = replace(record, run=f"{name}/{record.run}", image=f"{folder.name}/{record.run}/{record.image}")
        if record.row == REFERENCE:
            references.setdefault((record.method, record.example, record.prompt), replace(placed, run=f"{name}/{REFERENCE}={record.method}"))
        else:
            kept.append(placed)
    if not kept:
        raise Refused(
            f"no sweep in {folder}; make it: python run.py -m experiment={name} benchmark.limit={images}, or read the committed records: --from-records"
        )
    return [*kept, *references.values()]


def keep(found: Sequence[Record], file: Path) -> None:
    """Write records with five digits a number."""
    short = [
        replace(
            record,
            scores={k: None if v is None else float(f"{v:.5g}") for k, v in record.scores.items()},
            cost={k: float(f"{v:.5g}") for k, v in record.cost.items()},
        )
        for record in found
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    partial.write_text("".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in short), encoding="utf-8")
    partial.replace(file)


def table(found: Sequence[Record], rows: Mapping[str, str], *, scores: Mapping[str, str], costs: Mapping[str, str]) -> str:
    """Write one Markdown row for each named group, {label: group}: means with 95 % intervals over images; groups without records are left out.

    References follow the rows of the same edits: where groups have different ones, each kind of group has references of its own.
    """
    groups: dict[frozenset, dict[str, list[Record]]] = {}
    for label, name in rows.items():
        if members := matching(found, name):
            groups.setdefault(frozenset(map(_edit, members)), {})[label] = members
    lines = ["| |n|" + "|".join([*scores.values(), *costs.values()]) + "|", "|---" * (2 + len(scores) + len(costs)) + "|"]
    for edits, members in groups.items():
        of = " of these edits" if len(groups) > 1 else ""
        known = {name: {_edit(r): r for r in matching(found, f"{REFERENCE}={name}") if _edit(r) in edits} for name in ("copy of the base", "exact target")}
        members |= {f"{name}{of} (reference)": [*kept.values()] for name, kept in known.items() if kept}
        for label, own in members.items():
            spent = [_spent([record for record in own if cost in record.cost], cost) for cost in costs]
            lines.append(f"|{label}|{len(own)}|" + "|".join([*(_mean(own, metric) for metric in scores), *spent]) + "|")
    if any("seconds" in cost for cost in costs) and (said := unequal_threads(record for record in found if record.row != REFERENCE)):
        lines += ["", *said]
    return "\n".join(lines)


def _edit(record: Record) -> tuple[str, str]:
    return record.example, record.prompt


def _spent(members: Sequence[Record], cost: str) -> str:
    if not members:
        return "-"
    mean = records.tuning(members, cost) if cost in records.TUNING else math.fsum(member.cost[cost] for member in members) / len(members)
    return f"{mean / 1e6 if cost.endswith('bytes') else mean:.4g}"


def _mean(members: Sequence[Record], metric: str) -> str:
    applies = any(record.scores.get(metric) is not None for record in members)
    return str(interval(by_image(members, metric))) if applies else "-"


class Answered(NamedTuple):
    """What was read, and the folders of the sweeps that it was read from; none where it came from kept records."""

    found: list[Record]
    folders: list[Path]


def answer(
    doc: str | None, *, name: str, rows: Mapping[str, str], claims: Sequence[Claim], scores: Mapping[str, str] = SCORES,
    costs: Mapping[str, str] | None = None, add: Records = list, view: Records = list, more: Callable[[Sequence[Record]], str] | None = None,
) -> Answered:  # fmt: skip
    """Do what a script is called for: read its sweeps and keep the records, or read those that were kept; print the table and the verdicts.

    `add` adds to a sweep's records before they are kept; `view` makes what table and claims see of the kept ones; `more` is written below the claims.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2, help="how many images the sweep has (its benchmark.limit)")
    parser.add_argument("--from-records", type=Path, nargs="?", const=RECORDS / f"{name}.jsonl", metavar="FILE", help="read kept records instead of the sweep")
    options, title = parser.parse_args(), (doc or name).splitlines()[0]
    sweeps = SEVERAL.get(name, (name,)) if options.from_records is None else ()
    try:
        if sweeps:
            there = [sweep for sweep in sweeps if any((SWEEPS / f"{sweep}-{options.images}").glob(f"*/{records.FILE}"))]  # what did not run is not asked
            keep(add([record for sweep in there or sweeps for record in swept(sweep, options.images)]), RECORDS / f"{name}.jsonl")
            for cards in [file for sweep in there for file in sorted((SWEEPS / f"{sweep}-{options.images}").glob("*/cards.json"))][:1]:
                (RECORDS / f"{name}-cards.json").write_bytes(cards.read_bytes())  # what each score is, for the tables of make figures
        kept = records.read(options.from_records or RECORDS / f"{name}.jsonl")
        runs = {record.run: [] for record in kept if f"/{REFERENCE}=" not in record.run}
        budget = check_budgets({run: [record for record in kept if record.run == run] for run in runs})
        found = view(kept)
        print(f"## {title}\n\nEach cell of the sweep: {budget}.\n\n{table(found, rows, scores=scores, costs=costs or {})}\n")
        print(*(claim.decided(found) for claim in claims), sep="\n", end="\n\n")
        if more is not None:
            print(more(found), end="\n\n")
    except Refused as refused:
        raise SystemExit(f"{name}: {refused}") from None
    return Answered(found, [SWEEPS / f"{sweep}-{options.images}" for sweep in sweeps])
