"""Trains one part: python -m unitune_lab PART [NAME=VALUE ...].

For example: python -m unitune_lab base start=FOLDER minutes=30
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from unitune.errors import Refused  # noqa: E402

from unitune_lab.make import build, go_on  # noqa: E402
from unitune_lab.options import PARTS, phases, read  # noqa: E402
from unitune_lab.train import CHECKPOINT, Training, check, train  # noqa: E402

log = logging.getLogger(__name__)


def run(part: str, overrides: Sequence[str]) -> None:
    """Train a part as its options say."""
    options = read(part, overrides)
    plan = phases(options)
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    trained = build(part, options)
    check(trained, plan)
    folder = Path(options["folder"]) / part
    before: dict = {}
    if options["start"] and not (folder / CHECKPOINT).exists():
        before = go_on(part, trained, Path(options["start"]))
    millions = sum(p.numel() for p in trained.network.parameters()) / 1e6
    log.info("%s: %.2f M parameters", part, millions)
    train(Training(trained, folder, options=options, before=before), plan)


def main(arguments: Sequence[str]) -> int:
    """Read the command line and run; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\nPART is one of {', '.join(PARTS)}; options are in unitune_lab/conf.")
        return 0 if arguments else 2
    try:
        run(arguments[0], arguments[1:])
    except Refused as refused:
        print(f"unitune_lab: {refused}", file=sys.stderr)
        return 2
    except FloatingPointError as diverged:
        print(f"unitune_lab: {diverged}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
