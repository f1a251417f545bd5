"""Every claim in turn: what its sweep lacks is run, then it is asked; finished cells are kept.

Command:  python experiments/all.py --quick     2 images: shows that all works, decides nothing
          python experiments/all.py --full      24 images: verdicts; may be interrupted
          python experiments/all.py --from-records > docs/claims.md
              what the kept records say, and which claims have none; runs nothing
Minutes:  quick 45 planned on two CPU cores (about 150 without AVX-512), full 12 hours planned.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from claims import sweeps
from claims.table import CLAIMS, ENTRIES, Entry

QUICK, FULL = 2, 24  # images
HEAD = """# Claims

Written by `python experiments/all.py --from-records > docs/claims.md`. What a claim is of, what is
expected here and its minutes: `python -m experiments.claims NAME --help`.
"""
Call = Callable[[Sequence[str]], int]


def question(entry: Entry, *arguments: str) -> list[str]:
    """The command that asks an entry."""
    return ["-m", "experiments.claims", entry.name, *arguments]


def ask(entry: Entry, images: int, call: Call) -> list[str]:
    """Run what a claim's sweeps lack and ask it; return the commands that failed."""
    larger = entry.full if images >= FULL else ()
    commands = [
        ["run.py", "-m", f"experiment={sweep}", f"benchmark.limit={images}", *larger]
        for sweep in entry.sweeps
    ]
    commands.append(question(entry, f"--images={images}"))
    return [" ".join(command) for command in commands if call(command) != 0]


def tell(entries: Sequence[Entry], call: Call) -> list[str]:
    """Say what the kept records hold and which claims have none; return what failed."""
    kept = [entry for entry in entries if (sweeps.RECORDS / f"{entry.name}.jsonl").is_file()]
    print(HEAD, "| claim | what it asks |", "|---|---|", sep="\n")
    print(*(f"| `{entry.name}` | {entry.title} |" for entry in entries), sep="\n", end="\n\n")
    if lacking := [entry for entry in entries if entry not in kept]:
        print(
            f"Without records, so nothing is said of them ({len(lacking)} of {len(entries)} "
            "claims), and how to make them:\n"
        )
        print(*(f"- `{entry.name}`: `{entry.recipe}`" for entry in lacking), sep="\n", end="\n\n")
    sys.stdout.flush()  # before the commands write
    commands = [question(entry, "--from-records") for entry in kept]
    return [" ".join(command) for command in commands if call(command) != 0]


def python(command: Sequence[str]) -> int:
    """Run a command of ours from the project's folder."""
    return subprocess.call([sys.executable, *command], cwd=sweeps.ROOT)


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
    entries = [ENTRIES[name] for name in options.only]
    began, failed = time.monotonic(), []
    if not options.images:
        failed += tell(entries, python)
    for entry in entries if options.images else ():
        start = time.monotonic()
        failed += ask(entry, options.images, python)
        spent, whole = ((time.monotonic() - since) / 60 for since in (start, began))
        print(f"{entry.name}: {spent:.1f} min, {whole:.1f} min in all", flush=True)
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
