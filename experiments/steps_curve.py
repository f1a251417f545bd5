"""Paper Fig. 3: sampling from the tuning prompt alone approaches the base image as tuning goes on (about 64 iterations there).

Command:  python experiments/steps_curve.py
Expected: PSNR to the base image rises from step 0 to 128; the super-resolved picture, reduced to 64 px, stays with its input.
Minutes:  about 3 on two CPU cores, one tuning; the curve comes from its snapshots.
"""

import argparse
import json
from pathlib import Path

import torch

from unitune.benchmarks.manifest import Folder
from unitune.diffusion.blend import reduced
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.images import to_uint8
from unitune.methods.unitune import UniTune
from unitune.models import pocket
from unitune.runs.grid import labelled_grid
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.finetune import Tuning
from unitune.types import Draw, Example, Request

HERE = Path(__file__).parent
STEPS = (0, 16, 32, 64, 128)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Decibels for pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().mean().clamp(min=1e-10)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lr", type=float, default=2.5e-4)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    options = parser.parse_args()
    cascade = pocket.cascade()
    demo = Folder(HERE.parent / "src/unitune/assets/demo").examples(cascade.resolution)[0]
    example = Example(
        demo.id, demo.image, (Request("the tuning prompt alone"),), caption=demo.caption
    )
    method = UniTune(
        tune={"base": Tuning(lr=options.lr), "sr256": Tuning(lr=options.lr, crop=64)},
        prompt="{caption}",
    )
    alone = Sampler(
        "alone", template="{rare}", steps=pocket.STEPS, guidance=Guidance(weight=1.0), sr=pocket.SR
    )
    small = reduced(example.image, cascade.stages[0].resolution)
    lines, rows = [], []
    for at in STEPS:
        tuned = make.prepare(
            method.recipe(example), cascade, example, store=Store(Path("store")), at=at
        )
        with cascade.using(tuned):
            edits = alone(
                cascade,
                example,
                tuned=tuned,
                draws=[Draw(example.requests[0], seed) for seed in range(options.seeds)],
            )
        for edit in edits:
            base, final = edit.stages["base"], edit.image
            lines.append({
                "experiment": "steps", "lr": options.lr, "steps": at, "seed": edit.seed, "psnr_base": psnr(base, small),
                "psnr_final": psnr(final, example.image), "psnr_sr_input": psnr(reduced(final, base.shape[-1]), base),
            })  # fmt: skip
        rows.append([to_uint8(example.image), *(to_uint8(edit.image) for edit in edits)])
        last = lines[-options.seeds :]
        means = [
            sum(line[k] for line in last) / len(last)
            for k in ("psnr_base", "psnr_final", "psnr_sr_input")
        ]
        print(
            f"steps {at:4d}: 64 px {means[0]:5.2f} dB, 256 px {means[1]:5.2f} dB, SR against its input {means[2]:5.2f} dB",
            flush=True,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    labelled_grid(
        rows,
        row_labels=[f"{s} steps" for s in STEPS],
        column_labels=["base image", *(f"seed {k}" for k in range(options.seeds))],
        path=options.out / "steps_curve.png",
    )
    (HERE / "records" / "steps_curve.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    print(f"grid: {options.out / 'steps_curve.png'}")


if __name__ == "__main__":
    main()
