"""The card's rows with their intervals and targets, as plain data and as Markdown."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from unitune_lab.train import write_whole

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
    """Write card.json and card.md into a folder."""
    plain = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    data = {"count": count, "minutes": round(minutes, 1), "rows": plain, "nouns": dict(nouns)}
    text = json.dumps(data, indent=1) + "\n"
    write_whole(folder / "card.json", lambda file: file.write_text(text, encoding="utf-8"))
    lines = "\n".join(_markdown(rows, nouns)) + "\n"
    write_whole(folder / "card.md", lambda file: file.write_text(lines, encoding="utf-8"))


def _markdown(rows: Sequence[Row], nouns: Mapping[str, Sequence[int]]) -> Iterator[str]:
    yield "| what | value | 95 % interval | n | first target | final target |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        span = "" if math.isnan(row.low) else f"[{row.low:.3g}, {row.high:.3g}]"
        first, final = (
            (verdict(row, t) for t in TARGETS[row.name]) if row.name in TARGETS else ("", "")
        )
        what = WORDS.get(row.name, row.name.replace("_", " "))
        yield f"| {what} | {row.value:.3g} | {span} | {row.n or ''} | {first} | {final} |"
    weak = {noun: hit / asked for noun, (hit, asked) in nouns.items() if hit / asked < WEAK}
    if weak:
        told = ", ".join(f"{n} {s:.2f}" for n, s in sorted(weak.items(), key=lambda one: one[1]))
        yield f"\nNouns found in fewer than {WEAK:.0%} of their pictures: {told}."
