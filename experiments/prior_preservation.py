"""DreamBooth's prior preservation: a model that is tuned on one cat beside class images draws "a cat" more as it did before than without them.

Command:  python experiments/prior_preservation.py
Claim:    with prior preservation the class prompt's samples stay closer to the untouched model's. The paper's scores of that: PRES, how much samples of the class
          resemble the subject (by DINO 0.493 with and 0.664 without), and DIV, how much they differ from each other (LPIPS 0.391 and 0.371).
Expected: for every tuning seed, PRES (here by the selecting CLIP's image features) and DIV (mean ST-LPIPS of all pairs) nearer to the untouched model's own; and
          smaller changes of the network's predictions for the untouched model's samples, noised to eight levels (mean squared error).
Besides:  distances of samples of the same noise, mean squared error and 1 - cosine of features. They are no measure of preservation alone: a model that has
          collapsed to one picture is nearer to every sample than one that draws other cats. Where the text encoder hardly tells "a beikkpic cat" from "a cat", the
          two losses pull one prompt to two targets: the run's tunings.jsonl says how far it does.
Verdict:  as everywhere (statistics.verdict): none from fewer than 24 tunings; and they are tunings of one image, so it would be of that image alone.
Minutes:  about 8 on two CPU cores with AMX; pocket cascade, base stage, 128 steps x 4 draws of the image (and 4 of the class), AdamW, 3 seeds.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import torch

from unitune import rng
from unitune.benchmarks.manifest import Folder
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.stage import Condition
from unitune.images import to_uint8
from unitune.methods.dreambooth import DreamBooth
from unitune.metrics.clip import image_features, load_clip
from unitune.metrics.perceptual import STLPIPS, distance, features
from unitune.metrics.statistics import interval, verdict
from unitune.models import pocket
from unitune.runs.grid import labelled_grid
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.class_images import ClassImages
from unitune.tuning.finetune import Tuning
from unitune.types import Draw, Example, Request, Tuned

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src/unitune/assets"
PRESERVED = ("pres", "div")  # scores that are better when nearer to the untouched model's
APART = ("drift", "mse", "clip_distance")  # distances to the untouched model


def told(lines: Sequence[Mapping], own: Mapping[str, float]) -> Iterator[str]:
    """Write for each score its means and by how much the prior brings it nearer to the untouched model; lines without and with the prior take turns."""
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    for name in (*PRESERVED, *APART):
        target = own.get(name, 0.0)
        nearer = [
            abs(without[name] - target) - abs(with_prior[name] - target)
            for without, with_prior in pairs
        ]
        means = [sum(pair[k][name] for pair in pairs) / len(pairs) for k in range(2)]
        untouched = f", {target:.4f} of the untouched model" if name in own else ""
        found = interval(nearer)
        yield (
            f"{name}: {means[0]:.4f} without, {means[1]:.4f} with{untouched}; nearer with the prior by {found}, in {sum(gain > 0 for gain in nearer)} of "
            f"{len(pairs)} tunings: {verdict(found, images=len(pairs))}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="tunings, each with and without the prior"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=16,
        help="of the class prompt, with the same noise for all models",
    )
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
    sampler = Sampler(
        "cfg", template="{edit}", steps=options.sampler_steps, guidance=Guidance(pocket.GUIDANCE)
    )
    # Seeds that no class image has: those begin at 0.
    draws = [Draw(example.requests[0], 10_000 + k) for k in range(options.samples)]
    clip, perceptual = load_clip(ASSETS / "pocket/clip2"), STLPIPS().weights
    subject = image_features(clip, example.image)

    def sampled(tuned: Tuned) -> torch.Tensor:
        with cascade.using(tuned):
            return torch.cat(
                [edit.image for edit in sampler(cascade, example, tuned=tuned, draws=draws)]
            )

    @torch.no_grad()
    def preserved(samples: torch.Tensor) -> dict[str, float]:
        levels = features(perceptual, samples.clamp(-1, 1))
        one, other = (
            list(side) for side in zip(*combinations(range(len(samples)), 2), strict=True)
        )
        apart = distance(
            perceptual, [level[one] for level in levels], [level[other] for level in levels]
        )
        return {
            "pres": float((image_features(clip, samples) @ subject.T).mean()),
            "div": float(apart.mean()),
        }

    stage = cascade.stages[0]
    before = sampled(Tuned())
    own = preserved(before)
    levels = torch.linspace(100, 900, 8).long().repeat_interleave(len(before))
    noised = stage.schedule.add_noise(
        before.repeat(8, 1, 1, 1),
        rng.noise(
            (len(levels), *before.shape[1:]), seed=0, example="", stage="", role="drift", step=0
        ),
        levels,
    )
    condition = Condition(cascade.encode(["a cat"] * len(levels)))

    @torch.no_grad()
    def predicted(tuned: Tuned) -> torch.Tensor:
        with cascade.using(tuned):
            return stage.output(noised, levels, condition)

    untouched = predicted(Tuned())
    of_class = ClassImages(
        count=options.class_images, steps=options.sampler_steps, weight=pocket.GUIDANCE
    )
    lines, rows = [], [[to_uint8(example.image), *(to_uint8(p) for p in before[:4].split(1))]]
    tuning = Tuning(lr=options.lr, steps=options.steps, snapshots=())
    for seed in range(options.seeds):
        for prior in (0.0, 1.0):
            method = DreamBooth(
                {"base": tuning}, stages=("base",), prior=prior, class_images=of_class
            )
            tuned = make.prepare(
                method.recipe(example), cascade, example, store=Store(Path("store")), seed=seed
            )
            after = sampled(tuned)
            mse = (after.clamp(-1, 1) - before.clamp(-1, 1)).square().flatten(1).mean(dim=1)
            away = 1 - torch.nn.functional.cosine_similarity(
                image_features(clip, after), image_features(clip, before)
            )
            lines.append({
                "experiment": "prior_preservation", "prior": prior, "seed": seed, "steps": options.steps, "lr": options.lr, "samples": options.samples,
                "mse": float(mse.mean()), "clip_distance": float(away.mean()), "drift": float((predicted(tuned) - untouched).square().mean()),
                **preserved(after), **{f"{name}_untouched": value for name, value in own.items()}, "tuning_seconds": tuned.cost.seconds,
                "tuning_evaluations": tuned.cost.network_evaluations, "class_images": options.class_images, "sampler_steps": options.sampler_steps, "weight": pocket.GUIDANCE,
            })  # fmt: skip
            print(
                f"seed {seed}, lambda {prior:g}: "
                + ", ".join(f"{name} {lines[-1][name]:.4f}" for name in (*PRESERVED, *APART)),
                flush=True,
            )
            if seed == 0:
                rows.append([to_uint8(example.image), *(to_uint8(p) for p in after[:4].split(1))])
    options.out.mkdir(parents=True, exist_ok=True)
    labelled_grid(
        rows, row_labels=["untouched", "without prior", "with prior"], column_labels=["base image", *(f"noise {k}" for k in range(len(rows[0]) - 1))],
        path=options.out / "prior_preservation.png",
    )  # fmt: skip
    (HERE / "records" / "prior_preservation.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    print(*told(lines, own), sep="\n")
    print(f"grid: {options.out / 'prior_preservation.png'}")


if __name__ == "__main__":
    main()
