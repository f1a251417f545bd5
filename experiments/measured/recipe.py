"""The recipe of the embedded 64 px stage: each row goes on from equal weights for 20 minutes.

Command:  python experiments/measured/recipe.py START [ROW ...]; START holds base/ and text/; two
          processes may share the rows (pin each to a core: taskset -c 0); with --from-records it
          prints the table again
Minutes:  25 a row on one core: 20 of training at 32 px (the processes that draw scenes among them),
          then looks at unseen scenes and four tunings. The row whose rate falls to 0 ends at 35,000
          pictures, about as many as 20 minutes see.

Columns: pictures; mean squared error of x_0 in objects, estimated in one step at t = 900 / 700 /
500; what the judge finds in samples of unseen captions; and what a UniTune tuning leaves of the
text (change of x_0 by an edit prompt at start 0.95, tuned over untuned, mean of 12 ratios of 4
images, with the loss and the rate of what ships; at least 0.6 is asked).
Writes experiments/records/recipe.jsonl.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "experiments/records/recipe.jsonl"
WORK = Path("outputs/recipe")
MINUTES = 20
PHASE = "phases=[{{resolution: 32, batch_size: {batch}, samples: {samples}}}]"
USUAL = PHASE.format(batch=32, samples=10_000_000)
ROWS = {
    "AdamW 5e-4, batch 32, plain v, head 0.1": [],
    "batch 16": [PHASE.format(batch=16, samples=10_000_000)],
    "min-SNR 5": ["weighting=min_snr"],
    "no head": ["auxiliary=0.0"],
    "Muon 1e-3": ["optimizer=muon", "lr=1e-3"],
    "learning rate to 0": ["cooldown=35000", PHASE.format(batch=32, samples=35_000)],
}
COLUMNS = (
    "samples", "objects_900", "objects_700", "objects_500", "single", "pair", "colours", "place",
    "count", "kept",
)  # fmt: skip


def options(name: str, start: Path, judge: Path) -> list[str]:
    """List the options of a row's training."""
    return [
        f"start={start}", f"text={start}", f"judge={judge}", f"folder={folder(name)}",
        f"minutes={MINUTES}", "threads=1", "device=cpu", "minutes_look=1000", USUAL, *ROWS[name],
    ]  # fmt: skip


def folder(name: str) -> Path:
    """Name the folder that a row is trained in."""
    return WORK / name.replace(" ", "_").replace(",", "")


def train(name: str, asked: list[str]) -> dict:
    """Train a row from its start; the trainer looks at unseen scenes when its minutes are over."""
    # A row that was cut off would train longer than the others.
    shutil.rmtree(folder(name), ignore_errors=True)
    subprocess.run([sys.executable, "-m", "unitune_lab", "base", *asked], check=True)
    return {"row": name, **lines(folder(name) / "base" / "curve.jsonl")[-1]}


def kept(name: str, asked: list[str]) -> float:
    """Tune the row's mean weights as UniTune does and measure what they keep of the text."""
    from unitune_lab.kept import text_kept
    from unitune_lab.make import build, go_on
    from unitune_lab.options import read

    trained = build("base", read("base", asked))
    go_on("base", trained, folder(name))
    return text_kept(trained, trained.network, resolution=32)


def measure(name: str, file: Path, asked: list[str]) -> None:
    """Make what a row lacks yet: its training, then its tunings."""
    row = json.loads(file.read_text(encoding="utf-8")) if file.exists() else train(name, asked)
    file.write_text(json.dumps(row), encoding="utf-8")
    if "kept" not in row:
        file.write_text(json.dumps(row | {"kept": kept(name, asked)}), encoding="utf-8")


def lines(file: Path) -> list[dict]:
    """Read JSON, one a line; nothing where the file is missing."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def recorded() -> list[dict]:
    """Read the rows of the record and those that were measured since."""
    new = [row for name in ROWS for row in lines(WORK / f"{name}.json")]
    rows = {row["row"]: row for row in [*lines(RECORD), *new]}
    return [rows[name] for name in ROWS if name in rows]


def table(rows: list[dict]) -> str:
    """Write the rows as Markdown."""
    text = ["| row | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 1)]
    for row in rows:
        cells = [f"{row[c]:.3f}" if c in row else "" for c in COLUMNS[1:]]
        text.append(f"| {row['row']} | {row['samples']:,} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    judge, known = ROOT / "src/unitune/assets/pocket", "; ".join(ROWS)
    parser.add_argument("start", type=Path, nargs="?", help="the folder of base/ and text/")
    parser.add_argument("rows", nargs="*", help=f"some of: {known}")
    parser.add_argument("--judge", type=Path, default=judge, help="the folder of judge/")
    parser.add_argument("--from-records", action="store_true", help="print the kept rows")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; the rows are: {known}")
    if not chosen.from_records:
        if chosen.start is None or not (chosen.start / "base").is_dir():
            parser.error(f"START must be a folder that holds base/ and text/, got {chosen.start}")
        WORK.mkdir(parents=True, exist_ok=True)
        for name in chosen.rows or ROWS:
            file = WORK / f"{name}.json"
            try:
                with FileLock(f"{file}.lock", timeout=0):
                    measure(name, file, options(name, chosen.start, chosen.judge))
            except Timeout:  # another process has it
                continue
        rows = "".join(json.dumps(row) + "\n" for row in recorded())
        RECORD.write_text(rows, encoding="utf-8")
    if not RECORD.is_file():
        parser.error(f"{RECORD} is not there; make it: python experiments/measured/recipe.py START")
    print(table(lines(RECORD)))


if __name__ == "__main__":
    from unitune.models.compat import ensure_torchvision

    ensure_torchvision()
    main()
