"""Edit success against the error outside the mask on the first 24 scenes edits at 64 px, while the dials of UniTune and SDEdit are turned.

Command:  python experiments/fronts.py, again by --from-records; any number of processes may run it side by side, and it goes on where it stopped
Claim:    none of the paper's; ours: at SDEdit's success UniTune changes half as much, or less, of what must stay.
Expected: UniTune's front lies left of SDEdit's.
Minutes:  12 on two CPU cores.

18 settings of each, one sample an edit: UniTune's at the rate 2.5e-4. Errors are compared at each success that SDEdit's front reaches.
"""

import argparse
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from search_dials import BOUND, Setting, averages, digest, measure, read, search

KEPT = Path(__file__).parent / "records" / "fronts.jsonl"
WORK = Path("outputs/fronts")
OF = ("benchmark=scenes", "benchmark.limit=8")
RATE = {"lr": 2.5e-4}
UNITUNE = {"steps": (64, 128), "weight": (1.5, 2, 4), "start": (0.8, 0.85, 0.9)}
SDEDIT = {"weight": (2, 3, 4), "start": (0.4, 0.5, 0.55, 0.6, 0.7, 0.8)}


def asked() -> dict[str, tuple[Setting, list[Setting]]]:
    """List the 18 settings of each method."""
    found = {}
    for method, dials, first in (("unitune", UNITUNE, RATE), ("untuned", SDEDIT, {})):
        members = [
            first | dict(zip(dials, values, strict=True))
            for values in itertools.product(*dials.values())
        ]
        found[method] = (first, members)
    return found


def said(rows: Sequence[dict]) -> Iterator[str]:
    """Write both fronts, and where UniTune reaches SDEdit's success."""
    found: dict[str, list[tuple[Setting, dict[str, float]]]] = {}
    for method, (_, members) in asked().items():
        kept = [row for row in rows if row["method"] == method]
        found[method] = [
            (setting, averages([row for row in kept if row["setting"] == setting]))
            for setting in members
        ]
    yield "| method | setting on its front | edit success (both) | error outside the mask |"
    yield "|---|---|---|---|"
    for method, measured in found.items():
        for setting, scores in front(measured):
            dials = ", ".join(f"{name} {value:g}" for name, value in setting.items())
            yield f"| {method} | {dials} | {scores['both']:.3g} | {scores['outside']:.3g} |"
    bounded = {
        method: max((s["both"] for _, s in measured if s["outside"] <= BOUND), default=0.0)
        for method, measured in found.items()
    }
    yield f"\nWithin an error of {BOUND:g} the best success is {bounded['unitune']:.3g} for UniTune and {bounded['untuned']:.3g} for SDEdit."
    for _, theirs in front(found["untuned"]):
        if not theirs["both"]:
            continue
        reached = [
            scores["outside"]
            for _, scores in found["unitune"]
            if scores["both"] >= theirs["both"] - 1e-9
        ]
        where = f"At SDEdit's success of {theirs['both']:.3g} (error {theirs['outside']:.3g})"
        if reached:
            yield f"{where} UniTune's error is {min(reached):.3g}: {min(reached) / theirs['outside']:.2f} of it."
        else:
            yield f"{where} UniTune has no setting that succeeds as often."


def front(
    measured: Sequence[tuple[Setting, dict[str, float]]],
) -> list[tuple[Setting, dict[str, float]]]:
    """Keep the settings that no other one beats in both, the smallest error first."""
    kept: list[tuple[Setting, dict[str, float]]] = []
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
    for method, (rate, members) in asked().items():
        number = zlib.crc32(
            json.dumps([members, digest(), OF]).encode()
        )  # other weights or settings have files of their own
        todo[f"{method}-{number:08x}"] = partial(measure, method, rate, of=OF, asked=members)
    if len(rows := search(todo, WORK)) and len({row["method"] for row in rows}) == len(todo):
        KEPT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(*said(rows), sep="\n")


if __name__ == "__main__":
    main()
