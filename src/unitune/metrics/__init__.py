"""Scores of edits: a metric has a name, a direction and a card that says what its number is."""

import json
from collections.abc import Sequence
from pathlib import Path

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

from unitune.metrics.pixel import PROGRESS  # noqa: E402
from unitune.metrics.statistics import DERIVED  # noqa: E402
from unitune.storage.files import write_whole  # noqa: E402
from unitune.types import Edit, Example, Metric, Refused  # noqa: E402

OF_DERIVED = {"progress": {"better": "higher", **PROGRESS}}  # the cards of DERIVED


def score(metrics: Sequence[Metric], edits: list[Edit]) -> list[dict[str, float]]:
    """Score edits with every metric: name -> number of each edit, NaN where it does not apply.

    Two metrics of one name are refused.
    """
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(
            f"metrics of the same name: {', '.join(twice)}; "
            "a table has one column per name, so list each metric once"
        )
    scores: list[dict[str, float]] = [{} for _ in edits]
    for metric in metrics:
        for row, value in zip(scores, metric(edits), strict=True):
            row[metric.name] = float(value)
    return scores


def check(metrics: Sequence[Metric], examples: Sequence[Example]) -> None:
    """Let metrics with a `check(request)` refuse what they could not score, before any tuning."""
    for metric in metrics:
        refuse = getattr(metric, "check", None)
        if refuse is not None:
            for example in examples:
                for request in example.requests:
                    refuse(request)


def cards(metrics: Sequence[Metric]) -> dict[str, dict[str, str]]:
    """Return what each metric's number is, by its name."""
    return {
        metric.name: {"better": "higher" if metric.higher_is_better else "lower", **metric.card}
        for metric in metrics
    }


def write_cards(chosen: Sequence[Metric], folder: Path) -> None:
    """Write what each number is beside a run's records; cards of other metrics stay."""
    file = folder / "cards.json"
    known = _kept(file) | cards(chosen)
    known |= {name: card for name, card in OF_DERIVED.items() if {*DERIVED[name]} <= {*known}}
    write_whole(json.dumps(known, indent=1, ensure_ascii=False) + "\n", file)


def _kept(file: Path) -> dict[str, dict[str, str]]:
    """Read the cards that are there; none where the file is damaged, as it is written anew."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (ValueError, TypeError):
        return {}


__all__ = ["cards", "check", "score", "write_cards"]
