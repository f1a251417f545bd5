"""Compares the pictures and scores that this checkout makes with those of an earlier commit.

Command:  python experiments/measured/same_bytes.py COMMIT [CASE ...]
Minutes:  about 12 on two CPU cores for all cases.

For changes of the code that must not change what it makes. The commit is checked out beside, gets
this checkout's embedded models, and both run every case with one thread on this machine. Pictures
are compared byte by byte, else by their largest difference in grey levels; scores and settings of
each line of scores.jsonl by value. Exit code 1 where anything differs by more than one grey level.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
POCKET = Path("src/unitune/assets/pocket")
SMALL = (
    "stage=base", "model.stages=[base]", "model.resolution=64", "steps=8", "snapshots=[]",
    "sampler.steps=6", "seeds=1", "oracle=0",
)  # fmt: skip
CASES: dict[str, tuple[str, ...]] = {
    "demo": (),
    "methods": ("-m", "method=unitune,untuned,dreambooth,textual_inversion,imagic", *SMALL),
    "samplers": (
        "-m", "sampler=base,cfg,sdedit,late_start,interpolated,prompt_guidance,masked", *SMALL,
    ),
    "prompt_to_prompt": (
        "-m", "method=untuned", "sampler=prompt_to_prompt,prompt_to_prompt_blend", *SMALL,
    ),
    "masks": ("-m", "mask=file,diffedit,attention,difference", *SMALL),
    "parameters": ("-m", "freeze=none,encoder,norm_bias_only", *SMALL),
    "lora": ("adapter=lora", *SMALL),
    "adafactor": ("optimizer=adafactor", *SMALL),
    "base_weights": ("sampler.reference=base", "selection=best", *SMALL),
    "super_resolution": ("stage=sr256", "steps=4", "snapshots=[]", "seeds=1", "oracle=0"),
    "resumed": ("steps=96", *(one for one in SMALL if not one.startswith("steps="))),
}  # fmt: skip
SCORED = ("scores", "text", "seed", "weight", "start", "steps", "row")
LEVELS = 1  # grey levels by which pictures may differ where a change of arithmetic is named


def run(tree: Path, case: str, out: Path) -> None:
    """Run a case with a tree's own code into `out`."""
    store = out.parent / "store"
    sweep = "-m" in CASES[case]
    place = [f"hydra.sweep.dir={out}" if sweep else f"hydra.run.dir={out}", f"store.path={store}"]
    command = [sys.executable, "run.py", *CASES[case], *place, "machine.threads=1", "machine=cpu"]
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    if case == "resumed":
        interrupted = stop_while_tuning(process, store)
        print(f"  interrupted while tuning: {'yes' if interrupted else 'no, it had ended'}")
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{case} failed in {tree}:\n{said[-2000:]}")


def stop_while_tuning(process: "subprocess.Popen[str]", store: Path) -> bool:
    """Send SIGTERM once the tuning has a folder for its checkpoints; say whether it was running."""
    while process.poll() is None and not list(store.glob(".work/*.resume")):
        time.sleep(0.2)
    time.sleep(3)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return True


def differences(before: Path, after: Path) -> Iterator[tuple[str, float]]:
    """List what differs: file or record, and by how many grey levels (inf where by more)."""
    old, new = (
        {file.relative_to(side): file for file in sorted(side.rglob("*.png"))}
        for side in (before, after)
    )
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name} is on one side alone", float("inf")
    for name in sorted(old.keys() & new.keys()):
        if old[name].read_bytes() != new[name].read_bytes():
            pictures = [np.asarray(Image.open(side[name])).astype(int) for side in (old, new)]
            alike = pictures[0].shape == pictures[1].shape
            levels = float(np.abs(pictures[0] - pictures[1]).max()) if alike else float("inf")
            yield str(name), levels
    for file in sorted(before.rglob("scores.jsonl")):
        name = file.relative_to(before)
        mine, theirs = (records(side / name) for side in (after, before))
        if mine != theirs:
            yield f"{name}: scores", 0.0


def records(file: Path) -> list[dict[str, object]]:
    """Read what must be equal of each record, numbers to nine digits."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    kept = [{name: line.get(name) for name in SCORED} for line in lines]
    return json.loads(json.dumps(kept), parse_float=lambda text: float(f"{float(text):.9g}"))


def compare(commit: str, cases: Sequence[str]) -> bool:
    """Run the cases on both sides; print a line a case; say whether all is the same."""
    same = True
    with tempfile.TemporaryDirectory() as scratch:
        tree, out = Path(scratch) / "tree", Path(scratch) / "out"
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", tree, commit], cwd=ROOT, check=True
        )
        try:
            shutil.rmtree(tree / POCKET)
            shutil.copytree(ROOT / POCKET, tree / POCKET)
            for case in cases:
                sides = {"before": tree, "after": ROOT}
                for side, place in sides.items():
                    run(place, case, out / side / case)
                found = list(differences(out / "before" / case, out / "after" / case))
                count = len(list((out / "after" / case).rglob("*.png")))
                worst = max((levels for _, levels in found), default=0.0)
                same = same and worst <= LEVELS and not any("scores" in what for what, _ in found)
                print(f"{case}: {count} pictures, {len(found)} differences, {worst:g} grey levels")
                for what, levels in found[:10]:
                    print(f"  {what} ({levels:g})")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    return same


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", help="the earlier commit")
    parser.add_argument("cases", nargs="*", default=[*CASES], metavar="CASE")
    options = parser.parse_args()
    if unknown := [case for case in options.cases if case not in CASES]:
        print(f"same_bytes: no case {unknown[0]!r}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    return 0 if compare(options.commit, options.cases) else 1


if __name__ == "__main__":
    sys.exit(main())
