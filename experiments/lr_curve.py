"""Reconstruction AND edit success over the learning rate on the demo image, for both optimisers and for LoRA, base stage.

Command:  python experiments/lr_curve.py
          The image is tuned on its description. Edit success (both) goes over the feasible edits. The shipped rates come from search_dials.py, on other images.
Claim:    a rate that copies the base image for every prompt has failed, and so has one that forgets it; the default lies between.
Expected: reconstruction rises with lr, edit success falls beyond some lr.
Minutes:  about 1.5 per rate on two CPU cores.
"""

import argparse
import json
import math
from pathlib import Path

from steps_curve import psnr

from unitune.benchmarks.manifest import Folder
from unitune.diffusion.blend import reduced
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.images import to_uint8
from unitune.methods.unitune import UniTune
from unitune.metrics.success import EditSuccess
from unitune.models import pocket
from unitune.runs.grid import labelled_grid
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.adapters import Full, Lora
from unitune.tuning.finetune import Tuning
from unitune.tuning.optimizers import Adafactor, AdamW
from unitune.types import Draw, Refused, Request

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src/unitune/assets"
RATES = {
    "untuned": (0.0,),
    "adamw": (3e-5, 1e-4, 3e-4, 1e-3),
    "adafactor": (1e-4, 1e-3, 3e-3, 1e-2),
    "lora": (2.5e-4, 1e-3, 2.5e-3, 1e-2),
}  # lora: AdamW's
RECORD = HERE / "records" / "lr_curve.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weight", type=float, default=pocket.WEIGHT)
    parser.add_argument("--start", type=float, default=pocket.START)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=RATES,
        default=tuple(RATES),
        help="measure these; the other lines of the record stay",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    options = parser.parse_args()
    cascade = pocket.cascade()
    cascade.stages = cascade.stages[:1]
    example = Folder(ASSETS / "demo").examples(256)[0]
    small = reduced(example.image, cascade.resolution)
    judge = EditSuccess(ASSETS / "pocket/judge", column="both")
    alone = Sampler("alone", template="{rare}", steps=pocket.STEPS, guidance=Guidance(weight=1.0))
    editing = Sampler(
        "edit", start=options.start, steps=pocket.STEPS, guidance=Guidance(weight=options.weight)
    )
    lines, rows, labels = [], [], []
    for name in options.only:
        for lr in RATES[name]:
            optimizer, adapter = (
                Adafactor() if name == "adafactor" else AdamW(),
                Lora() if name == "lora" else Full(),
            )
            method = UniTune(
                tune={"base": Tuning(lr=lr or 1e-4, optimizer=optimizer, adapter=adapter)},
                stages=("base",),
                prompt="{caption}",
            )
            tuned = make.prepare(
                method.recipe(example),
                cascade,
                example,
                store=Store(Path("store")),
                at=None if lr else 0,
            )
            with cascade.using(tuned):
                plain = alone(
                    cascade,
                    example,
                    tuned=tuned,
                    draws=[
                        Draw(Request("the tuning prompt alone"), seed)
                        for seed in range(options.seeds)
                    ],
                )
                draws = [
                    Draw(request, seed)
                    for request in example.requests
                    for seed in range(options.seeds)
                ]
                edits = editing(cascade, example, tuned=tuned, draws=draws)
            counted = [value for value in judge(edits) if not math.isnan(value)]
            if not counted:
                raise Refused(
                    "no edit of the demo image is feasible: the judge decides none of them"
                )
            line = {
                "experiment": "lr", "optimizer": name, "lr": lr, "weight": options.weight, "start": options.start, "n": len(counted),
                "psnr_alone": sum(psnr(e.image, small) for e in plain) / len(plain), "success": sum(counted) / len(counted),
                "psnr_edit": sum(psnr(e.image, small) for e in edits) / len(edits),
            }  # fmt: skip
            lines.append(line)
            rows.append(
                [
                    to_uint8(small),
                    to_uint8(plain[0].image),
                    *(
                        to_uint8(edits[k * options.seeds].image)
                        for k in range(len(example.requests))
                    ),
                ]
            )
            labels.append(f"{name} {lr:g}")
            print(
                "  ".join(
                    f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in line.items()
                    if k != "experiment"
                ),
                flush=True,
            )
    options.out.mkdir(parents=True, exist_ok=True)
    labelled_grid(
        rows,
        row_labels=labels,
        column_labels=["base image", "tuning prompt", *(r.prompt for r in example.requests)],
        path=options.out / "lr_curve.png",
    )
    kept = map(json.loads, RECORD.read_text().splitlines() if RECORD.is_file() else ())
    others = [
        line
        for line in kept
        if line["optimizer"] not in options.only or line["weight"] != options.weight
    ]
    RECORD.write_text("".join(json.dumps(line) + "\n" for line in [*others, *lines]))
    print(f"grid: {options.out / 'lr_curve.png'}")


if __name__ == "__main__":
    main()
