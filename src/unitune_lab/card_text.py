"""The card's rows with their intervals and targets, as plain data and as a model card."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from unitune.models.pocket import GUIDANCE, STEPS
from unitune.scenes.scene import held_out
from unitune.scenes.vocabulary import COLOURS, NOUNS, PLACES, STYLES, TIMES
from unitune.storage.files import write_whole

from unitune_lab.records import history, looks, records, total

LEVEL = 0.95
WORDS = {
    "single": "single object present",
    "single_alone": "single object present and no other",
    "pair": "both of two objects present",
    "place": "place right",
    "time": "time of day right",
    "style": "style right",
    "colours": "colour as named",
    "count": "count right, two and three of a kind",
    "relation": '"left of" and its reverse placed as asked, where both objects are found',
    "judge_targets": "judge: all facts of exact targets found, unfiltered draws",
    "judge_colours": "judge: colours right on renders",
    "judge_nouns": "judge: nouns right on renders, and no other",
    "clip_noun": "CLIP names the single object",
    "clip2_noun": "second CLIP names the single object",
    "clip_caption_of_16": "CLIP finds the caption among 16",
    "sr_psnr": "sr256 over bicubic, PSNR, dB",
    "sr_stlpips": "sr256 over bicubic, ratio of ST-LPIPS",
    "rare_to_empty": "distance of a rare word to the empty text, over that of a changed noun",
    "rare_to_rare": "distance of two rare words, over that of a changed noun",
}
# What is asked: of the first weights of this world, and of those of record.
TARGETS: Mapping[str, tuple[float, float]] = {
    "single": (0.85, 0.95), "single_alone": (0.80, 0.92), "pair": (0.50, 0.85),
    "place": (0.97, 0.99), "time": (0.97, 0.99), "style": (0.97, 0.99), "colours": (0.40, 0.85),
    "count": (0.75, 0.90), "relation": (0.50, 0.85), "judge_targets": (0.98, 0.99),
    "judge_colours": (0.95, 0.97), "clip_noun": (0.80, 0.90), "sr_psnr": (1.0, 2.5),
    "sr_stlpips": (0.45, 0.30), "rare_to_empty": (1.0, 1.0),
}  # fmt: skip
SMALL_IS_GOOD = {"sr_stlpips"}
CHANCE = {"relation": 0.5}  # a target of this value is reached by an interval that lies above it
WEAK = 0.9  # nouns found in a smaller share of their pictures are named
CARD = """# The embedded models

A cascade of the shape of DeepFloyd IF (a T5 encoder, a UNet of 64 px, a UNet from 64 to 256 px),
a judge that reads pictures and two CLIPs, trained on the scenes world of this package alone. This
card is written by `python -m unitune_lab.card FOLDER`, {count} prompts of one object and as many
of two, in {minutes} minutes; card.json has its numbers. Weights: float16 safetensors, under the
project's licence; the sprites of the scenes are Noto Color Emoji (SIL Open Font License 1.1).

## Training

Scenes are drawn and captioned while a part trains: {world}:
no part is ever shown one, and everything below is measured on them.

{training}

Hours are on the clock, with the drawing of scenes and the looks at unseen ones, of as many threads
as the table says; `training.json` has every option.

{curve}

## Numbers

{numbers}

{weak}

Nothing is chosen: every prompt is the standard caption of a held-out composition (with "left of"
or "right of" where that is asked), sampled once as `model=pocket` samples: {sampling}.
Every noun is asked for equally often. What is present and right in a sample is what the judge
reads, which errs as its own rows say.
Intervals are Wilson's for shares and Student's for means; the distances of texts have none.

## Samples

Held-out captions as they were drawn, four samples of each.

![Samples](samples.png)

## What they can and cannot do

{notes}
"""


@dataclass(frozen=True)
class Row:
    """One number from `n` cases with its interval, NaN where there is none."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


def share(name: str, hits: Sequence[bool]) -> Row:
    """Make a row of a share with Wilson's interval."""
    if not hits:
        return Row(name, math.nan)
    test = stats.binomtest(int(sum(hits)), len(hits))
    low, high = test.proportion_ci(LEVEL, method="wilson")
    return Row(name, sum(hits) / len(hits), float(low), float(high), len(hits))


