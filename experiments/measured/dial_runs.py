"""What searches of dials share: a method at many settings of one tuning, its scores as rows."""

import itertools
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unitune.models.cascade import files_digest
from unitune.models.pocket import FOLDER as POCKET
from unitune.storage.files import write_whole

ROOT = Path(__file__).parent.parent.parent
RECORDS = ROOT / "experiments/records"
WORK = Path("outputs/search")
SCORES = ("appear", "stay", "both", "outside", "inside", "base_inside")
APART = ("steps", "embedding_mix", "sr_start", "noise_level")  # settings that are no dial of a draw
Setting = dict[str, float]
Measured = list[tuple[Setting, dict[str, float]]]  # settings with their averaged scores


@dataclass(frozen=True)
class Bench:
    """What a config names, built: a method, its sampler, the model, the store, the images."""

    method: Any
    sampler: Any
    model: Any
    store: Any
    examples: tuple
    judge: str


def bench(method: str, overrides: Sequence[str]) -> Bench:
    """Build what the overrides say of a run with this method, on the CPU."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import unitune.cli.main  # noqa: F401  # registers what conf/ names, as ${assets:...}
    from unitune.cli.jobs import cascade, make
    from unitune.models import files, machine
    from unitune.storage.store import Store

    warnings.simplefilter("ignore")
    # `composed_alike`, which interpolation reads, is told to no other method.
    label = ["sampler=late_start"] if method == "unitune" else []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"method={method}", *overrides, "seeds=1", *label])
    store, device = Store(WORK / "store"), machine.device("cpu")
    described = files.described(OmegaConf.to_container(cfg.model, resolve=True))
    model = cascade(described, device, machine.precision("auto", device), store)
    examples = tuple(make(cfg.benchmark).examples(cfg.model.resolution))
    return Bench(make(cfg.method), make(cfg.sampler), model, store, examples, cfg.metrics.judge)


def measured(
    method: str, overrides: Sequence[str], asked: Sequence[Setting], *, seeds: int = 1
) -> list[dict]:
    """Run a method as the overrides say and score its settings: one row an image and setting."""
    from unitune.metrics.pixel import BaseErrorInsideMask, ErrorInsideMask, MSEOutsideMask
    from unitune.metrics.success import EditSuccess

    built, rows = bench(method, overrides), []
    metrics = [EditSuccess(built.judge, column=name) for name in SCORES[:3]]
    metrics += [MSEOutsideMask(), ErrorInsideMask(), BaseErrorInsideMask()]
    for example in built.examples:
        began = time.monotonic()
        found = sampled(built, example, asked, seeds=seeds)
        seconds = round((time.monotonic() - began) / len(found), 2)
        for setting, edits in found:
            scores = dict(zip(SCORES, (metric(edits) for metric in metrics), strict=True))
            rows.append(
                {
                    "method": method,
                    "setting": setting,
                    "image": example.id,
                    "edits": sum(value == value for value in scores["both"]),
                    **{name: _mean(values) for name, values in scores.items()},
                    "seconds": seconds,
                    "weights": built.model.digest,
                    "judge": judged(),
                }
            )
    return rows


def sampled(
    built: Bench, example: Any, asked: Sequence[Setting], *, seeds: int = 1
) -> list[tuple[Setting, list]]:
    """Sample an image's edits at each setting.

    A method whose tuning serves one edit is given them one by one.
    """
    from unitune.tuning import make
    from unitune.types import Draw, Inactive

    model, sampler, parts = built.model, built.sampler, [example]
    if built.method.recipe(example).per_request:
        parts = [replace(example, requests=(request,)) for request in example.requests]
    found: list[tuple[Setting, list]] = [(setting, []) for setting in asked]
    for part in parts:
        recipe = built.method.recipe(part)
        for apart, group in itertools.groupby(found, lambda one: [one[0].get(n) for n in APART]):
            members, at = list(group), apart[0]
            tuned = make.prepare(
                recipe, model, part, store=built.store, at=None if at is None else int(at)
            )
            if reason := make.inactive(recipe, model, tuned):
                raise Inactive(reason)
            draws = [
                Draw(
                    request,
                    seed,
                    float(setting.get("weight", sampler.guidance.weight)),
                    float(setting.get("start", sampler.start)),
                )
                for setting, _ in members
                for request in part.requests
                for seed in range(seeds)
            ]
            with model.using(tuned):
                edits = _turned(sampler, *apart[1:])(model, part, tuned=tuned, draws=draws)
            each = seeds * len(part.requests)
            for k, (_, kept) in enumerate(members):
                kept += edits[k * each : (k + 1) * each]
    return found


def _turned(sampler: Any, mix: float | None, start: float | None, level: float | None) -> Any:
    if mix is not None:
        sampler = replace(sampler, text=replace(sampler.text, eta=mix))
    if start is not None:
        sampler = replace(sampler, sr=replace(sampler.sr, start=start, noise_level=level))
    return sampler


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if value == value]
    return float(f"{math.fsum(known) / len(known):.5g}") if known else None


def averages(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average the rows of one setting: shares over feasible edits, errors over images."""
    edits = sum(row["edits"] for row in members)
    shares = {
        name: sum(row[name] * row["edits"] for row in members if row["edits"]) / edits
        for name in SCORES[:3]
    }
    outside = [row["outside"] for row in members if row["outside"] is not None]
    inside, base = (sum(row[name] for row in members) for name in ("inside", "base_inside"))
    errors = {"outside": math.fsum(outside) / len(outside), "progress": 1 - inside / base}
    return shares | errors | {"edits": edits}


