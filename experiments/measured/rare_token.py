"""What pocket tunes on by default: the rare token or the description, on development scenes.

Command:  python experiments/measured/rare_token.py; --from-records prints the table again
Minutes:  12 of one core: 4 images are tuned on either text.

At 64 px. The rare token becomes the default if after tuning the empty prompt is at least 6 dB
further from the base image than the tuning prompt (unguided from pure noise, 16 steps, 4 seeds) and
its edit success (all facts, feasible edits, 4 seeds, the dials of model=pocket) is at most 0.05
below the description's. Every row is kept in experiments/records/rare_token.jsonl with the digests
of weights and judge.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean

from dial_runs import RECORDS, averages, bench, measured, read, write

from unitune.tuning import make
from unitune.tuning.visibility import SEPARATE, given_back

RECORD = RECORDS / "rare_token.jsonl"
TOKENS = {"rare": "token=beikkpic", "description": "token=description"}
SEEDS = 4
BELOW = 0.05  # by which the rare token's success may lie below the description's
AT = (
    "benchmark=development", "stage=base", "model.stages=[base]", "model.resolution=64",
    "budget=model",
)  # fmt: skip


def measure(token: str) -> list[dict]:
    """Tune every image on one kind of text; a row an image, with its scores and mean PSNRs."""
    overrides = [*AT, TOKENS[token]]
    rows, built = measured("unitune", overrides, [{}], seeds=SEEDS), bench("unitune", overrides)
    for row, example in zip(rows, built.examples, strict=True):
        tuned = make.prepare(built.method.recipe(example), built.model, example, store=built.store)
        prompt = tuned.about or tuned.prompt
        with built.model.using(tuned):
            told = [
                given_back(built.model, example, [prompt, ""], seed=seed) for seed in range(SEEDS)
            ]
        own, empty = (round(fmean(decibels), 3) for decibels in zip(*told, strict=True))
        row |= {"token": token, "prompt": prompt, "tuned_db": own, "empty_db": empty}
    return rows


def verdict(found: Sequence[dict]) -> tuple[str, list[str]]:
    """Return the text to tune on and the table."""
    cells = [
        "| token | PSNR of the tuning prompt, dB | of the empty prompt | apart "
        "| edit success (both) | error outside the mask | progress |",
        "|" + "---|" * 7,
    ]
    both, apart = {}, {}
    for token in TOKENS:
        members = [row for row in found if row["token"] == token]
        scores = averages(members)
        tuned, empty = (
            round(fmean(row[name] for row in members), 3) for name in ("tuned_db", "empty_db")
        )
        both[token], apart[token] = scores["both"], tuned - empty
        cells.append(
            f"| {token} | {tuned:.1f} | {empty:.1f} | {tuned - empty:.1f} | {scores['both']:.3f} "
            f"| {scores['outside']:.4f} | {scores['progress']:.3f} |"
        )
    rare = apart["rare"] >= SEPARATE and both["rare"] >= both["description"] - BELOW
    return "rare" if rare else "description", cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-records", action="store_true", help="print the kept rows")
    if not parser.parse_args().from_records:
        write([row for token in TOKENS for row in measure(token)], RECORD)
    default, cells = verdict(read(RECORD))
    print(*cells, f"\nby default: {default}", sep="\n")


if __name__ == "__main__":
    from unitune.models.compat import ensure_torchvision

    ensure_torchvision()
    main()
