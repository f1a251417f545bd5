"""The card's pictures: samples that nobody chose, and how the scores grew."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.images import to_uint8
from unitune.report.plots import curves
from unitune.runs.grid import labelled_grid
from unitune.scenes import Scene, caption

from unitune_lab.parts.stage import StagePart
from unitune_lab.watch import sample

EACH, TILE = 4, 96  # samples of a caption; px
SHOWN = ("single", "pair", "colours", "place")  # of the first stage's looks
HOURS = "hours of one core"


def draw_samples(stage: StagePart, scenes: Sequence[Scene], path: Path, *, seed: int) -> None:
    """Sample the caption of each scene EACH times at 64 px; a row has one."""
    captions = [caption(scene) for scene in scenes]
    asked = [text for text in captions for _ in range(EACH)]
    stage.network.eval()
    pictures = sample(stage, stage.network, asked, resolution=64, seed=seed)
    tiles = [to_uint8(picture[None]) for picture in pictures]
    rows = [tiles[k : k + EACH] for k in range(0, len(tiles), EACH)]
    labelled_grid(rows, row_labels=captions, column_labels=[], path=path, tile=TILE)


def draw_curve(looks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the first stage's scores and error against hours, in a PNG alone."""
    found = [line for line in looks if line["part"] == "base"]
    if not found:
        return
    hours = [(line["minutes"] / 60, line) for line in found]
    scores = {
        name: points
        for name in SHOWN
        if (points := [(x, line[name]) for x, line in hours if name in line])
    }
    panels: dict[str, Any] = {"error of x_0": {"": [(x, line["error"]) for x, line in hours]}}
    if scores:
        panels = {"share found by the judge": scores} | panels
    for file in curves(panels, x_label=HOURS, path=path.with_suffix("")):
        if file.suffix != path.suffix:
            file.unlink()
