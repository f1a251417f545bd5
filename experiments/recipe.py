"""The recipe of the embedded 64 px stage: each row goes on from the same weights for 20 minutes of one core.

Command:  python experiments/recipe.py START [ROW ...]    START holds base/ and text/; two processes may share the rows (pin each to a core: taskset -c 0)
          python experiments/recipe.py --from-records     prints the table again
Minutes:  25 a row on one core: 20 of training at 32 px (the processes that draw scenes among them), then looks at unseen scenes and two tunings.

Columns: pictures; mean squared error of x_0 in objects, estimated in one step at t = 900 / 700 / 500; what the judge finds in samples of unseen captions; and
what a UniTune tuning leaves of the text (change of x_0 by an edit prompt at start 0.95, tuned over untuned; at least 0.6 is asked of what ships).
Writes experiments/records/recipe.jsonl.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

RECORD = Path(__file__).parent / "records" / "recipe.jsonl"
WORK = Path("outputs/recipe")
MINUTES = 20
PHASE = "phases=[{{resolution: 32, batch_size: {batch}, samples: 10000000}}]"
ROWS = {
    "AdamW 5e-4, batch 32, plain v, head 0.1": [],
    "batch 16": [PHASE.format(batch=16)],
    "min-SNR 5": ["weighting=min_snr"],
    "no head": ["auxiliary=0.0"],
    "Muon 1e-3": ["optimizer=muon", "lr=1e-3"],
    "learning rate to 0": ["cooldown=20000", "phases=[{resolution: 32, batch_size: 32, samples: 20000}]"],
}
COLUMNS = ("samples", "objects_900", "objects_700", "objects_500", "single", "pair", "colours", "place", "count", "kept")


def train(name: str, start: Path, judge: Path) -> dict:
    """Train and measure one row; the trainer itself looks at unseen scenes when its minutes are over."""
    from unitune_lab.kept import text_kept
    from unitune_lab.make import build, go_on
    from unitune_lab.options import read

    folder = WORK / name.replace(" ", "_").replace(",", "")
    common = [f"start={start}", f"text={start}", f"judge={judge}", f"folder={folder}", f"minutes={MINUTES}", "threads=1", "minutes_look=1000"]
    options = [*common, PHASE.format(batch=32), *ROWS[name]]
    subprocess.run([sys.executable, "-m", "unitune_lab", "base", *options], check=True)
    found = json.loads((folder / "base" / "curve.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    trained = build("base", read("base", options))
    go_on("base", trained, folder)
    return {"row": name, **found, "kept": text_kept(trained, trained.network, resolution=32)}


def table(rows: list[dict]) -> str:
    """Write the rows as Markdown."""
    lines = ["| row | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 1)]
    for row in rows:
        cells = [f"{row[c]:,}" if c == "samples" else f"{row[c]:.3f}" if c in row else "" for c in COLUMNS]
        lines.append(f"| {row['row']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, nargs="?", help="the folder that holds base/ and text/")
    parser.add_argument("rows", nargs="*", help=f"some of: {'; '.join(ROWS)}")
    parser.add_argument("--judge", type=Path, default=Path("src/unitune_lab/weights"), help="the folder that holds judge/")
    parser.add_argument("--from-records", action="store_true", help="print the kept rows")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; the rows are: {'; '.join(ROWS)}")
    if not chosen.from_records:
        if chosen.start is None or not (chosen.start / "base").is_dir():
            parser.error(f"START must be a folder that holds base/ and text/, got {chosen.start}")
        WORK.mkdir(parents=True, exist_ok=True)
        for name in chosen.rows or ROWS:
            file = WORK / f"{name}.json"
            try:
                with FileLock(f"{file}.lock", timeout=0):
                    if not file.exists():
                        file.write_text(json.dumps(train(name, chosen.start, chosen.judge)), encoding="utf-8")
            except Timeout:  # another process has it
                continue
        found = [json.loads((WORK / f"{name}.json").read_text(encoding="utf-8")) for name in ROWS if (WORK / f"{name}.json").exists()]
        RECORD.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    if not RECORD.is_file():
        parser.error(f"{RECORD} is not there; make it: python experiments/recipe.py START")
    print(table([json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    from unitune.compat import ensure_torchvision

    ensure_torchvision()
    main()
