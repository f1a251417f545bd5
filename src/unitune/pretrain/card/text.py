"""The card of the pocket models as Markdown and as plain data, from what was measured; every word on a number's success is computed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unitune.pretrain.card.estimates import Row
from unitune.pretrain.card.learning import Fit, sentence
from unitune.scenes.scene import HELD_OUT_SHARE, MAX_OBJECTS, held_out
from unitune.scenes.vocabulary import COLOURS, NOUNS, PLACES, RELATIONS, STYLES, TIMES

WEAK = 0.75  # nouns found in fewer of their pictures are named
HOW = """\
How to read this: nothing is curated. Every measured prompt is the standard caption of a held-out composition, in which no time of day means day and no
style a plain picture. "Present" and "right" are what the judge reads at 64 px; it is itself fallible (see its rows), and more so on rough samples than on the
clean renders it learned from. Intervals are Wilson's for shares and bootstrap percentiles over pictures for means. A target is reached when the
value reaches it; chance is beaten when the whole interval lies above it.
Clipped: the share of pixel values with |x| >= 1 up to half a grey level; before thresholding, of the guided prediction, averaged over all steps.
Relations: the judge compares how far right the two objects stand; a model blind to the order places at most half of the pictures and a quarter of the pairs
as asked, and one that always puts the first noun left fails "right of". KID: unbiased MMD^2 with the kernel (cosine + 1)^3 of features of the CLIP that
scores, mean over 100 random halves; its interval is the spread of these halves, wider than that of their mean."""


@dataclass(frozen=True)
class Part:
    """Size of one part's weights."""

    parameters: int
    megabytes: float


@dataclass(frozen=True)
class Card:
    """All that was measured: `guidance` by weight, `nouns` as {noun: [found, pictures]}, `training` as training.json has it."""

    settings: Mapping[str, Any]
    measured: Mapping[str, Any]
    parts: Mapping[str, Part]
    training: Mapping[str, Any]
    rows: Sequence[Row]
    guidance: Mapping[float, Sequence[Row]]
    nouns: Mapping[str, Sequence[int]]
    looks: int  # at the training, of which `curve` holds the fits
    curve: Sequence[Fit]