def gain(scores: Sequence[Sequence[float]]) -> list[Row]:
    """Make the rows of super-resolution: the mean gain with Student's t, the ratio of the means.

    `scores` holds for each picture its PSNR, that of bicubic, its ST-LPIPS and that of bicubic.
    """
    sharp, plain, near, far = np.array(scores).T
    apart = sharp - plain
    spread = float(stats.t.ppf((1 + LEVEL) / 2, len(apart) - 1) * stats.sem(apart))
    mean = float(apart.mean())
    ratio = Row("sr_stlpips", float(near.mean() / far.mean()), n=len(near))
    return [Row("sr_psnr", mean, mean - spread, mean + spread, len(apart)), ratio]


def verdict(row: Row, target: float) -> str:
    """Say whether a value reaches its target."""
    value = row.low if target == CHANCE.get(row.name) else row.value
    reached = value <= target if row.name in SMALL_IS_GOOD else value >= target
    return f"{target:g} reached" if reached else f"{target:g} missed"


def write(
    folder: Path, rows: Sequence[Row], nouns: Mapping[str, Sequence[int]], *, count: int,
    minutes: float,
) -> None:  # fmt: skip
    """Write card.json and README.md, the model card, into a folder."""
    plain = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    data = {"count": count, "minutes": round(minutes, 1), "rows": plain, "nouns": dict(nouns)}
    text = json.dumps(data, indent=1) + "\n"
    write_whole(text, folder / "card.json")
    tables = {
        "world": _world(), "training": "\n".join(_training(folder)), "count": count,
        "numbers": "\n".join(_numbers(rows)), "weak": _weak(nouns), "minutes": round(minutes),
        "curve": _curve(folder), "notes": _notes(folder),
        "sampling": f"{STEPS} ancestral steps, guidance weight {GUIDANCE:g}",
    }  # fmt: skip
    card = CARD.format(**tables)
    write_whole(card, folder / "README.md")


def _world() -> str:
    all_of = itertools.product(NOUNS, PLACES, STYLES)
    kept = sum(held_out(*composition) for composition in all_of)
    count = len(NOUNS) * len(PLACES) * len(STYLES)
    return (
        f"{len(NOUNS)} nouns, {len(PLACES)} places, {len(TIMES)} times of day, {len(STYLES)} "
        f"styles and {len(COLOURS)} colours, with one to three objects.\n"
        f"Of {count} compositions of noun, place and style {kept} are held out"
    )


def _training(folder: Path) -> Iterator[str]:
    yield "| part | samples | hours | threads | optimizer | learning rate | phases |"
    yield "|---|---|---|---|---|---|---|"
    for part, done in records(folder).items():
        samples, hours = total(done, "samples"), total(done, "minutes") / 60
        last = done.get("options", {})
        phases = ", ".join(
            f"{phase['samples']:,} at {phase['resolution']} px in batches of {phase['batch_size']}"
            for phase in last.get("phases", ())
        )
        least = "at least " if any(one.get("unrecorded") for one in history(done)) else ""
        threads = last.get("threads") or "all"
        rate = f"{last['lr']:g}" if "lr" in last else ""
        spent = f"{least}{samples:,.0f} | {least}{hours:.1f} | {threads}"
        yield f"| {part} | {spent} | {last.get('optimizer', '')} | {rate} | {phases} |"


def _numbers(rows: Sequence[Row]) -> Iterator[str]:
    yield "| what | value | 95 % interval | n | first target | final target |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        span = "" if math.isnan(row.low) else f"[{row.low:.3g}, {row.high:.3g}]"
        first, final = (
            (verdict(row, t) for t in TARGETS[row.name]) if row.name in TARGETS else ("", "")
        )
        what = WORDS.get(row.name, row.name.replace("_", " "))
        yield f"| {what} | {row.value:.3g} | {span} | {row.n or ''} | {first} | {final} |"


def _weak(nouns: Mapping[str, Sequence[int]]) -> str:
    if not nouns:
        return "The first stage was not measured."
    weak = [one for one in nouns.items() if one[1][0] / one[1][1] < WEAK]
    weak.sort(key=lambda one: one[1][0] / one[1][1])
    told = [f"{noun} ({hit} of {asked})" for noun, (hit, asked) in weak]
    return f"Nouns found in fewer than {WEAK:.0%} of their pictures: {', '.join(told) or 'none'}."


def _curve(folder: Path) -> str:
    shown = any(line["part"] == "base" for line in looks(folder))
    return "![Scores against hours](curve.png)" if shown else "No look at the first stage is kept."


def _notes(folder: Path) -> str:
    file = folder / "NOTES.md"
    return file.read_text(encoding="utf-8").strip() if file.exists() else "Nothing is noted."
