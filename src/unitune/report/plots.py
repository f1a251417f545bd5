"""Curves, trade-offs and bars with intervals: one look, and the same bytes on another run.

A panel is as wide as a column of a paper, type is of 7 points or more, and colour-blind readers
can tell the colours apart.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unitune.metrics.statistics import Interval
from unitune.storage.files import write_whole

Points = Sequence[tuple[float, float | Interval]]  # (x, y)
Pairs = Sequence[tuple[Interval, Interval]]  # (fidelity, alignment)

WIDTH, HEIGHT = 3.4, 2.7  # inches of a panel: a column of two, so that points are points on paper
WITH_LEGEND = 1.4 * WIDTH  # inches of a trade-off, whose legend stands beside it
TICKS = 7  # labels of an axis that stay apart
# Okabe and Ito's colours, without yellow, which is weak on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "lines.linewidth": 1.4, "lines.markersize": 4, "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42,
    "svg.fonttype": "path", "svg.hashsalt": "unitune",
}  # fmt: skip
# What a file would say of the time or the version that made it.
UNSAID = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}


def curves(
    drawn: Mapping[str, Mapping[str, Points]], *, x_label: str, path: Path, log_x: bool = False
) -> list[Path]:
    """Draw one panel per entry, {panel's y label: {curve: [(x, y), ...]}}.

    An interval as y gives the curve a band. Writes PATH.pdf and PATH.png and returns them.
    """
    with panels(len(drawn)) as (figure, axes):
        for axis, (y_label, lines) in zip(axes, drawn.items(), strict=True):
            for k, (name, points) in enumerate(lines.items()):
                _curve(axis, sorted(points), name, k)
            if log_x:
                axis.set_xscale("log")
                at = sorted({x for points in lines.values() for x, _ in points})
                if len(at) <= TICKS:  # the measured places themselves
                    axis.set_xticks(at, [f"{x:g}" for x in at])
                    axis.minorticks_off()
            axis.set(xlabel=x_label, ylabel=y_label)
            if axis.dataLim.ymin == axis.dataLim.ymax == 0:  # a rate of 0: no room for less
                axis.set_ylim(0, 1)
            if len(lines) > 1:
                axis.legend()
        return _save(figure, path)


def tradeoff(
    drawn: Mapping[str, tuple[Mapping[str, Pairs], Mapping[str, Pairs]]],
    *,
    x_label: str,
    path: Path,
) -> list[Path]:
    """Draw one panel per entry, {panel's y label: (lines, marks)}, while a dial is turned.

    They show a score of the edit against fidelity. A line is a method, in the order of its
    settings; marks are single reference points. Writes PATH.pdf and PATH.png and returns them.
    """
    width = (WIDTH * (len(drawn) - 1) + WITH_LEGEND) / len(drawn)
    with panels(len(drawn), width=width) as (figure, axes):
        for axis, (y_label, (lines, marks)) in zip(axes, drawn.items(), strict=True):
            last = axis is axes[-1]
            draw_tradeoff(axis, lines, x_label=x_label, y_label=y_label, marks=marks, legend=last)
        return _save(figure, path)


def bars(drawn: Mapping[str, Mapping[str, Interval]], *, path: Path) -> list[Path]:
    """Draw one panel of horizontal bars per entry, {panel's x label: {bar: interval}}.

    Writes PATH.pdf and PATH.png and returns them.
    """
    names = list(dict.fromkeys(name for group in drawn.values() for name in group))
    with panels(len(drawn), height=max(1.2, 0.28 * len(names) + 0.7)) as (figure, axes):
        for axis, (x_label, group) in zip(axes, drawn.items(), strict=True):
            for k, name in enumerate(names):
                if name in group:
                    mean, arms = group[name].mean, _arms([group[name]])
                    axis.barh(k, mean, color=COLOURS[k % len(COLOURS)], alpha=0.75, height=0.7)
                    axis.errorbar([mean], [k], xerr=arms, color="black", capsize=2, linewidth=0.9)
            axis.set(xlabel=x_label, yticks=range(len(names)), yticklabels=names)
            if axis.dataLim.xmin == axis.dataLim.xmax == 0:
                axis.set_xlim(0, 1)
            axis.invert_yaxis()
            axis.tick_params(labelleft=axis is axes[0])
            axis.grid(axis="y", visible=False)
        return _save(figure, path)


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
        _crosses(axis, points, label=name, **look(k), capsize=1.5, elinewidth=0.7)
    grey = {"color": "#666666", "linestyle": "none", "markersize": 7}
    for marker, (name, points) in zip("*hp8" * len(marks), marks.items(), strict=False):
        _crosses(axis, points, label=name, marker=marker, **grey)
    axis.set(xlabel=x_label, ylabel=y_label)
    if legend:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside: it would lie on marks


def look(k: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the k-th curve.

    Neighbours differ in all three, so they are told apart in grey too.
    """
    looks = {"color": COLOURS, "marker": MARKERS, "linestyle": DASHES}
    return {name: kinds[k % len(kinds)] for name, kinds in looks.items()}


@contextmanager
def panels(
    count: int, *, width: float = WIDTH, height: float = HEIGHT
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Give a figure with panels side by side, drawn in this style; sizes are of one, in inches."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no time of drawing in a file
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        yield figure, list(figure.subplots(1, count, squeeze=False)[0])


def encoded(figure: Figure, form: str) -> bytes:
    """Return a figure as the bytes of a PDF, PNG or SVG file."""
    data = BytesIO()
    figure.savefig(data, format=form, dpi=200, metadata=UNSAID[form])
    return data.getvalue()


def _save(figure: Figure, path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{form}") for form in ("pdf", "png")]
    for file in written:
        write_whole(encoded(figure, file.suffix[1:]), file)
    return written


def _curve(axis: Axes, points: Points, name: str, k: int) -> None:
    x, y = [x for x, _ in points], [y.mean if isinstance(y, Interval) else y for _, y in points]
    axis.plot(x, y, label=name, **look(k))
    if all(isinstance(y, Interval) for _, y in points):
        low, high = ([getattr(y, end) for _, y in points] for end in ("low", "high"))
        axis.fill_between(x, low, high, color=COLOURS[k % len(COLOURS)], alpha=0.18, linewidth=0)


def _crosses(axis: Axes, points: Pairs, **style: Any) -> None:
    x, y = ([point[side] for point in points] for side in (0, 1))
    means = [[found.mean for found in side] for side in (x, y)]
    axis.errorbar(*means, xerr=_arms(x), yerr=_arms(y), **style)


def _arms(found: Sequence[Interval]) -> np.ndarray:
    """What a mean has below and above it, (2, n); 0 where too few images give no interval."""
    arms = [(one.mean - one.low, one.high - one.mean) for one in found]
    return np.nan_to_num(np.maximum(np.reshape(arms, (-1, 2)), 0)).T
