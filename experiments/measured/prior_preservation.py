"""DreamBooth's prior preservation: with class images a model still draws "a cat" as before.

Command:  python experiments/measured/prior_preservation.py
Claim:    with prior preservation the class prompt's samples stay closer to the untouched model's.
          The paper's scores of that: PRES, how much samples of the class resemble the subject (by
          DINO 0.493 with and 0.664 without), and DIV, how much they differ from each other (LPIPS
          0.391 and 0.371).
Expected: for every tuning seed, PRES (here by the selecting CLIP's image features) and DIV (mean
          ST-LPIPS of all pairs) nearer to the untouched model's own; and smaller changes of the
          network's predictions for the untouched model's samples, noised to eight levels (mean
          squared error).
Besides:  distances of samples of the same noise, mean squared error and 1 - cosine of features.
          They are no measure of preservation alone: a model that has collapsed to one picture is
          nearer to every sample than one that draws other cats. Where the text encoder hardly tells
          "a beikkpic cat" from "a cat", the two losses pull one prompt to two targets: the run's
          tunings.jsonl says how far it does.
Verdict:  as everywhere (statistics.verdict): none from fewer than 24 tunings; and they are tunings
          of one image, so it would be of that image alone.
Minutes:  about 8 on two CPU cores with AMX; pocket cascade, base stage, 128 steps x 4 draws of the
          image (and 4 of the class), AdamW, 3 seeds.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch
from torch.nn.functional import cosine_similarity

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
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Example, Request, Tuned

ROOT = Path(__file__).parent.parent.parent
ASSETS = ROOT / "src/unitune/assets"
RECORD = ROOT / "experiments/records/prior_preservation.jsonl"
PRESERVED = ("pres", "div")  # scores that are better when nearer to the untouched model's
APART = ("drift", "mse", "clip_distance")  # distances to the untouched model


def told(lines: Sequence[Mapping], own: Mapping[str, float]) -> Iterator[str]:
    """Write for each score its means and by how much the prior brings it nearer.

    Nearer to the untouched model; lines without and with the prior take turns.
    """
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    for name in (*PRESERVED, *APART):
        target = own.get(name, 0.0)
        nearer = [abs(old[name] - target) - abs(new[name] - target) for old, new in pairs]
        without, with_prior = (fmean(pair[k][name] for pair in pairs) for k in range(2))
        untouched = f", {target:.4f} of the untouched model" if name in own else ""
        found, times = interval(nearer), sum(gain > 0 for gain in nearer)
        yield (
            f"{name}: {without:.4f} without, {with_prior:.4f} with{untouched}; "
            f"nearer with the prior by {found}, in {times} of {len(pairs)} tunings: "
            f"{verdict(found, images=len(pairs))}"
        )


class Measure:
    """What is seen of a tuned model: samples of the class prompt, and predictions of one noise."""

    def __init__(self, *, samples: int, steps: int) -> None:
        self.cascade = pocket.cascade()
        self.cascade.stages = self.cascade.stages[:1]
        demo = Folder(ASSETS / "demo").examples(self.cascade.resolution)[0]
        self.example = Example(demo.id, demo.image, (Request("a cat"),), noun="cat")
        guidance = Guidance(pocket.GUIDANCE)
        self.sampler = Sampler("cfg", template="{edit}", steps=steps, guidance=guidance)
        # Seeds that no class image has: those begin at 0.
        self.draws = [Draw(self.example.requests[0], 10_000 + k) for k in range(samples)]
        self.clip = load_clip(ASSETS / "pocket/clip2")
        self.subject = image_features(self.clip, self.example.image)
        self.before = self.sampled(Tuned())
        self.levels = torch.linspace(100, 900, 8).long().repeat_interleave(samples)
        shape = (len(self.levels), *self.before.shape[1:])
        noise = rng.noise(shape, seed=0, example="", stage="", role="drift", step=0)
        schedule = self.cascade.stages[0].schedule
        self.noised = schedule.add_noise(self.before.repeat(8, 1, 1, 1), noise, self.levels)
        self.untouched = self.predicted(Tuned())

    def sampled(self, tuned: Tuned) -> torch.Tensor:
        with self.cascade.using(tuned):
            edits = self.sampler(self.cascade, self.example, tuned=tuned, draws=self.draws)
        return torch.cat([edit.image for edit in edits])

    @torch.no_grad()
    def predicted(self, tuned: Tuned) -> torch.Tensor:
        condition = Condition(self.cascade.encode(["a cat"] * len(self.levels)))
        with self.cascade.using(tuned):
            return self.cascade.stages[0].output(self.noised, self.levels, condition)

    @torch.no_grad()
    def preserved(self, samples: torch.Tensor) -> dict[str, float]:
        weights = STLPIPS().weights
        levels = features(weights, samples.clamp(-1, 1))
        pairs = combinations(range(len(samples)), 2)
        one, other = (list(side) for side in zip(*pairs, strict=True))
        apart = distance(weights, [x[one] for x in levels], [x[other] for x in levels])
        pres = (image_features(self.clip, samples) @ self.subject.T).mean()
        return {"pres": float(pres), "div": float(apart.mean())}

    def apart(self, tuned: Tuned, after: torch.Tensor) -> dict[str, float]:
        """Distances of a tuned model's samples and predictions to the untouched one's."""
        pictures = (after, self.before)
        after, before = (x.clamp(-1, 1) for x in pictures)
        similar = cosine_similarity(*(image_features(self.clip, x) for x in pictures))
        return {
            "mse": float((after - before).square().mean()),
            "clip_distance": float((1 - similar).mean()),
            "drift": float((self.predicted(tuned) - self.untouched).square().mean()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="tunings, each without and with it")
    parser.add_argument("--samples", type=int, default=16, help="of the class prompt")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--sampler-steps", type=int, default=32)
    parser.add_argument("--class-images", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2.5e-4)
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    options = parser.parse_args()
    measure = Measure(samples=options.samples, steps=options.sampler_steps)
    cascade, example, own = measure.cascade, measure.example, measure.preserved(measure.before)
    classes = ClassImages(
        count=options.class_images, steps=options.sampler_steps, weight=pocket.GUIDANCE
    )

    def shown(pictures: torch.Tensor) -> list:
        return [to_uint8(example.image), *(to_uint8(p) for p in pictures[:4].split(1))]

    lines, rows = [], [shown(measure.before)]
    tuning = {"base": Tuning(lr=options.lr, steps=options.steps, snapshots=())}
    chosen = ("steps", "lr", "samples", "class_images", "sampler_steps")
    settings = {name: getattr(options, name) for name in chosen} | {"weight": pocket.GUIDANCE}
    for seed, prior in [(seed, prior) for seed in range(options.seeds) for prior in (0.0, 1.0)]:
        method = DreamBooth(tuning, stages=("base",), prior=prior, class_images=classes)
        recipe, store = method.recipe(example), Store(Path("store"))
        tuned = make.prepare(recipe, cascade, example, store=store, seed=seed)
        after = measure.sampled(tuned)
        line = {"experiment": "prior_preservation", "prior": prior, "seed": seed, **settings}
        line |= measure.apart(tuned, after) | measure.preserved(after)
        line |= {f"{name}_untouched": value for name, value in own.items()}
        line["tuning_seconds"] = tuned.cost.seconds
        line["tuning_evaluations"] = tuned.cost.network_evaluations
        lines.append(line)
        scores = ", ".join(f"{name} {line[name]:.4f}" for name in (*PRESERVED, *APART))
        print(f"seed {seed}, lambda {prior:g}: {scores}", flush=True)
        if seed == 0:
            rows.append(shown(after))
    options.out.mkdir(parents=True, exist_ok=True)
    labels = ["untouched", "without prior", "with prior"]
    columns = ["base image", *(f"noise {k}" for k in range(len(rows[0]) - 1))]
    path = options.out / "prior_preservation.png"
    labelled_grid(rows, row_labels=labels, column_labels=columns, path=path)
    RECORD.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(*told(lines, own), f"grid: {path}", sep="\n")


if __name__ == "__main__":
    main()
