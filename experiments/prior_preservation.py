"""DreamBooth's prior preservation: a model that is tuned on one cat beside class images draws "a cat" more as it did before than without them.

Command:  python experiments/prior_preservation.py
Claim:    samples of the class prompt stay closer to the untouched model's of the same noise with prior preservation than without it.
Expected: for every tuning seed the distances are smaller with it: of samples mean squared error and 1 - cosine of the selecting CLIP's image features; and
          of the networks' own predictions for the untouched model's samples, noised to eight levels (mean squared error), which sampling amplifies.
Minutes:  about 8 on two CPU cores; pocket cascade, base stage, 128 steps x 4 draws of the image (and 4 of the class), AdamW, 3 seeds.
"""

import argparse
import json
from pathlib import Path

import torch

from unitune import pocket, rng
from unitune.benchmarks.manifest import Folder
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.loop import Condition
from unitune.diffusion.sampler import Sampler
from unitune.figures.grid import labelled_grid
from unitune.images import to_uint8
from unitune.methods.class_images import ClassImages
from unitune.methods.dreambooth import DreamBooth
from unitune.metrics.clip import image_features, load_clip
from unitune.store import Store
from unitune.tuning.finetune import Tuning
from unitune.types import Draw, Example, Request, Tuned

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src/unitune/assets"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="tunings, each with and without the prior")
    parser.add_argument("--samples", type=int, default=16, help="of the class prompt, with the same noise for all models")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--sampler-steps", type=int, default=32)
    parser.add_argument("--class-images", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2.5e-4)
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    options = parser.parse_args()
    cascade = pocket.cascade()
    cascade.stages = cascade.stages[:1]
    demo = Folder(ASSETS / "demo").examples(cascade.resolution)[0]
    example = Example(demo.id, demo.image, (Request("a cat"),), noun="cat")
    sampler = Sampler("cfg", template="{edit}", steps=options.sampler_steps, guidance=Guidance(pocket.GUIDANCE))
    # Seeds that no class image has: those begin at 0.
    draws = [Draw(example.requests[0], 10_000 + k) for k in range(options.samples)]
    clip = load_clip(ASSETS / "pocket/clip2")

    def sampled(tuned: Tuned) -> torch.Tensor:
        with cascade.using(tuned):
            return torch.cat([edit.image for edit in sampler(cascade, example, tuned=tuned, draws=draws)])

    stage = cascade.stages[0]
    before = sampled(Tuned())
    levels = torch.linspace(100, 900, 8).long().repeat_interleave(len(before))
    noised = stage.schedule.add_noise(
        before.repeat(8, 1, 1, 1), rng.noise((len(levels), *before.shape[1:]), seed=0, example="", stage="", role="drift", step=0), levels
    )
    condition = Condition(cascade.encode(["a cat"] * len(levels)))

    @torch.no_grad()
    def predicted(tuned: Tuned) -> torch.Tensor:
        with cascade.using(tuned):
            return stage.output(noised, levels, condition)

    untouched = predicted(Tuned())
    of_class = ClassImages(count=options.class_images, steps=options.sampler_steps, weight=pocket.GUIDANCE)
    lines, rows = [], [[to_uint8(example.image), *(to_uint8(p) for p in before[:4].split(1))]]
    tuning = Tuning(lr=options.lr, steps=options.steps, snapshots=())
    for seed in range(options.seeds):
        for prior in (0.0, 1.0):
            method = DreamBooth({"base": tuning}, stages=("base",), prior=prior, class_images=of_class)
            tuned = method.prepare(cascade, example, store=Store(Path("store")), seed=seed, at=None, report=None)
            after = sampled(tuned)
            mse = (after.clamp(-1, 1) - before.clamp(-1, 1)).square().flatten(1).mean(dim=1)
            away = 1 - torch.nn.functional.cosine_similarity(image_features(clip, after), image_features(clip, before))
            lines.append({
                "experiment": "prior_preservation", "prior": prior, "seed": seed, "steps": options.steps, "lr": options.lr, "samples": options.samples,
                "mse": float(mse.mean()), "clip_distance": float(away.mean()), "drift": float((predicted(tuned) - untouched).square().mean()), "tuning_seconds": tuned.cost.seconds,
                "tuning_evaluations": tuned.cost.network_evaluations, "class_images": options.class_images, "sampler_steps": options.sampler_steps, "weight": pocket.GUIDANCE,
            })  # fmt: skip
            print(
                f"seed {seed}, lambda {prior:g}: mse {lines[-1]['mse']:.4f}, CLIP distance {lines[-1]['clip_distance']:.4f}, drift {lines[-1]['drift']:.5f}",
                flush=True,
            )
            if seed == 0:
                rows.append([to_uint8(example.image), *(to_uint8(p) for p in after[:4].split(1))])
    options.out.mkdir(parents=True, exist_ok=True)
    labelled_grid(
        rows, row_labels=["untouched", "without prior", "with prior"], column_labels=["base image", *(f"noise {k}" for k in range(4))],
        path=options.out / "prior_preservation.png",
    )  # fmt: skip
    (HERE / "records" / "prior_preservation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("mse", "clip_distance", "drift"):
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        closer = sum(with_prior[name] < without[name] for without, with_prior in pairs)
        means = [sum(line[name] for line in part) / len(part) for part in (lines[::2], lines[1::2])]
        verdict = "too few for a verdict" if len(pairs) < 3 else "held" if closer == len(pairs) else "did not hold"
        print(f"{name}: {means[0]:.5f} without, {means[1]:.5f} with; closer with the prior in {closer} of {len(pairs)} tunings: {verdict}")
    print(f"grid: {options.out / 'prior_preservation.png'}")


if __name__ == "__main__":
    main()
