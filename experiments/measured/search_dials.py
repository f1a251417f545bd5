"""Dials of every method on the embedded cascade, chosen alike, on scenes outside the benchmark.

Command:  python experiments/measured/search_dials.py; any number of processes may run it side by
          side, and it goes on where it stopped; with --from-records it prints the choice again
Minutes:  written beside the choice, from the kept rows; two processes of one thread each are
          fastest on two cores (OMP_NUM_THREADS=1).

Every method has the same number of settings, at 64 px. What the record holds for the shipped
weights is not measured again: a grid that is moved costs its new settings only. Of the settings
whose mean squared error outside the mask is at most BOUND (pixels on [0, 1]) the one is chosen with
the highest edit success (all facts, feasible edits), of equal ones that with the smaller error.
Every row is kept in experiments/records/dials.jsonl with the digest of its weights.
"""

import argparse
import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dial_runs import (
    RECORDS,
    WORK,
    Measured,
    Setting,
    averages,
    best,
    digest,
    judged,
    lines,
    measured,
    read,
    search,
    write,
)  # fmt: skip
from filelock import FileLock

RECORD = RECORDS / "dials.jsonl"
BOUND = 0.01
SNAPSHOTS, WEIGHTS = (32, 64, 128), (1, 1.5, 2, 3, 4, 5)
# Of each method the tuning's rate, and what is turned without tuning again; 54 settings each. A
# window whose best value was its end has been moved, and rows of what lies outside it are kept.
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
# The budget's, and those of the dials themselves.
LIMITS = {"steps": (0, 128), "start": (0, 1), "weight": (1, math.inf)}
OVERRIDES = {"lr": "lr", "word": "method.embedding.lr"}


def settings(method: str) -> list[Setting]:
    """List every setting of a method."""
    dials = GRID[method]
    return [dict(zip(dials, values, strict=True)) for values in itertools.product(*dials.values())]


def cells() -> Iterator[tuple[str, Setting]]:
    """List what is tuned and measured at once: a method at one rate."""
    for method, dials in GRID.items():
        rate = next((name for name in dials if name in OVERRIDES), None)
        yield from [(method, {rate: value}) for value in dials[rate]] if rate else [(method, {})]


def measure(
    method: str,
    rate: Setting,
    *,
    asked: Sequence[Setting],
    of: Sequence[str] = ("benchmark=development",),
) -> list[dict]:
    """Tune every image of a benchmark at the rate, and score settings of that tuning."""
    overrides = [*of, "stage=base", "model.stages=[base]", "model.resolution=64", "budget=equal"]
    overrides += [f"snapshots={list(SNAPSHOTS)}"]
    overrides += [f"{OVERRIDES[name]}={value}" for name, value in rate.items()]
    return measured(method, overrides, asked)


def kept(work: Path) -> list[dict]:
    """Read all rows of the shipped models, each setting of an image once.

    They are those of the record, and those measured since.
    """
    rows = lines(RECORD) + [row for file in sorted(work.glob("*.jsonl")) for row in lines(file)]
    ours = [row for row in rows if (row["weights"], row.get("judge")) == (digest(), judged())]
    once = {json.dumps([row["method"], row["setting"], row["image"]]): row for row in ours}
    return list(once.values())


def through(rows: Sequence[dict]) -> list[dict]:
    """Take the rows of the methods whose every setting was measured."""
    found = table(rows)
    whole = {method for method in found if len(found[method]) == len(settings(method))}
    return [row for row in rows if row["method"] in whole]


def missing(known: Sequence[dict], method: str, rate: Setting) -> list[Setting]:
    """List a cell's settings that no kept row is about."""
    there = [row["setting"] for row in known if row["method"] == method]
    own = [setting for setting in settings(method) if rate.items() <= setting.items()]
    return [setting for setting in own if setting not in there]


def table(rows: Sequence[dict]) -> dict[str, Measured]:
    """Average by method and setting."""
    found: dict[str, Measured] = {}
    for method in GRID:
        own = [row for row in rows if row["method"] == method]
        for setting in settings(method):
            if members := [row for row in own if row["setting"] == setting]:
                found.setdefault(method, []).append((setting, averages(members)))
    return found


def chosen(found: Mapping[str, Measured]) -> dict[str, tuple[Setting, dict[str, float]]]:
    """Choose the setting of each method."""
    return {method: best(members, bound=BOUND) for method, members in found.items()}


def at_ends(rows: Sequence[dict], method: str, setting: Setting) -> list[str]:
    """Name the dials beyond whose chosen value nothing was tried.

    It was tried in no window, and the value is no limit of the dial's own.
    """
    tried = [row["setting"] for row in rows if row["method"] == method]
    ends = []
    for name, value in setting.items():
        values = {other[name] for other in tried if name in other}
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if len(values) > 1 and value in (min(values), max(values)) and low < value < high:
            ends.append(name)
    return ends


def report(rows: Sequence[dict]) -> Iterator[str]:
    """Write the choice as a table."""
    found = table(through(rows))
    yield (
        "| method | settings | ever tried | chosen | edit success (both) | appear | stay | "
        "error outside the mask | progress | an end of its range |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for method, (setting, scores) in chosen(found).items():
        dials = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        names = ("both", "appear", "stay", "outside", "progress")
        means = " | ".join(f"{scores[name]:.3g}" for name in names)
        tried = len({json.dumps(row["setting"]) for row in rows if row["method"] == method})
        ends = ", ".join(at_ends(rows, method, setting)) or "none"
        yield f"| {method} | {len(found[method])} | {tried} | {dials} | {means} | {ends} |"
    edits = next(iter(found.values()))[0][1]["edits"]
    images = len({row["image"] for row in rows})
    minutes = sum(row["seconds"] for row in rows) / 60
    yield (
        f"\n{edits:g} feasible edits of {images} images, one sample each; "
        f"{minutes:.0f} minutes of one core in all."
    )


def number(*of: Any) -> str:
    """Name a cell's file by what it is of: other models and a moved window have their own."""
    return f"{zlib.crc32(json.dumps([*of]).encode()):08x}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="choose from the kept rows")
    if parser.parse_args().from_records:
        print(*report(read(RECORD)), sep="\n")
        return
    known, todo = kept(WORK), {}
    for method, rate in cells():
        if asked := missing(known, method, rate):
            rates = [f"{key}={value:g}" for key, value in rate.items()]
            name = "-".join([method, *rates, number(asked, digest(), judged())])
            todo[name] = partial(measure, method, rate, asked=asked)
    search(todo, WORK)
    with FileLock(WORK / "record.lock"):
        rows = kept(WORK)
        write(rows, RECORD)
    if whole := through(rows):
        print(*report(whole), sep="\n")


if __name__ == "__main__":
    main()
