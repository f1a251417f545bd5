"""One self-contained HTML page of a run or a sweep.

It shows scores, the trade-off, pictures beside their base image, settings and metric cards; it
loads nothing and needs no server. `python run.py --config-name report runs=DIR` writes it again.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from unitune.metrics.statistics import ENOUGH
from unitune.report import plots, saved_runs, tables, tuning_notes
from unitune.report.differences import differences_or_why
from unitune.report.groups import Cards, Group, higher_is_better, made_by, make_groups
from unitune.report.saved_runs import SavedRuns
from unitune.storage.files import write_whole
from unitune.storage.records import Record

FILE = "report.html"
SIDE, SMALL = 256, 160  # px of a picture in the page, and where there are many of them
MANY, MOST = 200, 1000  # pictures
# The first that was measured is the x axis of the trade-off, and its y axis.
FIDELITY = ("stlpips", "lpips", "psnr", "image_similarity", "mse", "ssim")
ALIGNMENT = ("alignment", "direction", "both")


def run(*, runs: str) -> list[str]:
    """Write the page of a run's folder, a folder of runs, or a record file; say where it is."""
    return [f"report: {write(saved_runs.load(runs))}"]


def write(read: SavedRuns) -> Path:
    """Write report.html into the folder of the records and return its path."""
    path = (read.path if read.path.is_dir() else read.path.parent) / FILE
    write_whole(page(read), path)
    return path


def page(read: SavedRuns) -> str:
    """Render the page, which may load nothing and run its own script only.

    Every text that comes from a record or a config is escaped.
    """
    assets = files("unitune") / "assets" / "report"
    template, style, script = (
        (assets / f"page.{form}").read_text(encoding="utf-8") for form in ("html", "css", "js")
    )
    digest = hashlib.sha256(script.encode()).digest()
    groups = make_groups(read.records, settings=read.settings)
    main = tables.comparison(groups, cards=read.cards).with_notes(read.provenance)
    differences, why_none = differences_or_why(groups, cards=read.cards)
    folders = dict.fromkeys(read.folders.values())
    notes = [note for folder in folders for note in tuning_notes.read(folder)]
    plot, plot_says = _plot(groups, read.cards)
    samples = [(group, one) for group in groups for one in group.records if one.row != "copy"]
    side = SIDE if len(samples) <= MANY else SMALL
    bases = _bases(read, side)
    tiles = [
        {"group": group, "record": record, "picture": _picture(read, record, side)}
        for group, record in samples[:MOST]
    ]
    made = [group for group in groups if not group.is_reference]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        read=read,
        style=style,
        script=script,
        script_hash=base64.b64encode(digest).decode(),
        made=made,
        images=len({record.example for group in made for record in group.records}),
        enough=ENOUGH,
        main=main,
        differences=differences,
        why_none=why_none,
        tunings=tuning_notes.table(notes),
        plot=plot,
        plot_says=plot_says,
        tiles=tiles,
        left_out=max(0, len(samples) - len(tiles)),
        side=side,
        bases=bases,
    )


def _bases(read: SavedRuns, side: int) -> dict[str, tuple[str, str]]:
    """Of each example a CSS class that shows its base image, and the image, which is there once."""
    found: dict[str, tuple[str, str]] = {}
    for record in read.records:
        new = record.row == "copy" and record.example not in found
        uri = _picture(read, record, side) if new else ""
        if uri:
            found[record.example] = (f"base-{len(found)}", uri)
    return found


def _picture(read: SavedRuns, record: Record, side: int) -> str:
    """Return a picture as a data URI, scaled down; "" for a file that is missing or no picture."""
    try:
        with Image.open(read.folders[record.run] / record.image, formats=("PNG", "JPEG")) as image:
            picture = image.convert("RGB")
    except Exception:  # decoders of damaged bytes raise anything
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = BytesIO()
    picture.save(data, "JPEG", quality=88)
    return _data_uri("jpeg", data.getvalue())


def _data_uri(form: str, data: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


def _plot(groups: Sequence[Group], cards: Cards) -> tuple[str, str]:
    """Draw alignment against fidelity as SVG; "" where the two were not both measured."""
    scored = dict.fromkeys(name for group in groups for name in group.scores)
    x, y = (
        next((name for start in starts for name in scored if name.startswith(start)), None)
        for starts in (FIDELITY, ALIGNMENT)
    )
    if x is None or y is None:
        return "", ""
    drawn: dict[str, list] = {}
    marks: dict[str, list] = {}
    for group in groups:
        if not {x, y} <= {*group.scores}:
            continue
        point = group.scores[x], group.scores[y]
        if group.is_reference:
            marks[group.label] = [point]
        else:
            row = "" if group.row == "edit" else f" ({group.row})"
            drawn.setdefault(f"{made_by(group)}{row}", []).append(point)
    x_label, y_label = (
        f"{name} ({'higher' if higher_is_better(name, cards) else 'lower'} is better)"
        for name in (x, y)
    )
    with plots.panels(1, width=plots.WITH_LEGEND) as (figure, axes):
        plots.draw_tradeoff(axes[0], drawn, x_label=x_label, y_label=y_label, marks=marks)
        svg = plots.encoded(figure, "svg")
    return _data_uri("svg+xml", svg), f"{y} against {x}, arms are 95 % intervals over images"
