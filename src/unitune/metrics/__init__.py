"""Scores of edits: each metric is a class with a name, a direction and a card that says what its number is."""

from collections.abc import Sequence

from unitune.compat import ensure_torchvision

ensure_torchvision()

from unitune.types import Edit, Metric, Refused  # noqa: E402


def score(metrics: Sequence[Metric], edits: list[Edit]) -> list[dict[str, float]]:
    """Score edits with every metric; one dict per edit, name -> number, NaN where a metric does not apply. Two metrics of one name are refused."""
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(f"metrics of the same name: {', '.join(twice)}; a table has one column per name, so list each metric once")
    scores: list[dict[str, float]] = [{} for _ in edits]
    for metric in metrics:
        for row, value in zip(scores, metric(edits), strict=True):
            row[metric.name] = float(value)
    return scores


def cards(metrics: Sequence[Metric]) -> dict[str, dict[str, str]]:
    """Return what each metric's number is, by its name: a run writes this beside its scores."""
    return {metric.name: {"better": "higher" if metric.higher_is_better else "lower", **metric.card} for metric in metrics}


__all__ = ["cards", "score"]
