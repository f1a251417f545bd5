"""Edit success against the error outside the mask on the first 24 scenes edits at 64 px, while the dials of UniTune and SDEdit are turned.

Command:  python experiments/fronts.py, again by --from-records; any number of processes may run it side by side, and it goes on where it stopped
Claim:    none of the paper's; ours: at SDEdit's success UniTune changes half as much, or less, of what must stay.
Expected: UniTune's front lies left of SDEdit's.
Minutes:  12 on two CPU cores, after the tunings of first_edits.

18 settings of each, one sample an edit: UniTune's at the rate that experiments/search_dials.py chose. SDEdit's success is that of its chosen setting.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from search_dials import BOUND, RECORD, Setting, averages, chosen, measure, read, search, settings, table

KEPT = Path(__file__).parent / "records" / "fronts.jsonl"
WORK = Path("outputs/fronts")
OF = ("benchmark=scenes", "benchmark.limit=8")
SDEDIT = {"weight": (2, 3, 5), "start": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9)}


def asked() -> dict[str, tuple[Setting, list[Setting]]]:
    """List the settings of each method: UniTune's at its chosen rate, SDEdit's 18 and, beside them, its chosen one."""
    choice = chosen(table(read(RECORD)))
    rate = {"lr": choice["unitune"][0]["lr"]}
    ours = [setting for setting in settings("unitune") if rate.items() <= setting.items()]
    theirs = [setting for setting in settings("untuned") if all(setting[name] in values for name, values in SDEDIT.items())]
    return {"unitune": (rate, ours), "untuned": ({}, theirs + [s for s in [choice["untuned"][0]] if s not in theirs])}


def said(rows: Sequence[dict]) -> Iterator[str]:
    """Write both fronts, and where UniTune reaches SDEdit's success."""
    found: Mapping[str, list[tuple[Setting, dict[str, float]]]] = {
        method: [(setting, averages([row for row in rows if row["method"] == method and row["setting"] == setting])) for setting in members]
        for method, (_, members) in asked().items()
    }
    yield "| method | setting on its front | edit success (both) | error outside the mask |"
    yield "|---|---|---|---|"
    for method, measured in found.items():
        for setting, scores in front(measured):
            dials = ", ".join(f"{name} {value:g}" for name, value in setting.items())
            yield f"| {method} | {dials} | {scores['both']:.3g} | {scores['outside']:.3g} |"
    choice = chosen(table(read(RECORD)))["untuned"][0]
    theirs = next(scores for setting, scores in found["untuned"] if setting == choice)
    reached = [scores["outside"] for _, scores in found["unitune"] if scores["both"] >= theirs["both"] - 1e-9]
    bounded = {method: max((s["both"] for _, s in measured if s["outside"] <= BOUND), default=0.0) for method, measured in found.items()}
    yield f"\nWithin an error of {BOUND:g} the best success is {bounded['unitune']:.3g} for UniTune and {bounded['untuned']:.3g} for SDEdit."
    if reached:
        ratio = min(reached) / theirs["outside"]
        yield f"At SDEdit's success of {theirs['both']:.3g} (error {theirs['outside']:.3g}) UniTune's error is {min(reached):.3g}: {ratio:.2f} of it."
    else:
        yield f"No setting of UniTune reaches SDEdit's success of {theirs['both']:.3g}."


def front(measured: Sequence[tuple[Setting, dict[str, float]]]) -> list[tuple[Setting, dict[str, float]]]:
    """Keep the settings that no other one beats in both, the smallest error first."""
    kept: list[tuple[Setting, dict[str, float]]] = []
    for one in sorted(measured, key=lambda one: (one[1]["outside"], -one[1]["both"])):
        if not kept or one[1]["both"] > kept[-1][1]["both"]:
            kept.append(one)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-records", action="store_true", help="read the kept rows")
    if parser.parse_args().from_records:
        print(*said(read(KEPT)), sep="\n")
        return
    todo = {method: partial(measure, method, rate, of=OF, asked=members) for method, (rate, members) in asked().items()}
    if len(rows := search(todo, WORK)) and {row["method"] for row in rows} == set(todo):
        KEPT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(*said(rows), sep="\n")


if __name__ == "__main__":
    main()
