"""The curve of score against samples seen: `training_curve.jsonl` drawn, fitted, and followed to the targets."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitune.figures.curves import curves
from unitune.pretrain.card.estimates import power_law
from unitune.pretrain.card.readings import ONE, TARGETS
from unitune.types import Refused

FILE = "training_curve.jsonl"  # a line per look: part, samples, error and, where known, resolution (px) and noun (share of one-object samples that show it)
FAR = 1e12  # samples
MISSED = "the share of nouns missed"


@dataclass(frozen=True)
class Fit:
    """A power law through the later half of a curve: by what it falls, where the curve ends, and where the fit meets a target (infinite if never)."""

    part: str
    what: str
    per_doubling: float  # the factor
    points: int
    samples: int
    last: float
    target: float | None
    samples_at_target: float | None


def read_curve(folder: Path) -> list[dict]:
    """Read the looks at training, oldest first; empty without the file. A line that lacks part, samples or error is refused."""
    file = folder / FILE
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file.exists() else []
    for line in lines:
        if missing := {"part", "samples", "error"} - set(line):
            raise Refused(f"a line of {file} lacks {', '.join(sorted(missing))}: {line}; each needs part, samples, error")
    return lines


def draw_curve(lines: Sequence[dict], path: Path) -> None:
    """Draw error, and where it was looked at the share of nouns found, against samples, as a PNG."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for name, label in (("error", "error on unseen scenes"), ("noun", "named object found")):
            if name in line:
                panels.setdefault(label, {}).setdefault(_label(line), []).append((line["samples"], line[name]))
    seen = [line["samples"] for line in lines]
    wide = max(seen) >= 10 * min(seen)  # the labels of a logarithmic axis need a decade
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        curves(panels, x_label="samples seen", path=Path(folder) / "curve", log_x=wide)[1].replace(path)


def fits(lines: Sequence[dict]) -> list[Fit]:
    """Fit every part's error, and its share of nouns missed, at the resolution that it ended with; a curve with too few looks is left out."""
    found: list[Fit] = []
    last = {line["part"]: _label(line) for line in lines}
    for label in last.values():
        rows = [line for line in lines if _label(line) == label]
        error = [(line["samples"], line["error"]) for line in rows]
        missed = [(line["samples"], 1 - line["noun"]) for line in rows if "noun" in line]
        for what, points, target in (("the error", error, None), (MISSED, missed, 1 - TARGETS[ONE, "nouns"])):
            law = power_law(points)
            if law:
                found.append(Fit(label, what, law.per_doubling, law.points, *points[-1], target, None if target is None else law.reaches(target)))
    return found


def sentence(fit: Fit) -> str:
    """Say in words what a fit says."""
    how = f"falls by a factor of {1 / fit.per_doubling:.2f} per doubling of samples" if fit.per_doubling < 1 else "does not fall any more"
    text = f"{fit.part}: {fit.what} {how} (least squares on logarithms, last {fit.points} looks; {fit.last:.3g} at {fit.samples:,} samples)"
    if fit.target is None or fit.samples_at_target is None:
        return f"{text}."
    if fit.last <= fit.target:
        return f"{text}; the target, {fit.target:.2f}, is reached."
    where = f"at about {fit.samples_at_target:,.0f} samples" if fit.samples_at_target < FAR else "nowhere near"
    return f"{text}; the fit meets the target, {fit.target:.2f}, {where}."


def _label(line: dict) -> str:
    return f"{line['part']}, {line['resolution']} px" if "resolution" in line else line["part"]
