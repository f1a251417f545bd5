"""Scores of edits: each metric is a class with a name, a direction and a card that says what its number is."""

import json
from collections.abc import Sequence
from pathlib import Path

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

from unitune.metrics.pixel import PROGRESS  # noqa: E402
from unitune.metrics.statistics import DERIVED  # noqa: E402
from unitune.types import Edit, Example, Metric, Refused  # noqa: E402

OF_DERIVED = {"progress": {"better": "higher", **PROGRESS}}  # the cards of DERIVED


def score(metrics: Sequence[Metric], edits: list[Edit]) -> list[dict[str, float]]:
    """Score edits with every metric; one dict per edit, name -> number, NaN where a metric does not apply. Two metrics of one name are refused."""
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(
            f"metrics of the same name: {', '.join(twice)}; a table has one column per name, so list each metric once"
        )
    scores: list[dict[str, float]] = [{} for _ in edits]
    for metric in metrics:
        for row, value in zip(scores, metric(edits), strict=True):
            row[metric.name] = float(value)
    return scores


def check(metrics: Sequence[Metric], examples: Sequence[Example]) -> None:
    """Let those metrics that ask something of a request (`check(request)`) refuse what they could not score, before anything is tuned."""
    for asks in (
        asks for metric in metrics if (asks := getattr(metric, "check", None)) is not None
    ):
        for example in examples:
            for request in example.requests:
                asks(request)


def cards(metrics: Sequence[Metric]) -> dict[str, dict[str, str]]:
    """Return what each metric's number is, by its name: a run writes this beside its scores."""
    return {
        metric.name: {"better": "higher" if metric.higher_is_better else "lower", **metric.card}
        for metric in metrics
    }


def write_cards(chosen: Sequence[Metric], folder: Path) -> None:
    """Write what each number is beside a run's records, and what tables make of them; the cards of other metrics that were scored before stay."""
    file = folder / "cards.json"
    known = (json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}) | cards(chosen)
    known |= {name: card for name, card in OF_DERIVED.items() if {*DERIVED[name]} <= {*known}}
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


__all__ = ["cards", "check", "score", "write_cards"]
