"""Curves with matplotlib: vector PDF and PNG, colours that colour-blind readers can tell apart, the same bytes on another run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito
MARKERS = "osD^v"
Points = Sequence[tuple[float, float]]


def curves(panels: Mapping[str, Mapping[str, Points]], *, x_label: str, path: Path, log_x: bool = False) -> list[Path]:
    """Draw one panel per entry, {panel's y label: {curve: [(x, y), ...]}}; write PATH.pdf and PATH.png and return them."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no time of drawing in the PDF
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.7), squeeze=False, layout="constrained")
    for axis, (y_label, lines) in zip(axes[0], panels.items(), strict=True):
        for k, (name, points) in enumerate(lines.items()):
            look = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "markersize": 4, "linewidth": 1.4}
            axis.plot(*zip(*sorted(points), strict=True), label=name, **look)
        if log_x:
            axis.set_xscale("log")
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(ending) for ending in (".pdf", ".png")]
    figure.savefig(written[0])
    figure.savefig(written[1], dpi=160, metadata={"Software": None})
    plt.close(figure)
    return written
