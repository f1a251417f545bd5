"""Measures trained parts on unseen compositions: python -m unitune_lab.card FOLDER.

FOLDER holds what the trainer wrote (PART/export) or the embedded models as they ship.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unitune.compat import ensure_torchvision

ensure_torchvision()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from unitune.backends.floyd import FloydStage  # noqa: E402
from unitune.diffusion.loop import Condition, denoise  # noqa: E402
from unitune.diffusion.start import first_image  # noqa: E402
from unitune.diffusion.steps import DDIM, Threshold, levels  # noqa: E402
from unitune.errors import Refused  # noqa: E402
from unitune.metrics.judge import Judge, found, load_judge, read_facts  # noqa: E402
from unitune.metrics.perceptual import STLPIPS, distance, features  # noqa: E402
from unitune.metrics.pixel import psnr  # noqa: E402
from unitune.pocket import SR  # noqa: E402
from unitune.scenes.render import render  # noqa: E402

from unitune_lab import start  # noqa: E402
from unitune_lab.card_text import Row, gain, share, write  # noqa: E402
from unitune_lab.make import build, go_on  # noqa: E402
from unitune_lab.networks import tokenizer  # noqa: E402
from unitune_lab.options import read  # noqa: E402
from unitune_lab.parts.judge import accuracies  # noqa: E402
from unitune_lab.parts.stage import StagePart, pixels  # noqa: E402
from unitune_lab.parts.text import TextPart  # noqa: E402
from unitune_lab.watch import sample  # noqa: E402
from unitune_lab.world import Scene, caption, random_scene  # noqa: E402
from unitune_lab.world.scene import relation  # noqa: E402
from unitune_lab.world.suite import generate  # noqa: E402
from unitune_lab.world.vocabulary import LEFT, RIGHT  # noqa: E402

SEED, COUNT = 6, 512  # COUNT prompts of one and of two objects; a quarter of groups and of pairs
BATCH = 64


def draw(count: int, *, counts: Sequence[float], seed: int, wanted: Callable) -> list[Scene]:
    """Draw scenes of unseen compositions that are wanted; `counts`: chances of 1, 2, 3 objects."""
    rng, scenes = np.random.default_rng([SEED, seed]), []  # type: ignore[var-annotated]
    while len(scenes) < count:
        scene = random_scene(rng, held_out=True, counts=counts)
        scenes += [scene] if wanted(scene) else []
    return scenes


def distinct(scene: Scene) -> bool:
    """Say whether no two objects of the scene are of one kind."""
    return len(_nouns(scene)) == len(scene.objects)


def leftward(scene: Scene) -> bool:
    """Say whether the scene is a pair of different objects, the first left of the second."""
    return distinct(scene) and relation(*scene.objects) == "left"


def _nouns(scene: Scene) -> set[str]:
    return {thing.noun for thing in scene.objects}


def _colours(scene: Scene) -> set[str]:
    return {thing.colour for thing in scene.objects} - {""}


def read_samples(stage: StagePart, judge: Judge, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Sample prompts at 64 px and let the judge read the samples."""
    stage.network.eval()
    seen: list[dict[str, Any]] = []
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        pictures = sample(stage, stage.network, part, resolution=64, seed=SEED + first)
        seen += read_facts(judge, pictures)
    return seen


