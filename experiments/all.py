"""Every claim in turn: the cells of its sweep that are missing are run, then its script is asked; what is finished is not run again.

Command:  python experiments/all.py --quick        2 images: shows that everything works, too few for a verdict
          python experiments/all.py --full         24 images: verdicts; may be interrupted and called again
          python experiments/all.py --from-records > docs/claims.md      tables and verdicts of the kept records, and which claims have none; runs nothing
Minutes:  quick 45 planned on two CPU cores (about 150 without AVX-512), full 12 hours planned.
"""

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from claims import CLAIMS, SEVERAL, SWEEPS, recipe

from unitune.storage import records

HERE = Path(__file__).parent
QUICK, FULL = 2, 24  # images
EDITS = 3  # of each image of the scenes benchmark
LARGER = {"best_of_n": ["seeds=64"]}  # at full size
Call = Callable[[Sequence[str]], int]


def grid(sweep: str) -> dict[str, list[str]]:
    """Read the settings that a sweep varies."""
    params = yaml.safe_load((HERE.parent / f"conf/experiment/{sweep}.yaml").read_text())["hydra"][
        "sweeper"
    ]["params"]
    return {key: str(values).split(",") for key, values in params.items()}


def cells(sweep: str) -> list[dict[str, str]]:
    """List the cells of a sweep."""
    varied = grid(sweep)
    return [
        dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())
    ]


def label(cell: Mapping[str, str]) -> str:
    """Name a cell's folder, as Hydra's override_dirname does."""
    return ",".join(sorted(f"{key}={value}" for key, value in cell.items()))


def finished(folder: Path, images: int) -> bool:
    """Whether a run has recorded all of its images: each kind of reference that it has, the exact target among them, is there of every edit."""
    file = folder / records.FILE
    known: dict[str, set[tuple[str, str]]] = {"target": set()}
    for record in records.read(file) if file.is_file() else ():
        if record.row in records.REFERENCES:
            known.setdefault(record.row, set()).add((record.example, record.prompt))
    return all(len(edits) == images * EDITS for edits in known.values())


def missing(sweep: str, images: int) -> list[list[str]]:
    """List the commands that run what a sweep lacks: all of it, or cells that differ only in the setting that varies fastest; each loads the model once."""
    left = [
        cell
        for cell in cells(sweep)
        if not finished(SWEEPS / f"{sweep}-{images}" / label(cell), images)
    ]
    start = ["run.py", "-m", f"experiment={sweep}", f"benchmark.limit={images}"]
    if left == cells(sweep):
        return [start]
    commands = []
    for slow, members in itertools.groupby(
        left, key=lambda cell: [f"{key}={value}" for key, value in cell.items()][:-1]
    ):
        fast = [[*cell.items()][-1] for cell in members]
        settings = [*slow, f"{fast[0][0]}={','.join(value for _, value in fast)}"]
        commands.append([*start, "hydra.sweeper.params=null", *settings])
    return commands


def ask(claim: str, images: int, call: Call) -> list[str]:
    """Run what a claim lacks and its script; return the commands that failed."""
    larger = LARGER.get(claim, []) if images >= FULL else []
    commands = [
        [*command, *larger]
        for sweep in SEVERAL.get(claim, (claim,))
        for command in missing(sweep, images)
    ]
    commands.append([str(HERE / f"{claim}.py"), f"--images={images}"])
    return [" ".join(command) for command in commands if call(command) != 0]


def tell(claims: Sequence[str], call: Call) -> list[str]:
    """Let the scripts of the claims that have kept records say what those hold, and name the others; return the commands that failed."""
    kept = [claim for claim in claims if (HERE / f"records/{claim}.jsonl").is_file()]
    commands = [[str(HERE / f"{claim}.py"), "--from-records"] for claim in kept]
    print(
        "# Claims\n\nWritten by `python experiments/all.py --from-records > docs/claims.md`; what each claim is of stands in its script's header.\n"
    )
    if lacking := [f"- `{claim}`: `{recipe(claim)}`" for claim in claims if claim not in kept]:
        print(
            f"Without records, so nothing is said of them ({len(lacking)} of {len(claims)} claims), and how to make them:",
            "",
            *lacking,
            sep="\n",
            end="\n\n",
        )
    sys.stdout.flush()  # before the scripts write
    return [" ".join(command) for command in commands if call(command) != 0]


def python(command: Sequence[str]) -> int:
    """Run a script of ours from the project's folder."""
    return subprocess.call([sys.executable, *command])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--quick", dest="images", action="store_const", const=QUICK)
    size.add_argument("--full", dest="images", action="store_const", const=FULL)
    size.add_argument("--from-records", dest="images", action="store_const", const=0)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CLAIMS,
        default=CLAIMS,
        metavar="CLAIM",
        help=f"of {', '.join(CLAIMS)}",
    )
    options = parser.parse_args()
    began, failed = time.monotonic(), []
    if not options.images:
        failed += tell(options.only, python)
    for claim in options.only if options.images else ():
        start = time.monotonic()
        failed += ask(claim, options.images, python)
        print(
            f"{claim}: {(time.monotonic() - start) / 60:.1f} min, {(time.monotonic() - began) / 60:.1f} min in all",
            flush=True,
        )
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
