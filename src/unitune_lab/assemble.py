"""Puts trained parts together as what ships: python -m unitune_lab.assemble FOLDER [OUT].

FOLDER holds what the trainer wrote; a part that it lacks stays in OUT as it is.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

from diffusers import DDPMScheduler  # noqa: E402
from unitune.diffusion.loss import Losses, StageLoss  # noqa: E402
from unitune.errors import Refused  # noqa: E402
from unitune.models.families.floyd import SETTINGS  # noqa: E402
from unitune.models.pocket import FOLDER as POCKET  # noqa: E402
from unitune.models.stage import LOSS  # noqa: E402

from unitune_lab import networks  # noqa: E402
from unitune_lab.options import PARTS  # noqa: E402
from unitune_lab.parts.stage import TUNING, digest  # noqa: E402
from unitune_lab.records import DONE, LEARNING, TRAINING, looks, records, total  # noqa: E402


def assemble(trained: Path, out: Path) -> list[str]:
    """Copy the exported parts and return their names.

    `base` and `sr256` become folders that stock IF pipelines read; `words.json` lists the words.
    """
    found = [part for part in PARTS if (trained / part / "export").is_dir()]
    if not found:
        raise Refused(f"{trained} holds no trained part (PART/export); train one first")
    if undone := [part for part in found if not (trained / part / DONE).is_file()]:
        raise Refused(
            f"{trained / undone[0]} holds no {DONE}, which tells how its export was trained; "
            "train it on, which writes both"
        )
    check_text(trained, out, found)
    for part in found:
        export = trained / part / "export"
        if part == "text":
            shutil.copytree(export, out / "base", dirs_exist_ok=True)
            words = json.dumps(networks.vocabulary()) + "\n"
            (out / "words.json").write_text(words, encoding="utf-8")
        elif part in ("base", "sr256"):
            shutil.rmtree(out / part / "unet", ignore_errors=True)
            shutil.copytree(export, out / part / "unet")
            done = json.loads((trained / part / DONE).read_text(encoding="utf-8"))
            write_stage(part, out / part, weighting=done["options"]["weighting"])
        else:
            shutil.rmtree(out / part, ignore_errors=True)
            shutil.copytree(export, out / part)
    write_record(trained, out)
    return found


def check_text(trained: Path, out: Path, parts: Sequence[str]) -> None:
    """Refuse stages that learned from another text encoder than the one beside which they come."""
    encoder = digest(trained / "text" / "export" if "text" in parts else out / "base")
    for part in ("base", "sr256"):
        read = (records(out) | records(trained)).get(part, {}).get("reads", encoder)
        if read != encoder and (part in parts or "text" in parts):
            raise Refused(
                f"{part} was trained with the text encoder {read[:12]}, and {encoder[:12]} would "
                f"ship beside it; train it with that one (text=FOLDER), or assemble its own too"
            )


def write_stage(part: str, out: Path, *, weighting: str) -> None:
    """Write what makes a stage's folder one of a stock pipeline, and its losses.

    The file names the loss that the stage was trained with and the one that it is tuned with.
    """
    cap = 1.5 if part == "base" else 1.0
    networks.scheduler(sample_max_value=cap).save_pretrained(out / "scheduler")
    both = Losses(pretraining=StageLoss("v_prediction", weighting), tuning=TUNING)
    (out / LOSS).write_text(json.dumps(both.plain()) + "\n", encoding="utf-8")
    names: dict[str, Any] = {"scheduler": ["diffusers", "DDPMScheduler"]}
    names["unet"] = ["diffusers", "UNet2DConditionModel"]
    if part == "base":
        names["_class_name"] = "IFPipeline"
        names["text_encoder"] = ["transformers", "T5EncoderModel"]
        names["tokenizer"] = ["transformers", "T5Tokenizer"]
    else:
        noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        noising.save_pretrained(out / "image_noising_scheduler")
        names["_class_name"] = "IFSuperResolutionPipeline"
        names["image_noising_scheduler"] = ["diffusers", "DDPMScheduler"]
        names |= {"text_encoder": [None, None], "tokenizer": [None, None]}
        pixels_aligned = json.dumps({"align_corners": False}) + "\n"  # as StagePart trains it
        (out / SETTINGS).write_text(pixels_aligned, encoding="utf-8")
    absent = ("safety_checker", "feature_extractor", "watermarker")
    names |= {name: [None, None] for name in absent} | {"requires_safety_checker": False}
    text = json.dumps(names, indent=2) + "\n"
    (out / "model_index.json").write_text(text, encoding="utf-8")


def write_record(trained: Path, out: Path) -> None:
    """Write what the trainings behind the weights were, and how their scores moved."""
    new, known = records(trained), records(out)
    ordered = {part: (known | new)[part] for part in PARTS if part in known | new}
    (out / TRAINING).write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    kept = [line for line in looks(out) if line["part"] not in new or goes_on(new, line)]
    lines = kept + [from_the_first(new[line["part"]], line) for line in looks(trained)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / LEARNING).write_text(text, encoding="utf-8")


def goes_on(new: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    """Say whether a look that ships is of the training that the new one of its part goes on from.

    A training that is assembled again replaces its own earlier looks.
    """
    before = new[line["part"]].get("before") or {}
    return line["samples"] <= total(before, "samples")


def from_the_first(done: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Count a look's samples and minutes from the start of the part's first training."""
    before = done.get("before") or {}
    counted = ("samples", "minutes")
    return {**line, **{name: round(line[name] + total(before, name), 2) for name in counted}}


def main(arguments: Sequence[str]) -> int:
    """Read the command line; return the exit code."""
    if not arguments:
        print("unitune_lab.assemble: name the folder of a training", file=sys.stderr)
        return 2
    out = Path(arguments[1]) if len(arguments) > 1 else POCKET
    try:
        print(f"{out}: {', '.join(assemble(Path(arguments[0]), out))}")
    except Refused as refused:
        print(f"unitune_lab.assemble: {refused}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
