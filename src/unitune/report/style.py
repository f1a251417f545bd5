"""How figures look: a column's width, type of 7 points or more, colours that colour-blind readers can tell apart, the same bytes on another run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT = (
    3.4,
    2.7,
)  # inches of one panel: a column of a two-column paper, so that points below are points on paper
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)  # Okabe and Ito, without yellow, which is weak on white
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "lines.linewidth": 1.4, "lines.markersize": 4, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "legend.frameon": False, "pdf.fonttype": 42, "svg.hashsalt": "unitune", "svg.fonttype": "path",
}  # fmt: skip
UNDATED: dict[str, dict] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}


def look(k: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the k-th curve: neighbours differ in all three, so they are told apart in grey too."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": DASHES[k % len(DASHES)],
    }


@contextmanager
def panels(
    count: int, *, width: float = WIDTH, height: float = HEIGHT
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Give a figure with panels side by side, drawn in this style."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no time of drawing in a file
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        yield figure, list(figure.subplots(1, count, squeeze=False)[0])


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PATH.pdf (vector) and PATH.png and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{ending}") for ending in ("pdf", "png")]
    for file in written:
        file.write_bytes(encoded(figure, file.suffix[1:]))
    return written


def encoded(figure: Figure, form: str) -> bytes:
    """Return a figure as the bytes of a PDF, PNG or SVG file."""
    data = BytesIO()
    figure.savefig(data, format=form, dpi=200, metadata=UNDATED[form])
    return data.getvalue()
