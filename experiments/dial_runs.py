"""What the searches of dials share: a method on images of a benchmark, sampled at many settings of one tuning and scored."""

import importlib.util
import itertools
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from unitune.models.cascade import files_digest
from unitune.models.pocket import FOLDER as POCKET

ROOT = Path(__file__).parent.parent
WORK = Path("outputs/search")
SCORES = ("appear", "stay", "both", "outside", "inside", "base_inside")
Setting = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """What a config names, built: a method, its sampler, the model, the store of its tunings, the images."""

    method: Any
    sampler: Any
    model: Any
    store: Any
    examples: tuple
    judge: str


def bench(method: str, overrides: Sequence[str]) -> Bench:
    """Build what the overrides say of a run with this method, on the CPU."""
    from hydra import compose, initialize_config_dir

    warnings.simplefilter("ignore")
    run = _run_module()
    label = (
        ["sampler=late_start"] if method == "unitune" else []
    )  # `composed_alike`, which interpolation reads, is told to no other method
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"method={method}", *overrides, "seeds=1", *label])
    from unitune.models import files, machine
    from unitune.storage.store import Store

    store, device = Store(WORK / "store"), machine.device("cpu")
    described = files.described(run.OmegaConf.to_container(cfg.model, resolve=True))
    model = run.cascade(described, device, machine.precision("auto", device), store)
    examples = tuple(run.make(cfg.benchmark).examples(cfg.model.resolution))
    return Bench(
        run.make(cfg.method), run.make(cfg.sampler), model, store, examples, cfg.metrics.judge
    )


def measured(
    method: str, overrides: Sequence[str], asked: Sequence[Setting], *, seeds: int = 1
) -> list[dict]:
    """Run a method as the overrides say, sample its settings, and score: one row an image and setting."""
    from unitune.metrics.pixel import BaseErrorInsideMask, ErrorInsideMask, MSEOutsideMask
    from unitune.metrics.success import EditSuccess

    built, rows = bench(method, overrides), []
    metrics = [EditSuccess(built.judge, column=name) for name in SCORES[:3]] + [
        MSEOutsideMask(),
        ErrorInsideMask(),
        BaseErrorInsideMask(),
    ]
    for example in built.examples:
        began = time.monotonic()
        found = sampled(built, example, asked, seeds=seeds)
        made = time.monotonic() - began
        for setting, edits in found:
            scores = dict(zip(SCORES, (metric(edits) for metric in metrics), strict=True))
            means = {name: _mean(values) for name, values in scores.items()}
            about = {
                "method": method,
                "setting": setting,
                "image": example.id,
                "edits": sum(v == v for v in scores["both"]),
            }
            rows.append(
                {
                    **about,
                    **means,
                    "seconds": round(made / len(found), 2),
                    "weights": built.model.digest,
                    "judge": judged(),
                }
            )
    return rows


def sampled(
    built: Bench, example: Any, asked: Sequence[Setting], *, seeds: int = 1
) -> list[tuple[Setting, list]]:
    """Sample an image's edits at each setting; a method whose tuning serves one edit is given them one by one."""
    from unitune.tuning import make
    from unitune.types import Draw, Inactive

    method, sampler, model = built.method, built.sampler, built.model
    parts = (
        [replace(example, requests=(request,)) for request in example.requests]
        if method.recipe(example).per_request
        else [example]
    )
    found: list[tuple[Setting, list]] = [(setting, []) for setting in asked]
    for part in parts:
        for key, group in itertools.groupby(
            found,
            key=lambda one: [
                one[0].get(name) for name in ("steps", "embedding_mix", "sr_start", "noise_level")
            ],
        ):
            at, mix, sr_start, level = key
            recipe = method.recipe(part)
            tuned = make.prepare(
                recipe, model, part, store=built.store, at=None if at is None else int(at)
            )
            if reason := make.inactive(recipe, model, tuned):
                raise Inactive(reason)
            mixed = (
                sampler if mix is None else replace(sampler, text=replace(sampler.text, eta=mix))
            )
            if sr_start is not None:
                mixed = replace(mixed, sr=replace(mixed.sr, start=sr_start, noise_level=level))
            members = list(group)
            draws = [
                Draw(
                    request,
                    seed,
                    float(s.get("weight", sampler.guidance.weight)),
                    float(s.get("start", sampler.start)),
                )
                for s, _ in members
                for request in part.requests
                for seed in range(seeds)
            ]
            with model.using(tuned):
                edits = mixed(model, part, tuned=tuned, draws=draws)
            each = seeds * len(part.requests)
            for k, (_, kept) in enumerate(members):
                kept += edits[k * each : (k + 1) * each]
    return found


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if value == value]
    return float(f"{math.fsum(known) / len(known):.5g}") if known else None


def _run_module() -> Any:
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def digest() -> str:
    """Name the shipped weights of the 64 px stage and its text encoder."""
    return files_digest([POCKET / "base"])


@cache
def judged() -> str:
    """Name the shipped judge."""
    return files_digest([POCKET / "judge"])
