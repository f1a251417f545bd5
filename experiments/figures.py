"""Draws every figure and table from experiments/records/*.jsonl alone, without a model: make figures.

Every record file gets a table (Markdown, LaTeX, CSV) and a figure in outputs/figures: a curve or a trade-off where its sweep turns a dial (FIGURES), else bars.
What the README shows goes to docs/ too. The same records give the same bytes. Claims without records are named in a line each.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from areas import METHODS, METRICS
from best_of_n import chosen
from claims import CLAIMS, OWN_SIZE, RECORDS, SCORES, recipe, traits

from unitune.metrics.statistics import Interval, applying, bounds, by_image, interval
from unitune.report import source, tables
from unitune.report.curves import Pairs, Points, bars, curves, tradeoff
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

SHOWN = {"tradeoff": "tradeoff.png", "baselines": "baselines.md"}  # what stands in docs/
BARS = ("both", "progress", "alignment", "stlpips")
STEPS, WEIGHT = "snapshot", "sampler.guidance.weight"


def grouped(found: Sequence[Record], *names: str) -> dict[tuple[str, ...], list[Record]]:
    """Group edits by traits of their cell; edits that lack one of them are left out."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in found:
        if record.row not in REFERENCES and all(
            name in (has := traits(record) | {"method": record.method}) for name in names
        ):
            groups.setdefault(tuple(has[name] for name in names), []).append(record)
    return groups


def scored(records: Sequence[Record], metric: str) -> Interval | None:
    """The mean with its interval over images, if any record has the score."""
    return (
        interval(by_image(records, metric), within=bounds(metric))
        if applying(records, metric)
        else None
    )


def over(
    x: str,
    *,
    by: str = "",
    metrics: Sequence[str],
    label: str,
    log_x: bool = False,
    view: Callable = list,
) -> Callable[[Sequence[Record], Path], list[Path]]:
    """Make the drawing of scores against a trait that is a number, a panel for each metric and a curve for each value of the trait `by`."""

    def draw(found: Sequence[Record], path: Path) -> list[Path]:
        panels: dict[str, dict[str, Points]] = {}
        for metric in metrics:
            lines: dict[str, list[tuple[float, Interval]]] = {}
            for (at, *of), members in grouped(view(list(found)), x, *([by] if by else [])).items():
                if (mean := scored(members, metric)) is not None:
                    lines.setdefault(f"{by.rpartition('.')[2]} {of[0]}" if of else "", []).append(
                        (float(at), mean)
                    )
            panels[SCORES[metric]] = {name: points for name, points in lines.items()}
        return curves(
            {label: lines for label, lines in panels.items() if lines},
            x_label=label,
            path=path,
            log_x=log_x,
        )

    return draw


def fronts(found: Sequence[Record], path: Path) -> list[Path]:
    """Alignment, and the direction of change, against fidelity while each method's dial is turned."""
    named = {name: label for label, name in METHODS.items()}
    panels: dict[str, tuple[Mapping[str, Pairs], Mapping[str, Pairs]]] = {}
    for metric, label in METRICS.items():
        drawn: dict[str, list] = {}
        for (method, _), members in _cells(found).items():
            drawn.setdefault(named.get(method, method), []).append(
                (scored(members, "stlpips"), scored(members, metric))
            )
        marks = {
            name: [(scored(own, "stlpips"), scored(own, metric))]
            for name, own in _references(found).items()
        }
        panels[label] = _whole(drawn), _whole(marks)
    return tradeoff(
        {label: shown for label, shown in panels.items() if any(shown[0].values())},
        x_label=f"{SCORES['stlpips']} (lower is closer)",
        path=path,
    )


def _cells(found: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        if record.row == "edit":
            groups.setdefault((record.method, record.run), []).append(record)
    return groups


def _references(found: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in found:
        if record.row in REFERENCES:
            groups.setdefault(REFERENCES[record.row], []).append(record)
    return groups


def _whole(marks: Mapping[str, Sequence]) -> dict[str, Pairs]:
    return {
        name: points if all(None not in point for point in points) else ()
        for name, points in marks.items()
    }  # all names, so that looks do not shift


def by_cell(found: Sequence[tables.Line], path: Path) -> list[Path]:
    """Bars of the main scores, one for each cell of a sweep; references stand in the table, as 100 dB of the exact target would hide all else."""
    edits = [line for line in found if not line.is_reference]
    drawn = {
        SCORES[metric]: {line.label: line.scores[metric] for line in edits if metric in line.scores}
        for metric in BARS
    }
    return bars({label: group for label, group in drawn.items() if group}, path=path)


FIGURES: Mapping[str, Callable[[Sequence[Record], Path], list[Path]]] = {
    "ablation_steps": over(STEPS, metrics=("psnr", "stlpips"), label="tuning steps"),
    "ablation_start": over(
        "start", by=STEPS, metrics=("alignment", "psnr"), label="start (1 = pure noise)"
    ),
    "guidance": over(
        WEIGHT, metrics=("alignment", "psnr", "both"), label="guidance weight", log_x=True
    ),
    "best_of_n": over(
        "N",
        metrics=("alignment", "both", "progress"),
        label="samples to choose from",
        log_x=True,
        view=chosen,
    ),
    "tradeoff": fronts,
}


def is_record_file(file: Path) -> bool:
    """Whether a file holds records; benchmarks of speed and the pretraining's curves are kept in a form of their own."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return {"run", "example", "scores", "row"} <= set(json.loads(first or "{}"))


def write(file: Path, out: Path) -> list[Path]:
    """Write the table and the figure of one record file."""
    read = source.load(file)
    found = tables.lines(chosen(list(read.records)) if file.stem == "best_of_n" else read.records)
    table = tables.comparison(found, cards=read.cards)
    table = tables.Table(table.head, table.rows, (*table.notes, *read.provenance))
    texts = {
        "md": f"# {file.stem}\n\n{tables.markdown(table)}",
        "tex": tables.latex(table),
        "csv": tables.as_csv(found),
    }
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"{file.stem}.{ending}" for ending in texts]
    for path, text in zip(written, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    path = out / file.stem
    return written + (
        FIGURES[file.stem](read.records, path) if file.stem in FIGURES else by_cell(found, path)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of record files")
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="folder of what the README shows"
    )
    options = parser.parse_args()
    for file in filter(is_record_file, sorted(options.records.glob("*.jsonl"))):
        try:
            written = write(file, options.out)
        except Refused as refused:
            raise SystemExit(f"figures: {refused}") from None
        for shown in (path for path in written if path.name == SHOWN.get(file.stem)):
            shutil.copyfile(shown, options.docs / shown.name)
        print(*written, sep="\n")
    for name in (
        name for name in (*CLAIMS, *OWN_SIZE) if not (options.records / f"{name}.jsonl").is_file()
    ):
        print(f"missing: {options.records.name}/{name}.jsonl; make it: {recipe(name)}")


if __name__ == "__main__":
    main()
