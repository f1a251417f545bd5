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


def markdown_table(
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
    ran = [sweep for sweep in entry.sweeps if sweeps.ran(sweep, images)]
    asked = ran or entry.sweeps  # where none has run, reading one says how to run it
    found = [record for sweep in asked for record in sweeps.swept(sweep, images)]
    sweeps.keep(entry.add(found), file)
    for sweep in ran:  # what each score is, for the tables of make figures
        for card in sorted(sweeps.folder(sweep, images).glob("*/cards.json")):
            file.with_name(f"{entry.name}-cards.json").write_bytes(card.read_bytes())
            return


def tell(entry: Entry, kept: list[Record]) -> list[Record]:
    """Print the table and the verdicts; return what they were made from."""
    runs: dict[str, list[Record]] = {}
    for record in kept:
        if record.row not in REFERENCES:
            runs.setdefault(record.run, []).append(record)
    budget = check_budgets(runs)
    found = entry.view(kept)
    rows = markdown_table(found, entry.rows, scores=entry.scores, costs=entry.costs)
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
        title = entry.title.replace("%", "%%")
        one = names.add_parser(
            entry.name, formatter_class=form, help=title, description=entry.header
        )
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
    entry = ENTRIES[options.name]
    file = options.from_records or sweeps.RECORDS / f"{entry.name}.jsonl"
    try:
        if options.from_records is None:
            collect(entry, options.images, file)
        found = tell(entry, records.read(file))
    except Refused as refused:
        raise SystemExit(f"{entry.name}: {refused}") from None
    if entry.masks and not options.from_records:
        from .masks import grid

        print(f"\nmasks: {grid(entry.name, found, entry.masks)}")
