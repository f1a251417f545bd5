"""What pocket tunes on by default: the rare token or the description, on development scenes at 64 px.

Command:  python experiments/rare_token.py; --from-records prints the table again
Minutes:  12 of one core: 4 images are tuned on either text.

The rare token becomes the default if after tuning the empty prompt is at least 6 dB further from the base image than the tuning prompt (unguided from pure
noise, 16 steps, 4 seeds) and its edit success (all facts, feasible edits, 4 seeds, the dials of model=pocket) is at most 0.05 below the description's.
Every row is kept in experiments/records/rare_token.jsonl with the digests of weights and judge.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from dial_runs import bench, measured
from search_dials import averages, read

from unitune.tuning import make
from unitune.tuning.visibility import SEPARATE, given_back

RECORD = Path(__file__).parent / "records" / "rare_token.jsonl"
TOKENS = {"rare": "token=beikkpic", "description": "token=description"}
SEEDS = 4
BELOW = 0.05  # by which the rare token's success may lie below the description's
AT = (
    "benchmark=development",
    "stage=base",
    "model.stages=[base]",
    "model.resolution=64",
    "budget=model",
)


def measure(token: str) -> list[dict]:
    """Tune every image on one kind of text; a row an image, with its scores and its mean PSNRs."""
    overrides = [*AT, TOKENS[token]]
    rows, built = measured("unitune", overrides, [{}], seeds=SEEDS), bench("unitune", overrides)
    for row, example in zip(rows, built.examples, strict=True):
        tuned = make.prepare(built.method.recipe(example), built.model, example, store=built.store)
        with built.model.using(tuned):
            told = [
                given_back(built.model, example, [tuned.about or tuned.prompt, ""], seed=seed)
                for seed in range(SEEDS)
            ]
        row |= {
            "token": token,
            "prompt": tuned.about or tuned.prompt,
            "tuned_db": _mean([one[0] for one in told]),
            "empty_db": _mean([one[1] for one in told]),
        }
    return rows


def verdict(found: Sequence[dict]) -> tuple[str, list[str]]:
    """Return the text to tune on and the table."""
    cells = [
        "| token | PSNR of the tuning prompt, dB | of the empty prompt | apart | edit success (both) | error outside the mask | progress |",
        "|" + "---|" * 7,
    ]
    both, apart = {}, {}
    for token in TOKENS:
        members = [row for row in found if row["token"] == token]
        scores = averages(members)
        tuned, empty = (_mean([row[name] for row in members]) for name in ("tuned_db", "empty_db"))
        both[token], apart[token] = scores["both"], tuned - empty
        cells.append(
            f"| {token} | {tuned:.1f} | {empty:.1f} | {tuned - empty:.1f} | {scores['both']:.3f} | {scores['outside']:.4f} | {scores['progress']:.3f} |"
        )
    rare = apart["rare"] >= SEPARATE and both["rare"] >= both["description"] - BELOW
    return "rare" if rare else "description", cells


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="print the kept rows")
    if not parser.parse_args().from_records:
        rows = [row for token in TOKENS for row in measure(token)]
        RECORD.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    default, cells = verdict(read(RECORD))
    print(*cells, f"\nby default: {default}", sep="\n")


if __name__ == "__main__":
    from unitune.models.compat import ensure_torchvision

    ensure_torchvision()
    main()
