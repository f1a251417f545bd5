"""Scoring 500 edits with every offline metric: in batches with kept features, beside one call per edit with features recomputed; one process, the same numbers.

Command:  make bench  (python experiments/bench_scoring.py --edits 500)
Target:   at least 3x faster. Missed: 2.0x of CPU time (500 edits, one thread, a loaded machine; when edit success was one number). Nine tenths of what is left is ST-LPIPS, whose base images are
          computed once, which halves it; its convolutions bound the rest. CLIP scores are 12x faster, the judge 2x.
The side that recomputes is what separate scripts do: for each edit and metric the public function (torchmetrics, open_clip, the judge, ST-LPIPS as its authors
compute it), both pictures and both texts encoded anew. The last line of the table gives our own code called edit by edit with nothing kept.
Minutes:  5 on two CPU cores.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from tedbench import POCKET, offline
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from unitune import metrics
from unitune.metrics import clip as clips
from unitune.metrics.judge import SIZE as READ
from unitune.metrics.judge import found, load_judge, read_facts, reduced
from unitune.metrics.perceptual import CONVOLUTIONS, POOLED, STLPIPS, distance
from unitune.scenes import Object, Scene, caption, render
from unitune.scenes.vocabulary import NOUNS, PLACES
from unitune.types import Edit, Example, Metric, Request

SIZE, PROMPTS, SEEDS = 256, 5, 4  # px; edits of a base image as a run makes them


def edits_of(count: int) -> list[Edit]:
    """Renders with a little noise as edits: 20 of each base image, with captions, facts, targets and masks."""
    nouns, places, edits = list(NOUNS), list(PLACES), []
    g = torch.Generator().manual_seed(0)
    for number in range(-(-count // (PROMPTS * SEEDS))):
        noun, place = nouns[number % len(nouns)], places[number % len(places)]
        before = Scene(place, "day", (Object(noun, 0.5, 0.8, 0.5),))
        mask = torch.zeros(1, 1, SIZE, SIZE)
        mask[..., 64:224, 64:192] = 1
        base, requests = _picture(before), []
        for k in range(PROMPTS):
            other = nouns[(number + 7 * k + 1) % len(nouns)]
            after = Scene(place, "day", (Object(other, 0.5, 0.8, 0.5),))
            requests.append(
                Request(
                    caption(after),
                    target=_picture(after),
                    mask=mask,
                    facts={"nouns": [other], "place": place},
                    appear={"nouns": [other]},
                    stay={"place": place},
                )
            )
        example = Example(f"{number}", base, tuple(requests), caption=caption(before))
        for request in requests:
            for seed in range(SEEDS):
                noise = torch.randn(base.shape, generator=g) * 0.05
                assert request.target is not None
                edits.append(
                    Edit(
                        example,
                        request,
                        seed,
                        4.0,
                        0.9,
                        request.prompt,
                        (request.target + noise).clamp(-1, 1),
                    )
                )
    return edits[:count]


def _picture(scene: Scene) -> Tensor:
    return (
        torch.from_numpy(render(scene, SIZE)[0].copy())
        .permute(2, 0, 1)[None]
        .float()
        .div(127.5)
        .sub(1)
    )


def published() -> dict[str, Callable[[Edit], float]]:
    """The same scores of one edit, each from scratch, by public functions."""
    clip, judge, weights = (
        clips.load_clip(POCKET / "clip"),
        load_judge(POCKET / "judge"),
        STLPIPS().weights,
    )

    def image(x: Tensor) -> Tensor:
        return clips.image_features(clip, x)

    def text(words: str) -> Tensor:
        clip.texts.clear()
        return clips.text_features(clip, [words])

    def unit(x: Tensor) -> Tensor:
        return (x + 1) / 2

    def direction(e: Edit) -> float:
        return float(
            F.cosine_similarity(
                image(e.image) - image(e.example.image),
                text(e.request.prompt) - text(e.example.caption),
            )
        )

    def outside(e: Edit) -> float:
        assert e.request.mask is not None
        return float(
            (unit(e.image) - unit(e.example.image))
            .square()
            .mean(dim=1, keepdim=True)[e.request.mask < 0.5]
            .mean()
        )

    def inside(e: Edit, x: Tensor) -> float:
        assert e.request.mask is not None and e.request.target is not None
        return float(
            (unit(x) - unit(e.request.target))
            .square()
            .mean(dim=1, keepdim=True)[e.request.mask >= 0.5]
            .mean()
        )

    def seen(x: Tensor, facts: Mapping[str, object]) -> bool:
        return found(facts, read_facts(judge, reduced(x, READ))[0])

    def success(e: Edit, facts: Mapping[str, object]) -> float:
        assert e.request.target is not None
        if seen(e.example.image, e.request.facts) or not seen(e.request.target, e.request.facts):
            return math.nan  # a copy of the base would succeed, or the exact target would fail
        return float(seen(e.image, facts))

    def psnr(a: Tensor, b: Tensor | None) -> float:
        assert b is not None
        return float(peak_signal_noise_ratio(unit(a), unit(b), data_range=1.0))

    return {
        "alignment": lambda e: float(F.cosine_similarity(image(e.image), text(e.request.prompt))),
        "direction": direction,
        "image_similarity": lambda e: float(
            F.cosine_similarity(image(e.image), image(e.example.image))
        ),
        "stlpips": lambda e: float(
            distance(weights, _stlpips(weights, e.image), _stlpips(weights, e.example.image))
        ),
        "psnr": lambda e: psnr(e.image, e.example.image),
        "ssim": lambda e: float(
            structural_similarity_index_measure(
                unit(e.image), unit(e.example.image), data_range=1.0
            )
        ),  # type: ignore[arg-type]
        "mse": lambda e: float(F.mse_loss(unit(e.image), unit(e.example.image))),
        "psnr_target": lambda e: psnr(e.image, e.request.target),
        "mse_outside": outside,
        "error_inside": lambda e: inside(e, e.image),
        "base_error_inside": lambda e: inside(e, e.example.image),
        "appear": lambda e: success(e, e.request.appear),
        "stay": lambda e: success(e, e.request.stay),
        "both": lambda e: success(e, e.request.facts),
    }


def _stlpips(weights, x: Tensor) -> list[Tensor]:
    """The authors' network in the layout that PyTorch has by default."""
    levels = []
    x = (x - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    row = torch.tensor([0.25, 0.5, 0.25])
    for k, (name, padding) in enumerate(CONVOLUTIONS):
        kernel = torch.outer(row, row).expand(x.shape[1] if k in POOLED else 64, 1, 3, 3)
        if k in POOLED:
            x = F.conv2d(
                F.pad(F.max_pool2d(x, 3, 1), (2, 2, 2, 2), mode="reflect"),
                kernel,
                stride=2,
                groups=len(kernel),
            )
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)
        x = F.relu(
            F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=64)
            if k == 0
            else x
        )
        levels.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
    return levels


