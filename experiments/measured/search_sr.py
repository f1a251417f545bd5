"""Dials of the embedded cascade's super-resolution, chosen on UniTune alone, at 256 px.

Command:  python experiments/measured/search_sr.py; two processes may run it side by side, and it
          goes on where it stopped; with --from-records it prints the choice again
Minutes:  written beside the choice.

On the development scenes, with the dials of the 64 px stage as they are, and by the rule of
search_dials.py (the error outside the mask is of 256 px here). Every row is kept in
experiments/records/dials_sr.jsonl with the digest of the weights.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from dial_runs import RECORDS, WORK, Setting, averages, best, judged, measured, read, search, write
from search_dials import BOUND, number

from unitune.models.cascade import files_digest
from unitune.models.pocket import FOLDER as POCKET

RECORD = RECORDS / "dials_sr.jsonl"
GRID = {
    "sr_lr": (1.25e-4, 2.5e-4, 5e-4),
    "sr_start": (0.6, 0.8, 1.0),
    "noise_level": (0.02, 0.05, 0.15),
}


def settings() -> list[Setting]:
    """List every setting."""
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def weights() -> str:
    """Name the shipped weights of both stages."""
    return files_digest([POCKET / "base", POCKET / "sr256"])


def measure(rate: float) -> list[dict]:
    """Tune both stages at one rate of the second, and score its settings."""
    asked = [setting for setting in settings() if setting["sr_lr"] == rate]
    return measured("unitune", ["benchmark=development", f"sr_lr={rate}"], asked)


def report(rows: Sequence[dict]) -> Iterator[str]:
    """Write all settings as a table, the chosen one last."""
    yield (
        "| sr_lr | sr.start | noise_level | edit success (both) | error outside the mask "
        "| progress |"
    )
    yield "|---|---|---|---|---|---|"
    found = []
    for setting in settings():
        if members := [row for row in rows if row["setting"] == setting]:
            scores = averages(members)
            found.append((setting, scores))
            means = [f"{scores[name]:.4g}" for name in ("both", "outside", "progress")]
            yield "| " + " | ".join([*(f"{value:g}" for value in setting.values()), *means]) + " |"
    dials = ", ".join(f"{name} {value:g}" for name, value in best(found, bound=BOUND)[0].items())
    minutes = sum(row["seconds"] for row in rows) / 60
    yield f"\nchosen: {dials}; {minutes:.0f} minutes of one core in all."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="choose from the kept rows")
    if not parser.parse_args().from_records:
        own, rates = number(settings(), weights(), judged()), GRID["sr_lr"]
        todo = {f"sr-lr={rate:g}-{own}": partial(measure, rate) for rate in rates}
        rows = search(todo, WORK / "sr")
        if len({row["setting"]["sr_lr"] for row in rows}) < len(rates):
            return  # another process is at the rest
        write(rows, RECORD)
    print(*report(read(RECORD, weights=weights())), sep="\n")


if __name__ == "__main__":
    main()
