"""Dials of every method on the embedded cascade, chosen alike: at 64 px, on scenes outside the benchmark, the same number of settings for each method.

Command:  python experiments/search_dials.py; any number of processes may run it side by side, and it goes on where it stopped
          python experiments/search_dials.py --from-records prints the choice again
Minutes:  written beside the choice, from the kept rows; two processes of one thread each are fastest on two cores (OMP_NUM_THREADS=1).

What the record holds for the shipped weights is not measured again: a grid that is moved costs its new settings only.
Of the settings whose mean squared error outside the mask is at most BOUND (pixels on [0, 1]) the one is chosen with the highest edit success (all facts, feasible
edits), of equal ones that with the smaller error. Every row is kept in experiments/records/dials.jsonl with the digest of the weights that it was measured with.
"""

import argparse
import itertools
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dial_runs import SCORES, WORK, Setting, digest, judged, measured
from filelock import FileLock, Timeout

RECORD = Path(__file__).parent / "records" / "dials.jsonl"
BOUND = 0.01
SNAPSHOTS, WEIGHTS = (32, 64, 128), (1, 1.5, 2, 3, 4, 5)
# Of each method the tuning's rate, and what is turned without tuning again; 54 settings each. A window whose best value was its end has been moved, and the
# rows of what lies outside it now are kept.
GRID: Mapping[str, Mapping[str, Sequence[float]]] = {
    "unitune": {
        "lr": (1.25e-4, 2.5e-4, 5e-4),
        "steps": SNAPSHOTS,
        "weight": (2, 4),
        "start": (0.85, 0.9, 0.95),
    },
    "untuned": {
        "weight": (2, 3, 4, 5, 7, 10),
        "start": (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    },
    "dreambooth": {"lr": (5e-4, 1e-3, 2e-3), "steps": SNAPSHOTS, "weight": WEIGHTS},
    "textual_inversion": {"word": (1e-2, 3e-2, 1e-1), "steps": SNAPSHOTS, "weight": WEIGHTS},
    "imagic": {"lr": (1.25e-4, 2.5e-4, 5e-4), "embedding_mix": (0.7, 1.0, 1.3), "weight": WEIGHTS},
}
LIMITS = {
    "steps": (0, 128),
    "start": (0, 1),
    "weight": (1, math.inf),
}  # the budget's, and those of the dials themselves
OVERRIDES = {"lr": "lr", "word": "method.embedding.lr"}


def settings(method: str) -> list[Setting]:
    """List every setting of a method."""
    return [
        dict(zip(GRID[method], values, strict=True))
        for values in itertools.product(*GRID[method].values())
    ]


def cells() -> Iterator[tuple[str, Setting]]:
    """List what is tuned and measured at once: a method at one rate."""
    for method, dials in GRID.items():
        rate = next((name for name in dials if name in OVERRIDES), None)
        yield from [(method, {rate: value}) for value in dials[rate]] if rate else [(method, {})]


def measure(
    method_name: str,
    rate: Setting,
    *,
    of: Sequence[str] = ("benchmark=development",),
    asked: Sequence[Setting] = (),
) -> list[dict]:
    """Tune every image of a benchmark at the rate, sample each of its settings (or those that are asked), and score: one row an image and setting."""
    overrides = [
        *of,
        "stage=base",
        "model.stages=[base]",
        "model.resolution=64",
        f"snapshots={list(SNAPSHOTS)}",
    ]
    overrides += [f"{OVERRIDES[name]}={value}" for name, value in rate.items()]
    asked = asked or [
        setting for setting in settings(method_name) if rate.items() <= setting.items()
    ]
    return measured(method_name, [*overrides, "budget=equal"], asked)


def search(todo: Mapping[str, Callable[[], list[dict]]], work: Path) -> list[dict]:
    """Measure the cells that nobody has measured or is measuring; return the rows of all that are there."""
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, cell in todo.items():
        file = work / f"{name}.jsonl"
        try:
            with FileLock(work / f"{name}.lock", timeout=0):
                if not file.exists():
                    print(f"measuring {name}", flush=True)
                    text = "".join(json.dumps(row) + "\n" for row in cell())
                    file.with_suffix(".part").write_text(text, encoding="utf-8")
                    os.replace(file.with_suffix(".part"), file)
        except Timeout:  # another process has it
            continue
        rows += lines(file)
    return rows


def ours(row: Mapping[str, Any]) -> bool:
    """Say whether a row is of the shipped weights, and was read by the shipped judge."""
    return row["weights"] == digest() and row.get("judge") == judged()


def kept(work: Path) -> list[dict]:
    """Read all rows of the shipped models: those of the record, and those measured since; each setting of an image once."""
    rows = lines(RECORD) + [row for file in sorted(work.glob("*.jsonl")) for row in lines(file)]
    return [
        *{
            json.dumps([row["method"], row["setting"], row["image"]]): row
            for row in rows
            if ours(row)
        }.values()
    ]


def through(rows: Sequence[dict]) -> list[dict]:
    """Take the rows of the methods whose every setting was measured."""
    found = table(rows)
    return [
        row for row in rows if len(found.get(row["method"], ())) == len(settings(row["method"]))
    ]


def missing(known: Sequence[dict], method: str, rate: Setting) -> list[Setting]:
    """List a cell's settings that no kept row is about; a method's settings at one rate share their tunings."""
    there = [row["setting"] for row in known if row["method"] == method]
    return [
        setting
        for setting in settings(method)
        if rate.items() <= setting.items() and setting not in there
    ]


def lines(file: Path) -> list[dict]:
    """Read the rows of a record; none where it is missing."""
    return (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if file.is_file()
        else []
    )


def read(file: Path, *, weights: str = "") -> list[dict]:
    """Read kept rows; those of other weights than the shipped ones (of the 64 px stage, unless `weights` names others) or another judge are refused."""
    if not file.is_file():
        raise SystemExit(
            refused(f"{file} is not there; make it: python experiments/search_dials.py")
        )
    rows = lines(file)
    for name, shipped in (("weights", weights or digest()), ("judge", judged())):
        if odd := next(
            (row.get(name) or "unknown" for row in rows if row.get(name) != shipped), None
        ):
            raise SystemExit(
                refused(
                    f"{file} was measured with the {name} {odd[:12]}, and {shipped[:12]} is shipped; measure again: python {sys.argv[0]}"
                )
            )
    return rows


def refused(why: str) -> int:
    """Say in one line why there is no answer; return the exit code of refused input."""
    print(f"search_dials: {why}", file=sys.stderr)
    return 2


def table(rows: Sequence[dict]) -> dict[str, list[tuple[Setting, dict[str, float]]]]:
    """Average over all feasible edits, by method and setting; errors over images."""
    found: dict[str, list[tuple[Setting, dict[str, float]]]] = {}
    for method in GRID:
        for setting in settings(method):
            members = [row for row in rows if row["method"] == method and row["setting"] == setting]
            if members:
                found.setdefault(method, []).append((setting, averages(members)))
    return found


def averages(members: Sequence[dict]) -> dict[str, float]:
    """Average the rows of one setting: shares over feasible edits, errors over images."""
    edits = sum(row["edits"] for row in members)
    shares = {
        name: sum(row[name] * row["edits"] for row in members if row["edits"]) / edits
        for name in SCORES[:3]
    }
    outside = [row["outside"] for row in members if row["outside"] is not None]
    progress = 1 - sum(row["inside"] for row in members) / sum(
        row["base_inside"] for row in members
    )
    return {
        **shares,
        "outside": math.fsum(outside) / len(outside),
        "progress": progress,
        "edits": edits,
    }


def chosen(
    found: Mapping[str, list[tuple[Setting, dict[str, float]]]], *, bound: float = BOUND
) -> dict[str, tuple[Setting, dict[str, float]]]:
    """Choose of each method the setting with the highest success within the bound; where none is within it, that with the smallest error."""
    choice = {}
    for method, members in found.items():
        within = [one for one in members if one[1]["outside"] <= bound] or [
            min(members, key=lambda one: one[1]["outside"])
        ]
        choice[method] = max(within, key=lambda one: (round(one[1]["both"], 6), -one[1]["outside"]))
    return choice


def at_ends(rows: Sequence[dict], method: str, setting: Setting) -> list[str]:
    """Name the dials beyond whose chosen value nothing was tried, in no window, and that is no limit of its own."""
    tried = [row["setting"] for row in rows if row["method"] == method]
    ends = []
    for name, chosen_value in setting.items():
        values = {other[name] for other in tried if name in other}
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if (
            len(values) > 1
            and chosen_value in (min(values), max(values))
            and low < chosen_value < high
        ):
            ends.append(name)
    return ends


def report(rows: Sequence[dict]) -> Iterator[str]:
    """Write the choice as a table."""
    found = table(through(rows))
    yield "| method | settings | ever tried | chosen | edit success (both) | appear | stay | error outside the mask | progress | an end of its range |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for method, (setting, scores) in chosen(found).items():
        dials = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        means = [
            f"{scores[name]:.3g}" for name in ("both", "appear", "stay", "outside", "progress")
        ]
        tried = len({json.dumps(row["setting"]) for row in rows if row["method"] == method})
        yield (
            "| "
            + " | ".join(
                [
                    method,
                    str(len(found[method])),
                    str(tried),
                    dials,
                    *means,
                    ", ".join(at_ends(rows, method, setting)) or "none",
                ]
            )
            + " |"
        )
    edits = next(iter(found.values()))[0][1]["edits"]
    minutes = sum(row["seconds"] for row in rows) / 60
    yield f"\n{edits:g} feasible edits of {len({row['image'] for row in rows})} images, one sample each; {minutes:.0f} minutes of one core in all."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="choose from the kept rows")
    if parser.parse_args().from_records:
        print(*report(read(RECORD)), sep="\n")
        return
    known = kept(WORK)
    todo = {}
    for method, rate in cells():
        if asked := missing(known, method, rate):
            number = zlib.crc32(
                json.dumps([asked, digest(), judged()]).encode()
            )  # a moved window, and other models, have files of their own
            name = "-".join(
                [method, *(f"{key}={value:g}" for key, value in rate.items()), f"{number:08x}"]
            )
            todo[name] = partial(measure, method, rate, asked=asked)
    search(todo, WORK)
    with FileLock(WORK / "record.lock"):
        rows = kept(WORK)
        RECORD.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if whole := through(rows):
        print(*report(whole), sep="\n")


if __name__ == "__main__":
    main()