def alone(chosen: list[Metric], edit: Edit) -> dict[str, float]:
    """Score one edit by our metrics, each with nothing kept from another."""
    row = {}
    for metric in chosen:
        (kept := clips.Pocket(POCKET / "clip").load()).texts.clear()
        kept.pictures.clear()
        row[metric.name] = metric([edit])[0]
    return row


def equal(a: float, b: float) -> bool:
    """Whether two ways agree, also that there is no number."""
    return math.isnan(a) == math.isnan(b) and (math.isnan(a) or abs(a - b) < 1e-3 * max(1, abs(a)))


@torch.no_grad()
def main() -> None:
    """Time the three, compare their numbers, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    edits, chosen, theirs = edits_of(given.edits), offline(), published()
    ways: dict[str, Callable[[list[Edit]], list[dict[str, float]]]] = {
        "batches": lambda part: metrics.score(chosen, part),
        "functions": lambda part: [
            {name: score(edit) for name, score in theirs.items()} for edit in part
        ],
        "alone": lambda part: [alone(chosen, edit) for edit in part],
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    wall, cpu = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way(edits[:1])  # what a first call alone pays
    for first in range(
        0, len(edits), 100
    ):  # they take turns, so that whatever else the machine does meets all of them
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            rows[name] += way(edits[first : first + 100])
            wall[name] += time.perf_counter() - began
            cpu[name] += time.process_time() - used
    for other in ("functions", "alone"):
        for a, b in zip(rows["batches"], rows[other], strict=True):
            assert a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a), (a, b)
    print(
        f"{len(edits)} edits of {SIZE} px, {len(chosen)} metrics, {torch.get_num_threads()} threads\n"
    )
    print("| how | seconds | times as long | CPU seconds | times as many |\n|---|---|---|---|---|")
    labels = {
        "batches": "in batches, features kept",
        "functions": "a call per edit of public functions, features recomputed",
        "alone": "our metrics edit by edit",
    }
    for name, label in labels.items():
        print(
            f"| {label} | {wall[name]:.1f} | {wall[name] / wall['batches']:.2f} | {cpu[name]:.1f} | {cpu[name] / cpu['batches']:.2f} |"
        )
    ratio = wall["functions"] / wall["batches"]
    print(f"\n{ratio:.1f}x faster: {'reached' if ratio >= 3 else 'missed'} (target 3x)")


if __name__ == "__main__":
    main()
