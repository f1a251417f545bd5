"""Edit success against the error outside the mask, while dials of UniTune and SDEdit are turned.

Command:  python experiments/measured/fronts.py, again by --from-records; any number of processes
          may run it side by side, and it goes on where it stopped
Claim:    none of the paper's; ours: at SDEdit's success UniTune changes half as much, or less, of
          what must stay.
Expected: UniTune's front lies left of SDEdit's.
Minutes:  12 on two CPU cores.

On the first 24 scenes edits at 64 px, 18 settings of each, one sample an edit: UniTune's at the
rate 2.5e-4. Errors are compared at each success that SDEdit's front reaches.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from dial_runs import RECORDS, Measured, Setting, averages, digest, read, search, write
from search_dials import BOUND, measure, number

KEPT = RECORDS / "fronts.jsonl"
WORK = Path("outputs/fronts")
OF = ("benchmark=scenes", "benchmark.limit=8")
RATE = {"unitune": {"lr": 2.5e-4}, "untuned": {}}
DIALS = {
    "unitune": {"steps": (64, 128), "weight": (1.5, 2, 4), "start": (0.8, 0.85, 0.9)},
    "untuned": {"weight": (2, 3, 4), "start": (0.4, 0.5, 0.55, 0.6, 0.7, 0.8)},
}


def asked(method: str) -> list[Setting]:
    """List the 18 settings of a method."""
    dials = DIALS[method]
    combined = itertools.product(*dials.values())
    return [RATE[method] | dict(zip(dials, values, strict=True)) for values in combined]


def said(rows: Sequence[dict]) -> Iterator[str]:
    """Write both fronts, and where UniTune reaches SDEdit's success."""
    found: dict[str, Measured] = {}
    for method in DIALS:
        own = [row for row in rows if row["method"] == method]
        found[method] = [
            (setting, averages([row for row in own if row["setting"] == setting]))
            for setting in asked(method)
        ]
    yield "| method | setting on its front | edit success (both) | error outside the mask |"
    yield "|---|---|---|---|"
    for method, measured in found.items():
        for setting, scores in front(measured):
            dials = ", ".join(f"{name} {value:g}" for name, value in setting.items())
            yield f"| {method} | {dials} | {scores['both']:.3g} | {scores['outside']:.3g} |"
    ours, theirs = (
        max((s["both"] for _, s in found[method] if s["outside"] <= BOUND), default=0.0)
        for method in ("unitune", "untuned")
    )
    yield (
        f"\nWithin an error of {BOUND:g} the best success is {ours:.3g} for UniTune "
        f"and {theirs:.3g} for SDEdit."
    )
    for _, other in front(found["untuned"]):
        success, error = other["both"], other["outside"]
        if not success:
            continue
        reached = [s["outside"] for _, s in found["unitune"] if s["both"] >= success - 1e-9]
        where = f"At SDEdit's success of {success:.3g} (error {error:.3g})"
        if reached:
            least = min(reached)
            yield f"{where} UniTune's error is {least:.3g}: {least / error:.2f} of it."
        else:
            yield f"{where} UniTune has no setting that succeeds as often."


def front(measured: Measured) -> Measured:
    """Keep the settings that no other one beats in both, the smallest error first."""
    kept: Measured = []
    for one in sorted(measured, key=lambda one: (one[1]["outside"], -one[1]["both"])):
        if not kept or one[1]["both"] > kept[-1][1]["both"]:
            kept.append(one)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="read the kept rows")
    if parser.parse_args().from_records:
        print(*said(read(KEPT)), sep="\n")
        return
    todo = {}
    for method, rate in RATE.items():
        members = asked(method)
        cell = partial(measure, method, rate, of=OF, asked=members)
        todo[f"{method}-{number(members, digest(), OF)}"] = cell
    rows = search(todo, WORK)
    if len({row["method"] for row in rows}) == len(todo):
        write(rows, KEPT)
        print(*said(rows), sep="\n")


if __name__ == "__main__":
    main()
