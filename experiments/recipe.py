"""The recipe of the embedded 64 px stage: each row goes on from the same weights for 20 minutes of one core.

Command:  python experiments/recipe.py START [ROW ...]    START holds base/ and text/; two processes may share the rows (pin each to a core: taskset -c 0)
          python experiments/recipe.py --from-records     prints the table again
Minutes:  25 a row on one core: 20 of training at 32 px (the processes that draw scenes among them), then looks at unseen scenes and two tunings.

Columns: pictures; mean squared error of x_0 in objects, estimated in one step at t = 900 / 700 / 500; what the judge finds in samples of unseen captions; and
what a UniTune tuning leaves of the text (change of x_0 by an edit prompt at start 0.95, tuned over untuned; at least 0.6 is asked of what ships).
Writes experiments/records/recipe.jsonl.
"""

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


def train(name: str, start: str) -> dict:
    """Train and measure one row."""
    folder = WORK / name.replace(" ", "_").replace(",", "")
    common = [f"start={start}", f"text={start}", f"folder={folder}", f"minutes={MINUTES}", "threads=1", "minutes_look=1000"]
    options = [*common, PHASE.format(batch=32), *ROWS[name]]
    subprocess.run([sys.executable, "-m", "unitune_lab", "base", *options], check=True)
    from unitune_lab.__main__ import build, read

    trained = build("base", read("base", [*options, "folder=outputs/lab"]))
    from unitune_lab.kept import text_kept
    from unitune_lab.start import start_stage

    start_stage(trained.network, "base", folder)
    trained.looks = folder
    found = trained.look(trained.network.eval(), 32)
    done = json.loads((folder / "base" / "done.json").read_text())
    return {"row": name, "samples": done["samples"], "minutes": done["minutes"], **found, "kept": text_kept(trained, trained.network, resolution=32)}


def table(rows: list[dict]) -> str:
    """Write the rows as Markdown."""
    lines = ["| row | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (len(COLUMNS) + 1)]
    for row in rows:
        cells = [f"{row[c]:,}" if c == "samples" else f"{row[c]:.3f}" if c in row else "" for c in COLUMNS]
        lines.append(f"| {row['row']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if arguments[:1] != ["--from-records"]:
        start, *names = arguments
        WORK.mkdir(parents=True, exist_ok=True)
        for name in names or ROWS:
            file = WORK / f"{name}.json"
            try:
                with FileLock(f"{file}.lock", timeout=0):
                    if not file.exists():
                        file.write_text(json.dumps(train(name, start)))
            except Timeout:  # another process has it
                continue
        found = [json.loads((WORK / f"{name}.json").read_text()) for name in ROWS if (WORK / f"{name}.json").exists()]
        RECORD.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    print(table([json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    from unitune.compat import ensure_torchvision

    ensure_torchvision()
    main(sys.argv[1:])