def chain(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings that led to a part's weights, first to last: `before` holds the one that a training went on from."""
    trainings: list[Mapping[str, Any]] = []
    while entry:
        trainings.insert(0, entry)
        entry = entry.get("before") or {}
    return trainings


def world() -> dict[str, Any]:
    """Count what exists in the world, and which compositions pretraining never sees."""
    compositions = [held_out(noun, place, style) for noun in NOUNS for place in PLACES for style in STYLES]
    counted = {"nouns": NOUNS, "backgrounds": PLACES, "times of day": TIMES, "styles": STYLES, "colours": COLOURS, "relations": RELATIONS}
    names = {name: len(words) for name, words in counted.items()} | {"objects at most": MAX_OBJECTS}
    return names | {"compositions": len(compositions), "held out": sum(compositions), "held out by rule": HELD_OUT_SHARE}


def numbers(card: Card) -> dict[str, Any]:
    """Return everything as plain data for a JSON file; NaN and infinity become null."""
    table = {f"{weight:g}": [_entry(row) for row in rows] for weight, rows in card.guidance.items()}
    parts = {name: asdict(part) for name, part in card.parts.items()}
    kept = {name: getattr(card, name) for name in ("settings", "measured", "training", "nouns")}
    return _finite(
        {**kept, "data": world(), "parts": parts, "rows": [_entry(row) for row in card.rows], "guidance": table, "curve": [asdict(f) for f in card.curve]}
    )


def text(card: Card) -> str:
    """Return the card as Markdown."""
    data, settings, measured = world(), card.settings, card.measured
    sr = settings["sr"]
    total = sum(part.parameters for part in card.parts.values())
    lines = [
        "# The pocket models", "",
        "A small IF-shaped cascade (T5 encoder, 64 px base, 64->256 px super-resolution), CLIPs and a judge, trained on the scenes world of this package and",
        "on nothing else. Written by `python run.py --config-name pretrain part=card`; every number comes from that command and is in `card.json` too.", "",
        f"Weights: float16 safetensors, {total / 1e6:.1f} M parameters. Licence: as the project's; their sprites are Noto Color Emoji (OFL 1.1).", "",
        "## Data and training", "",
        "Scenes drawn and captioned on the fly from " + ", ".join(f"{data[k]} {k}" for k in list(data)[:6]) + f"; 1 to {data['objects at most']} objects.",
        f"Of {data['compositions']} compositions noun x background x style, {data['held out']} ({data['held out'] / data['compositions']:.1%}) are held out:",
        "pretraining never sees them, and everything below is measured on them.", "",
        "| part | parameters | MB | samples seen | minutes | machine |", "|---|---|---|---|---|---|", *_training(card), "",
        "Where a part went on from earlier weights, its trainings are summed and listed from first to last.", "",
        "## Numbers", "",
        f"{settings['count']} prompts of one and of two objects each; seed {settings['seed']}, guidance weight {settings['guidance']:g}, "
        f"{settings['base_steps']} DDPM steps;",
        f"super-resolution {sr['steps']} DDIM steps from start {sr['start']:g}, noise level {sr['noise_level']:g}, as `model=pocket` samples.",
        f"Measured in {measured['minutes']:g} minutes on {measured['machine']}.", "",
        "| part | what | value | 95 % interval | n | target | |", "|---|---|---|---|---|---|---|", *map(_row, card.rows), "",
        *_nouns(card), *_guidance(card), *_curve(card),
        "## Samples", "", "Fixed prompts, one row each; fixed seeds, nothing chosen.", "", "![uncurated samples](samples.png)", "", HOW, "",
    ]  # fmt: skip
    return "\n".join(lines)


def _training(card: Card) -> Iterator[str]:
    for name, part in card.parts.items():
        trainings = chain(card.training.get(name, {}))
        size = f"| {name} | {part.parameters / 1e6:.2f} M | {part.megabytes:.2f} |"
        if not trainings:
            yield f"{size} unknown | unknown | unknown |"
            continue
        machines = ", then ".join(dict.fromkeys(t["machine"] for t in trainings if "machine" in t))
        seen = _sum([f"{t['samples']:,}" for t in trainings], f"{sum(t['samples'] for t in trainings):,}")
        minutes = _sum([f"{t['minutes']:.0f}" for t in trainings], f"{sum(t['minutes'] for t in trainings):.0f}")
        yield f"{size} {seen} | {minutes} | {machines} |"


def _sum(parts: Sequence[str], total: str) -> str:
    return total if len(parts) < 2 else f"{total} ({' + '.join(parts)})"


def _row(row: Row) -> str:
    verdict = f"**{row.verdict}**" if row.verdict == "not reached" else row.verdict
    return f"| {row.part} | {row.what} | {_value(row.value)} | {_interval(row)} | {row.n or ''} | {row.target} | {verdict} |"


def _value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _interval(row: Row) -> str:
    return "" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"


def _bracketed(interval: str) -> str:
    return f" ({interval})" if interval else ""


def _guidance(card: Card) -> Iterator[str]:
    tables = list(card.guidance.items())
    if tables:
        first = tables[0][1]
        yield from ("## Guidance weight", "", f"Base stage, one-object prompts, the same {first[0].n} prompts and noise at every weight.", "")
        yield "| weight | " + " | ".join(row.what for row in first) + " |"
        yield "|---|" + "---|" * len(first)
        for weight, rows in tables:
            yield f"| {weight:g} | " + " | ".join(_value(row.value) + _bracketed(_interval(row)) for row in rows) + " |"
        yield ""


def _nouns(card: Card) -> Iterator[str]:
    weak = [f"{noun} ({hits} of {n})" for noun, (hits, n) in card.nouns.items() if hits < WEAK * n]
    listed = ", ".join(weak) if weak else "none"
    yield from (f"Nouns found in fewer than {WEAK:.0%} of their one-object samples: {listed}.", "")


def _curve(card: Card) -> Iterator[str]:
    if card.looks:
        yield from ("## Score against samples seen", "", "![error and found objects against samples seen](curve.png)", "")
        yield from (*(f"- {sentence(fit)}" for fit in card.curve), "")


def _entry(row: Row) -> dict[str, Any]:
    return {**asdict(row), "verdict": row.verdict}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
