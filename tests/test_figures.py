"""Figures: the same bytes twice, intervals, type that can be read in print, no model behind."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib import font_manager
from PIL import Image

from unitune.metrics.statistics import Interval
from unitune.report.plots import (
    COLOURS,
    MARKERS,
    STYLE,
    WIDTH,
    bars,
    curves,
    draw_tradeoff,
    encoded,
    look,
    panels,
    tradeoff,
)

ROOT = Path(__file__).parent.parent
LINES = {
    "one": [(0.0, Interval(1.0, 0.5, 1.5)), (1.0, Interval(2.0, 1.5, 2.5))],
    "two": [(1.0, 3.0), (0.0, 2.0)],
}
PAIRS = {
    "one": [
        (Interval(0.1, 0.0, 0.2), Interval(0.5, 0.4, 0.6)),
        (Interval(0.3, 0.2, 0.4), Interval(0.7, 0.6, 0.8)),
    ]
}
NAN = float("nan")
REFERENCE = {"copy of the base": [(Interval(0.0, NAN, NAN), Interval(0.2, 0.1, 0.3))]}


def drawn(folder: Path) -> list[Path]:
    score = {"one": Interval(1, 0.5, 1.5), "two": Interval(2, NAN, NAN)}
    return [
        *curves({"y": LINES}, x_label="x", path=folder / "a.b"),
        *tradeoff({"y": (PAIRS, REFERENCE)}, x_label="x", path=folder / "tradeoff"),
        *bars({"score": score}, path=folder / "bars"),
    ]


def test_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    first = drawn(tmp_path / "1")
    monkeypatch.setattr("time.time", lambda: 1e9)
    second = drawn(tmp_path / "2")
    names = [f"{name}.{form}" for name in ("a.b", "tradeoff", "bars") for form in ("pdf", "png")]
    assert [file.name for file in first] == names
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert not [file for file in first if b"CreationDate" in file.read_bytes()]


def test_pdfs_hold_type_as_type_and_are_as_wide_as_a_column(tmp_path):
    file = drawn(tmp_path)[0].read_bytes()
    assert b"/Type3" not in file  # outlines of letters, which journals refuse
    width = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", file)
    assert width is not None and float(width[1]) == pytest.approx(72 * WIDTH)


def test_type_is_at_least_seven_points():
    sizes = {
        name: value
        for name, value in STYLE.items()
        if name.endswith("size") and not name.startswith("lines")
    }
    assert len(sizes) == 6 and min(sizes.values()) >= 7
    font_manager.findfont(STYLE["font.family"], fallback_to_default=False)


def test_neighbours_differ_in_colour_marker_and_dashes():
    looks = [look(k) for k in range(len(COLOURS))]
    assert len({tuple(found.values()) for found in map(look, range(28))}) == 28
    for key in ("color", "marker", "linestyle"):
        assert all(a[key] != b[key] for a, b in pairwise(looks))
    assert len(MARKERS) == len(COLOURS)


def test_intervals_are_drawn(tmp_path):
    bare = {"one": [(x, y.mean) for x, y in LINES["one"]]}
    (_, with_bands) = curves({"y": {"one": LINES["one"]}}, x_label="x", path=tmp_path / "band")
    (_, without) = curves({"y": bare}, x_label="x", path=tmp_path / "line")
    colours = [
        len({pixel[:3] for pixel in Image.open(file).convert("RGB").get_flattened_data()})
        for file in (with_bands, without)
    ]
    assert colours[0] > colours[1]
    with panels(1) as (figure, (axis,)):
        draw_tradeoff(axis, PAIRS, x_label="x", y_label="y", marks=REFERENCE)
        arms = [line.get_segments() for container in axis.containers for line in container[2]]
        assert [[point.tolist() for point in arms[1][0]]] == [[[0.1, 0.4], [0.1, 0.6]]]
        assert encoded(figure, "svg").count(b"<svg") == 1


def test_figures_come_from_records_without_a_model():
    command = (
        "import sys, runpy; sys.path.insert(0, 'experiments'); "
        "runpy.run_path('experiments/figures.py'); "
        "print(*{'diffusers', 'transformers', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert not done.stdout.split()