def best(found: Measured, *, bound: float) -> tuple[Setting, dict[str, float]]:
    """Choose the highest success within the bound on the error outside the mask.

    Of equal ones the one with the smaller error; where none is within it, the smallest error.
    """
    within = [one for one in found if one[1]["outside"] <= bound]
    if not within:
        return min(found, key=lambda one: one[1]["outside"])
    return max(within, key=lambda one: (round(one[1]["both"], 6), -one[1]["outside"]))


@cache
def digest() -> str:
    """Name the shipped weights of the 64 px stage and its text encoder."""
    return files_digest([POCKET / "base"])


@cache
def judged() -> str:
    """Name the shipped judge."""
    return files_digest([POCKET / "judge"])


def search(todo: Mapping[str, Callable[[], list[dict]]], work: Path) -> list[dict]:
    """Measure the cells that nobody has measured or is measuring; return all rows that are there.

    Any number of processes may do so side by side.
    """
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, cell in todo.items():
        file = work / f"{name}.jsonl"
        try:
            with FileLock(work / f"{name}.lock", timeout=0):
                if not file.exists():
                    print(f"measuring {name}", flush=True)
                    write(cell(), file)
        except Timeout:  # another process has it
            continue
        rows += lines(file)
    return rows


def write(rows: Sequence[Mapping], file: Path) -> None:
    """Write rows as JSON, one a line."""
    write_whole("".join(json.dumps(row) + "\n" for row in rows), file)


def lines(file: Path) -> list[dict]:
    """Read the rows of a record; none where it is missing."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def read(file: Path, *, weights: str = "") -> list[dict]:
    """Read kept rows; those of other weights or another judge than the shipped ones are refused.

    The weights are those of the 64 px stage, unless `weights` names others.
    """
    if not file.is_file():
        refuse(f"{file} is not there; make it: python experiments/measured/search_dials.py")
    rows = lines(file)
    for name, shipped in (("weights", weights or digest()), ("judge", judged())):
        for row in rows:
            if row.get(name) != shipped:
                refuse(
                    f"{file} was measured with the {name} {(row.get(name) or 'unknown')[:12]}, "
                    f"and {shipped[:12]} is shipped; measure again: python {sys.argv[0]}"
                )
    return rows


def refuse(why: str) -> None:
    """Say in one line why there is no answer, and end with the exit code of refused input."""
    print(f"search_dials: {why}", file=sys.stderr)
    raise SystemExit(2)
