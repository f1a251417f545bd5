"""Curves, trade-offs and bars, with intervals where they are given."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from unitune.metrics.statistics import Interval
from unitune.report.style import COLOURS, WIDTH, look, panels, save

Points = Sequence[tuple[float, float | Interval]]  # (x, y)
TICKS = 7  # labels of an axis that stay apart
WITH_LEGEND = 1.4 * WIDTH  # inches of a trade-off, whose legend stands beside it
Pairs = Sequence[tuple[Interval, Interval]]  # (fidelity, alignment)


def curves(
    drawn: Mapping[str, Mapping[str, Points]], *, x_label: str, path: Path, log_x: bool = False
) -> list[Path]:
    """Draw one panel per entry, {panel's y label: {curve: [(x, y), ...]}}, a band where y is an interval; write PATH.pdf and PATH.png and return them."""
    with panels(len(drawn)) as (figure, axes):
        for axis, (y_label, lines) in zip(axes, drawn.items(), strict=True):
            for k, (name, points) in enumerate(lines.items()):
                _curve(axis, sorted(points), name, k)
            if log_x:
                axis.set_xscale("log")
                _ticks(axis, sorted({x for points in lines.values() for x, _ in points}))
            axis.set(xlabel=x_label, ylabel=y_label)
            if (
                axis.dataLim.ymin == axis.dataLim.ymax == 0
            ):  # a rate that is 0 everywhere: no room for less
                axis.set_ylim(0, 1)
            if len(lines) > 1:
                axis.legend()
        return save(figure, path)


def _curve(axis: Axes, points: Points, name: str, k: int) -> None:
    x, y = [x for x, _ in points], [y.mean if isinstance(y, Interval) else y for _, y in points]
    axis.plot(x, y, label=name, **look(k))
    if all(isinstance(y, Interval) for _, y in points):
        low, high = ([getattr(y, end) for _, y in points] for end in ("low", "high"))
        axis.fill_between(x, low, high, color=COLOURS[k % len(COLOURS)], alpha=0.18, linewidth=0)


def _ticks(axis: Axes, at: Sequence[float]) -> None:
    """Name the measured places themselves, where they are few."""
    if len(at) <= TICKS:
        axis.set_xticks(at, [f"{x:g}" for x in at])
        axis.minorticks_off()


def tradeoff(
    drawn: Mapping[str, tuple[Mapping[str, Pairs], Mapping[str, Pairs]]],
    *,
    x_label: str,
    path: Path,
) -> list[Path]:
    """Draw one panel per entry, {panel's y label: (lines, marks)}: a score of the edit against fidelity while a dial is turned.

    A line is a method, in the order of its settings; marks are single reference points.
    """
    width = (WIDTH * (len(drawn) - 1) + WITH_LEGEND) / len(drawn)
    with panels(len(drawn), width=width) as (figure, axes):
        for axis, (y_label, (lines, marks)) in zip(axes, drawn.items(), strict=True):
            draw_tradeoff(
                axis, lines, x_label=x_label, y_label=y_label, marks=marks, legend=axis is axes[-1]
            )
        return save(figure, path)


def draw_tradeoff(
    axis: Axes,
    drawn: Mapping[str, Pairs],
    *,
    x_label: str,
    y_label: str,
    marks: Mapping[str, Pairs],
    legend: bool = True,
) -> None:
    """Draw a trade-off into a panel; the arms of a point are its intervals."""
    for k, (name, points) in enumerate(drawn.items()):
        _arms(axis, points, name, {**look(k), "capsize": 1.5, "elinewidth": 0.7})
    for marker, (name, points) in zip("*hp8" * len(marks), marks.items(), strict=False):
        _arms(
            axis,
            points,
            name,
            {"color": "#666666", "marker": marker, "linestyle": "none", "markersize": 7},
        )
    axis.set(xlabel=x_label, ylabel=y_label)
    if legend:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside: it would lie on marks


def _arms(axis: Axes, points: Pairs, name: str, style: dict) -> None:
    x, y = ([point[side] for point in points] for side in (0, 1))
    arms = [
        [[_arm(it.mean, it.low) for it in side], [_arm(it.high, it.mean) for it in side]]
        for side in (x, y)
    ]
    axis.errorbar(
        [found.mean for found in x],
        [found.mean for found in y],
        xerr=arms[0],
        yerr=arms[1],
        label=name,
        **style,
    )


def _arm(above: float, below: float) -> float:
    return 0.0 if math.isnan(above - below) else max(above - below, 0.0)


def bars(drawn: Mapping[str, Mapping[str, Interval]], *, path: Path) -> list[Path]:
    """Draw one panel of horizontal bars per entry, {panel's x label: {bar: interval}}; write PATH.pdf and PATH.png and return them."""
    names = list(dict.fromkeys(name for group in drawn.values() for name in group))
    with panels(len(drawn), height=max(1.2, 0.28 * len(names) + 0.7)) as (figure, axes):
        for axis, (x_label, group) in zip(axes, drawn.items(), strict=True):
            for k, name in enumerate(names):
                if name in group:
                    mean, low, high = group[name]
                    axis.barh(k, mean, color=COLOURS[k % len(COLOURS)], alpha=0.75, height=0.7)
                    axis.errorbar(
                        [mean],
                        [k],
                        xerr=[[_arm(mean, low)], [_arm(high, mean)]],
                        color="black",
                        capsize=2,
                        linewidth=0.9,
                    )
            axis.set(xlabel=x_label, yticks=range(len(names)), yticklabels=names)
            if axis.dataLim.xmin == axis.dataLim.xmax == 0:
                axis.set_xlim(0, 1)
            axis.invert_yaxis()
            axis.tick_params(labelleft=axis is axes[0])
            axis.grid(axis="y", visible=False)
        return save(figure, path)
