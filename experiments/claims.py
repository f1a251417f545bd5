"""What the scripts of claims share: a sweep's records are kept, tabulated with intervals over images, and asked whether the claim held.

A script is its header (Command, Claim, Expected, Minutes) and a call of `answer`; contrasts.py says how groups of records are named and what decides a claim.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from contrasts import EDITING as EDITING
from contrasts import REFERENCE, Claim, matching
from contrasts import Contrast as Contrast
from contrasts import group as group
from contrasts import traits as traits

from unitune.metrics.statistics import check_budgets
from unitune.report.lines import asked
from unitune.report.tables import markdown, named
from unitune.storage import records
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

RECORDS = Path(__file__).parent / "records"
SWEEPS = Path("outputs/experiments")  # as conf/experiment/quick.yaml has it
# In the order of running: those that share a tuning stand together.
CLAIMS = (
    "ablation_steps", "guidance", "interpolation", "local_global", "addition", "aligned", "sdedit", "ablation_start", "prompt_guidance", "cost", "best_of_n",
    "stages", "frozen", "tuning_prompt", "ablation_lr", "methods", "tradeoff",
)  # fmt: skip
OWN_SIZE = {
    "first_edits": 8,
    "baselines": 6,
    "scenes_edits": 8,
}  # scripts beside the claims, and how many images their sweeps have
SEVERAL = {  # claims of more than one sweep
    "first_edits": ("first_edits", "first_edits_ceiling"),
    "methods": ("methods", "methods_late_start"),
    "tradeoff": ("tradeoff_start", "tradeoff_weight", "tradeoff_mix"),
    "baselines": ("baselines", "baselines_late_start"),
}
SCORES = {  # progress is told beside the success only: a blurred picture makes progress too
    "both": "edit success (judge)", "progress": "progress to the exact target inside the mask", "appear": "what was asked for appears (judge)",
    "stay": "the rest stays (judge)", "alignment": "alignment (pocket CLIP)", "mse_outside": "error outside the mask", "psnr": "PSNR to the base image, dB",
    "stlpips": "ST-LPIPS to the base image",
}  # fmt: skip
COSTS = {  # of tuning and of what is stored by image (of all its tunings, where each prompt needs its own), the others by edit
    "tuning s": "tuning of an image, s",
    "optimiser steps": "optimiser steps of an image",
    "tuning evaluations": "network evaluations: tuning of an image",
    "sampling s": "an edit, s",
    "sampling evaluations": "network evaluations: an edit",
    "stored MiB": "stored of an image, MiB",
}
Records = Callable[[list[Record]], list[Record]]


def recipe(name: str) -> str:
    """Write the command that makes a script's records."""
    sweeps = " && ".join(
        f"python run.py -m experiment={sweep}" for sweep in SEVERAL.get(name, (name,))
    )
    return f"{sweeps} && python experiments/{name}.py" + (
        f" --images {OWN_SIZE[name]}" if name in OWN_SIZE else ""
    )


def swept(name: str, images: int) -> list[Record]:
    """Read a sweep's folder: every cell's edits under the run "name/cell", and the reference rows once."""
    folder = SWEEPS / f"{name}-{images}"
    kept, references = [], {}
    for record in (
        records.merge(records.read(folder)) if any(folder.glob(f"*/{records.FILE}")) else ()
    ):
        placed = replace(
            record, run=f"{name}/{record.run}", image=f"{folder.name}/{record.run}/{record.image}"
        )
        if record.row in REFERENCES:
            references.setdefault(
                (record.row, *asked(record), record.seed),
                replace(placed, run=f"{name}/{REFERENCE}={record.row}"),
            )
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
    partial.write_text(
        "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in short),
        encoding="utf-8",
    )
    partial.replace(file)


def table(
    found: Sequence[Record],
    rows: Mapping[str, str],
    *,
    scores: Mapping[str, str],
    costs: Mapping[str, str],
) -> str:
    """Write one Markdown row for each named group, {label: group}, and its references; groups without records are left out."""
    groups = {label: members for label, name in rows.items() if (members := matching(found, name))}
    return markdown(
        named(
            groups,
            (record for record in found if record.row in REFERENCES),
            scores=scores,
            costs=costs,
        )
    ).rstrip()


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
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=2, help="how many images the sweep has (its benchmark.limit)"
    )
    parser.add_argument(
        "--from-records",
        type=Path,
        nargs="?",
        const=RECORDS / f"{name}.jsonl",
        metavar="FILE",
        help="read kept records instead of the sweep",
    )
    options, title = parser.parse_args(), (doc or name).splitlines()[0]
    sweeps = SEVERAL.get(name, (name,)) if options.from_records is None else ()
    try:
        if sweeps:
            there = [
                sweep
                for sweep in sweeps
                if any((SWEEPS / f"{sweep}-{options.images}").glob(f"*/{records.FILE}"))
            ]  # what did not run is not asked
            keep(
                add(
                    [record for sweep in there or sweeps for record in swept(sweep, options.images)]
                ),
                RECORDS / f"{name}.jsonl",
            )
            for cards in [
                file
                for sweep in there
                for file in sorted((SWEEPS / f"{sweep}-{options.images}").glob("*/cards.json"))
            ][:1]:
                (RECORDS / f"{name}-cards.json").write_bytes(
                    cards.read_bytes()
                )  # what each score is, for the tables of make figures
        kept = records.read(options.from_records or RECORDS / f"{name}.jsonl")
        runs = dict.fromkeys(record.run for record in kept if record.row not in REFERENCES)
        budget = check_budgets(
            {run: [record for record in kept if record.run == run] for run in runs}
        )
        found = view(kept)
        print(
            f"## {title}\n\nEach cell of the sweep: {budget}.\n\n{table(found, rows, scores=scores, costs=costs or {})}\n"
        )
        print(*(claim.decided(found) for claim in claims), sep="\n", end="\n\n")
        if more is not None:
            print(more(found), end="\n\n")
    except Refused as refused:
        raise SystemExit(f"{name}: {refused}") from None
    return Answered(found, [SWEEPS / f"{sweep}-{options.images}" for sweep in sweeps])
