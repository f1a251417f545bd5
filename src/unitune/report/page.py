"""One self-contained HTML page of a run or a sweep: scores, trade-off, pictures beside their base image, settings, metric cards.

It loads nothing and needs no server. `python run.py --config-name report runs=DIR` writes it again.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from unitune.metrics.statistics import ENOUGH
from unitune.report import curves, source, style, tables, tunings
from unitune.report.source import Source
from unitune.storage.records import Record
from unitune.types import Refused

FILE = "report.html"
SIDE, SMALL = 256, 160  # px of a picture in the page, and where there are many of them
MANY, MOST = 200, 1000  # pictures
FIDELITY = (
    "stlpips",
    "lpips",
    "psnr",
    "image_similarity",
    "mse",
    "ssim",
)  # the first that was measured is the x axis of the trade-off
ALIGNMENT = ("alignment", "direction", "both")  # and its y axis


def run(*, runs: str) -> list[str]:
    """Write the report of a run's folder, a folder of runs, or a record file; say where it is."""
    return [f"report: {write(source.load(runs))}"]


def finished(folder: Path, done: Sequence[Record]) -> list[str]:
    """Say what a run made: its table by prompt, its grids, its page."""
    grids = sorted(folder.glob("grid*.png"))
    said = [*tunings.succeeded(done), *tunings.leaks(tunings.read(folder))]
    return [
        tables.plain(tables.by_prompt(done)),
        *said,
        *(f"grid: {grid}" for grid in grids),
        f"report: {write(source.load(folder))}",
    ]


def write(read: Source) -> Path:
    """Write report.html into the folder of the records and return its path."""
    path = (read.path if read.path.is_dir() else read.path.parent) / FILE
    path.write_text(page(read), encoding="utf-8")
    return path


def page(read: Source) -> str:
    """Render the page; every text that comes from a record or a config is escaped, and the page may load nothing and run its own script only."""
    assets = files("unitune") / "assets" / "report"
    template, css, script = (
        (assets / f"page.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js")
    )
    found = tables.lines(read.records, settings=read.settings)
    main = tables.comparison(found, cards=read.cards)
    try:
        differences, why = tables.differences(found, cards=read.cards), ""
    except Refused as refused:
        differences, why = None, f"No differences are shown: {refused}."
    plot, plot_says = _plot(found, read.cards)
    samples = [(line, record) for line in found for record in line.records if record.row != "copy"]
    side = SIDE if len(samples) <= MANY else SMALL
    bases = _bases(read, side)
    tiles = [_tile(read, line, record, side, bases) for line, record in samples[:MOST]]
    noted = tunings.table(
        [one for folder in dict.fromkeys(read.folders.values()) for one in tunings.read(folder)]
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=f"Edits in {read.path.name}", summary=_summary(found), style=css, script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        main=tables.Table(main.head, main.rows, (*main.notes, *read.provenance)), differences=differences, why_none=why, tunings=noted,
        plot=plot, plot_says=plot_says,
        methods=list(dict.fromkeys(tile["method"] for tile in tiles)), prompts=list(dict.fromkeys(tile["prompt"] for tile in tiles)),
        tiles=tiles, side=side, bases={name: uri for name, uri in bases.values()}, configs=read.configs, cards=read.cards,
        left_out=f"The first {MOST} of {len(samples)} pictures are shown; the others are in the runs' folders." if len(samples) > MOST else "",
    )  # fmt: skip


def _summary(found: list[tables.Line]) -> str:
    made = [line for line in found if not line.is_reference]
    images = len({record.example for line in made for record in line.records})
    few = (
        ""
        if images >= ENOUGH
        else f" Fewer than {ENOUGH} images are too few for a verdict: differences may be chance."
    )
    return f"{sum(len(line.records) for line in made)} samples of {images} image{'s' if images != 1 else ''} in {len(made)} settings.{few}"


def _bases(read: Source, side: int) -> dict[str, tuple[str, str]]:
    """Of each example the name of a class that shows its base image, and the image; embedded once however many edits it has."""
    found: dict[str, tuple[str, str]] = {}
    for record in read.records:
        if (
            record.row == "copy"
            and record.example not in found
            and (uri := _picture(read, record, side))
        ):
            found[record.example] = (f"base-{len(found)}", uri)
    return found


def _tile(
    read: Source, line: tables.Line, record: Record, side: int, bases: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    about = f"{record.example}, seed {record.seed}, weight {record.weight:g}, start {record.start:g}, {record.steps} tuning steps"
    scores = ", ".join(
        f"{name} {'-' if value is None else format(value, '.3g')}"
        for name, value in record.scores.items()
    )
    return {
        "method": line.label, "prompt": record.prompt, "example": record.example, "file": f"{record.run}/{record.image}",
        "about": (record.example if line.is_reference else about) + f" ({record.run}/{record.image})", "scores": scores,
        "picture": _picture(read, record, side), "base": bases[record.example][0] if record.example in bases else "",
    }  # fmt: skip


def _picture(read: Source, record: Record, side: int) -> str:
    """Return a picture as a data URI, scaled down; "" where the file is missing or is no picture."""
    try:
        with Image.open(read.folders[record.run] / record.image, formats=("PNG", "JPEG")) as image:
            picture = image.convert("RGB")
    except OSError:
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = BytesIO()
    picture.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _plot(found: list[tables.Line], cards: tables.Cards) -> tuple[str, str]:
    """Draw alignment against fidelity as SVG; "" where the two were not both measured."""
    scored = dict.fromkeys(name for line in found for name in line.scores)
    chosen = [
        next((name for start in starts for name in scored if name.startswith(start)), None)
        for starts in (FIDELITY, ALIGNMENT)
    ]
    x, y = chosen
    if x is None or y is None:
        return "", ""
    drawn: dict[str, list] = {}
    marks: dict[str, list] = {}
    for line in found:
        if x in line.scores and y in line.scores:
            name = (
                line.label
                if line.is_reference
                else f"{line.method} + {line.sampler}"
                + ("" if line.row == "edit" else f" ({line.row})")
            )
            (marks if line.is_reference else drawn).setdefault(name, []).append(
                (line.scores[x], line.scores[y])
            )
    labels = [
        f"{name} ({'higher' if tables.higher_is_better(name, cards) else 'lower'} is better)"
        for name in (x, y)
    ]
    with style.panels(1, width=curves.WITH_LEGEND) as (figure, axes):
        curves.draw_tradeoff(axes[0], drawn, x_label=labels[0], y_label=labels[1], marks=marks)
        svg = style.encoded(figure, "svg")
    return "data:image/svg+xml;base64," + base64.b64encode(
        svg
    ).decode(), f"{y} against {x}, arms are 95 % intervals over images"
