"""Asks an entry of the table: keeps its sweeps' records, tabulates them, tells what they decide."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitune.report.differences import check_budgets
from unitune.report.tables import named
from unitune.storage import records
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

from . import sweeps
from .contrasts import matching
from .table import ENTRIES, Entry


def table(
    found: Sequence[Record],
    rows: Mapping[str, str],
    *,
    scores: Mapping[str, str],
    costs: Mapping[str, str],
) -> str:
    """Write a Markdown row for each named group that has records, and its references."""
    groups = {label: members for label, name in rows.items() if (members := matching(found, name))}
    references = (record for record in found if record.row in REFERENCES)
    return named(groups, references, scores=scores, costs=costs).markdown().rstrip()


def collect(entry: Entry, images: int, file: Path) -> None:
    """Keep the records of an entry's sweeps and the cards of their scores."""
    there = [sweep for sweep in entry.sweeps if sweeps.ran(sweep, images)]  # no other one is asked
    found = [record for sweep in there or entry.sweeps for record in sweeps.swept(sweep, images)]
    sweeps.keep(entry.add(found), file)
    folders = [sweeps.folder(sweep, images) for sweep in there]
    cards = [card for folder in folders for card in sorted(folder.glob("*/cards.json"))]
    if cards:  # what each score is, for the tables of make figures
        file.with_name(f"{entry.name}-cards.json").write_bytes(cards[0].read_bytes())


def tell(entry: Entry, kept: list[Record]) -> list[Record]:
    """Print the table and the verdicts; return what they were made from."""
    runs: dict[str, list[Record]] = {}
    for record in kept:
        if record.row not in REFERENCES:
            runs.setdefault(record.run, []).append(record)
    budget = check_budgets(runs)
    found = entry.view(kept)
    rows = table(found, entry.rows, scores=entry.scores, costs=entry.costs)
    print(f"## {entry.title}\n\nEach cell of the sweep: {budget}.\n\n{rows}\n")
    print(*(claim.decided(found) for claim in entry.claims), sep="\n", end="\n\n")
    if entry.more is not None:
        print(entry.more(found), end="\n\n")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m experiments.claims", description=__doc__, formatter_class=form
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for entry in ENTRIES.values():
        about = {"help": entry.title.replace("%", "%%"), "description": entry.header}
        one = names.add_parser(entry.name, formatter_class=form, **about)
        one.add_argument(
            "--images",
            type=int,
            default=2,
            help="how many images the sweep has (its benchmark.limit)",
        )
        one.add_argument(
            "--from-records",
            type=Path,
            nargs="?",
            const=sweeps.RECORDS / f"{entry.name}.jsonl",
            metavar="FILE",
            help="read kept records instead of the sweep",
        )
    options = parser.parse_args(arguments)
    entry, file = ENTRIES[options.name], options.from_records
    try:
        if file is None:
            collect(entry, options.images, file := sweeps.RECORDS / f"{entry.name}.jsonl")
        found = tell(entry, records.read(file))
    except Refused as refused:
        raise SystemExit(f"{entry.name}: {refused}") from None
    if entry.masks and not options.from_records:
        from .masks import grid

        print(f"\nmasks: {grid(entry.name, found, entry.masks)}")
