"""Dials of the embedded cascade's super-resolution, chosen on UniTune alone: on the development scenes, at 256 px, with the dials of its 64 px stage as they are.

Command:  python experiments/search_sr.py; two processes may run it side by side, and it goes on where it stopped
          python experiments/search_sr.py --from-records prints the choice again
Minutes:  written beside the choice.

The same rule as for the methods' dials: of the settings within the bound on the error outside the mask (here at 256 px) the one with the highest edit success,
of equal ones that with the smaller error. Every row is kept in experiments/records/dials_sr.jsonl with the digest of the weights.
"""

import argparse
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from dial_runs import WORK, Setting, judged, measured
from search_dials import BOUND, averages, read, search

from unitune.models.cascade import files_digest
from unitune.models.pocket import FOLDER as POCKET

RECORD = Path(__file__).parent / "records" / "dials_sr.jsonl"
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
    found = [
        (setting, averages(members))
        for setting in settings()
        if (members := [row for row in rows if row["setting"] == setting])
    ]
    yield "| sr_lr | sr.start | noise_level | edit success (both) | error outside the mask | progress |"
    yield "|---|---|---|---|---|---|"
    for setting, scores in found:
        cells = [f"{value:g}" for value in setting.values()] + [
            f"{scores[name]:.4g}" for name in ("both", "outside", "progress")
        ]
        yield "| " + " | ".join(cells) + " |"
    within = [one for one in found if one[1]["outside"] <= BOUND] or found
    best = max(within, key=lambda one: (round(one[1]["both"], 6), -one[1]["outside"]))
    yield f"\nchosen: {', '.join(f'{name} {value:g}' for name, value in best[0].items())}; {sum(row['seconds'] for row in rows) / 60:.0f} minutes of one core in all."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="choose from the kept rows")
    if not parser.parse_args().from_records:
        number = zlib.crc32(
            json.dumps([settings(), weights(), judged()]).encode()
        )  # other models and settings have files of their own
        rows = search(
            {f"sr-lr={rate:g}-{number:08x}": partial(measure, rate) for rate in GRID["sr_lr"]},
            WORK / "sr",
        )
        if len({row["setting"]["sr_lr"] for row in rows}) < len(
            GRID["sr_lr"]
        ):  # another process is at the rest
            return
        RECORD.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(*report(read(RECORD, weights=weights())), sep="\n")


if __name__ == "__main__":
    main()
