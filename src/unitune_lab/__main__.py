"""Trains one part: python -m unitune_lab PART [NAME=VALUE ...].

For example: python -m unitune_lab base start=FOLDER minutes=30
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitune.compat import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from unitune import machine  # noqa: E402
from unitune.errors import Refused  # noqa: E402

from unitune_lab import start as starts  # noqa: E402
from unitune_lab.networks import tokenizer  # noqa: E402
from unitune_lab.options import PARTS, phases, read  # noqa: E402
from unitune_lab.parts import Part  # noqa: E402
from unitune_lab.parts.judge import JudgePart  # noqa: E402
from unitune_lab.parts.stage import StagePart  # noqa: E402
from unitune_lab.parts.text import TextPart  # noqa: E402
from unitune_lab.train import CHECKPOINT, DONE, Training, train  # noqa: E402
from unitune_lab.watch import judge_in  # noqa: E402

log = logging.getLogger(__name__)
STAGE_OPTIONS = ("channels", "attention", "weighting", "objects", "auxiliary", "crops", "low_power")


def build(part: str, options: dict[str, Any]) -> Part:
    """Build an untrained part."""
    device, folder = machine.device(options["device"]), Path(options["folder"])
    if part == "text":
        return TextPart(tokenizer(), device)
    if part == "judge":
        return JudgePart(device)
    text = starts.text_folder(Path(options["text"] or folder))
    starts.check_tokenizer(text)
    if part.startswith("clip"):
        from unitune_lab.parts.clip import ClipPart  # timm is needed here alone

        return ClipPart(text, device)
    chosen = {name: options[name] for name in STAGE_OPTIONS if name in options}
    stage = StagePart(text, device, super_resolution=part == "sr256", **chosen)
    stage.judge, stage.looks = judge_in(folder / "judge" / "export"), folder / part
    return stage


def go_on(part: str, trained: Part, folder: Path) -> dict:
    """Take the mean weights of a folder over; return what is known of their training."""
    if part == "text":
        starts.start_text(trained.network, folder)
    elif part in ("base", "sr256"):
        starts.start_stage(trained.network, part, folder)
    else:
        starts.start_scoring(trained.network, part, folder)
    file = folder / part / DONE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def run(part: str, overrides: Sequence[str]) -> None:
    """Train a part as its options say."""
    options = read(part, overrides)
    plan = phases(options)
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    trained = build(part, options)
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