def base_rows(stage: StagePart, judge: Judge, count: int) -> tuple[list[Row], dict[str, list[int]]]:
    """Measure what the judge finds in samples; also return [found, asked] by noun."""
    one = draw(count, counts=(1.0,), seed=1, wanted=distinct)
    two = draw(count, counts=(0.0, 1.0), seed=2, wanted=distinct)
    many = draw(count // 4, counts=(0.0, 1.0, 1.0), seed=3, wanted=lambda s: len(_nouns(s)) == 1)
    seen = {
        name: list(zip(scenes, read_samples(stage, judge, list(map(caption, scenes))), strict=True))
        for name, scenes in {"one": one, "two": two, "many": many}.items()
    }
    both = seen["one"] + seen["two"]
    rows = [
        share("single", [_nouns(s) <= f["nouns"] for s, f in seen["one"]]),
        share("single_alone", [_nouns(s) == f["nouns"] for s, f in seen["one"]]),
        share("pair", [_nouns(s) <= f["nouns"] for s, f in seen["two"]]),
        *(share(name, [getattr(s, name) == f[name] for s, f in both]) for name in
          ("place", "time", "style")),
        share("colours", [_colours(s) <= f["colours"] for s, f in both if _colours(s)]),
        share("count", [len(s.objects) == f["count"] for s, f in seen["many"]]),
    ]  # fmt: skip
    nouns: dict[str, list[int]] = {}
    for scene, facts in seen["one"]:
        entry = nouns.setdefault(scene.objects[0].noun, [0, 0])
        entry[0] += scene.objects[0].noun in facts["nouns"]
        entry[1] += 1
    return [*rows, relations(stage, judge, count // 4)], nouns


def relations(stage: StagePart, judge: Judge, count: int) -> Row:
    """Sample pairs "left of" and "right of"; count those placed as asked, of those found."""
    right: list[bool] = []
    for k, words in enumerate((LEFT[0], RIGHT[0])):
        scenes = draw(count, counts=(0.0, 1.0), seed=10 + k, wanted=leftward)
        prompts = [caption(s, related=True).replace(f" {LEFT[0]} ", f" {words} ") for s in scenes]
        for scene, facts in zip(scenes, read_samples(stage, judge, prompts), strict=True):
            first, second = (o.noun for o in scene.objects)
            if {first, second} <= facts["nouns"]:
                leads = facts["right"][second] > facts["right"][first]
                right.append(leads == (words == LEFT[0]))
    return share("relation", right)


def judge_rows(judge: Judge) -> list[Row]:
    """Let the judge read clean renders, and the exact targets of edits as they are drawn."""
    answers = accuracies(judge, count=4 * COUNT, seed=SEED)
    edits = generate(seed=SEED, per_type=30)
    pictures = torch.cat([_render(edit.after, 64) for edit in edits])
    seen = read_facts(judge, pictures)
    hits = [found(edit.facts, facts) for edit, facts in zip(edits, seen, strict=True)]
    names = ("colours", "nouns", "place", "time", "style", "count", "side")
    rows = [Row(f"judge_{name}", answers[name], n=4 * COUNT) for name in names]
    return [share("judge_targets", hits), *rows]


def _render(scene: Scene, size: int) -> Tensor:
    picture = torch.from_numpy(render(scene, size)[0].copy()).permute(2, 0, 1)[None]  # type: ignore
    return pixels(picture, torch.device("cpu"))


@torch.no_grad()
def sr_rows(stage: StagePart, count: int) -> list[Row]:
    """Super-resolve exact 64 px pictures as the embedded cascade does, beside bicubic."""
    unet: Any = stage.network.eval()["unet"]  # type: ignore[index]
    sampler = FloydStage(
        "sr256", 256, unet, stage.schedule, stage.loss_of_stage, Threshold(0.95, 1.0),
        low_resolution=64, align_corners=False, dtype=torch.bfloat16,
    )  # fmt: skip
    generator, metric = torch.Generator().manual_seed(SEED), STLPIPS()
    scores: list[list[float]] = []
    for scene in draw(count, counts=(0.5, 0.33, 0.17), seed=20, wanted=lambda _: True):
        truth = _render(scene, 256)
        low = F.interpolate(truth, (64, 64), mode="area")
        up = sampler.upsampled(low)

        def noise(*_: object, shape: torch.Size = truth.shape) -> Tensor:
            return torch.randn(shape, generator=generator)

        level = torch.full((1,), round(SR.noise_level * stage.schedule.T))
        text = stage.embed([caption(scene)])
        condition = Condition(text, stage.schedule.add_noise(up, noise(), level), level)
        t = torch.tensor([stage.schedule.level(SR.start)])
        steps = levels(stage.schedule, int(t[0]), SR.steps)[:, None]
        fine = denoise(
            sampler, first_image(stage.schedule, up, t, noise()), levels=steps,
            condition=condition, reference=condition, weight=torch.ones(1), step=DDIM(),
            noise=noise,
        ).clamp(-1, 1)  # fmt: skip
        bicubic = F.interpolate(low, 256, mode="bicubic", antialias=True).clamp(-1, 1)
        goal = features(metric.weights, truth)
        near = [float(distance(metric.weights, features(metric.weights, x), goal)[0])
                for x in (fine, bicubic)]  # fmt: skip
        scores.append(
            [*(float(psnr((x + 1) / 2, (truth + 1) / 2)) for x in (fine, bicubic)), *near]
        )
    return gain(scores)


def main(arguments: Sequence[str]) -> int:
    """Measure what a folder holds and write card.json and card.md into it; return the exit code.

    Arguments: the folder and, for a trial, another number of prompts than COUNT. A part that the
    folder lacks is named and left out; judge and text encoder are needed.
    """
    try:
        folder = Path(arguments[0]) if arguments else None
        if folder is None:
            raise Refused("name the folder that holds the trained parts")
        measure(folder, int(arguments[1]) if len(arguments) > 1 else COUNT)
    except Refused as refused:
        print(f"unitune_lab.card: {refused}", file=sys.stderr)
        return 2
    return 0


def measure(folder: Path, count: int) -> None:
    """Measure the parts of a folder, with so many prompts of one and of two objects."""
    began, nouns = time.monotonic(), {}
    judge = load_judge(start.required(folder, "judge"))
    rows = judge_rows(judge)
    text = TextPart(tokenizer(), torch.device("cpu"))
    start.start_text(text.network, folder)
    told = text.look(text.network.eval(), 64)
    rows += [Row(name, told[name]) for name in ("rare_to_empty", "rare_to_rare")]
    for part in ("base", "sr256", "clip", "clip2"):
        if start.exported(folder, part) is None:
            print(f"{folder} holds no {part}: it is not measured", file=sys.stderr)
            continue
        trained: Any = build(part, read(part, [f"folder={folder}"]))
        go_on(part, trained, folder)
        if part == "base":
            found_rows, nouns = base_rows(trained, judge, count)
            rows += found_rows
        elif part == "sr256":
            rows += sr_rows(trained, max(8, count // 8))
        else:
            seen = trained.look(trained.network, 64)
            rows += [Row(f"{part}_{name}", value, n=256) for name, value in seen.items()]
    minutes = (time.monotonic() - began) / 60
    write(folder, rows, nouns, count=count, minutes=minutes)
    print(json.dumps({row.name: round(row.value, 4) for row in rows}, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
