"""Pictures that another method made of a benchmark's edits, scored as they are: a run's folder without a run, beside the same reference rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unitune import images, outcome, records
from unitune.figures import tables
from unitune.figures.grid import labelled_grid
from unitune.metrics import score as scores_of
from unitune.metrics import write_cards
from unitune.records import Record
from unitune.types import Edit, Metric


class Outputs(Protocol):
    """A benchmark that holds other methods' outputs."""

    def outputs(self, name: str, resolution: int) -> list[Edit]: ...  # noqa: D102


def run(*, benchmark: Outputs, metrics: Mapping[str, Any], outputs: str, model: Mapping[str, Any], fit: str, folder: Path, config: str) -> list[str]:
    """Score the outputs of that name as the job of conf/precomputed.yaml and say what was found; `config` is kept, so that they can be scored again."""
    del fit  # the benchmark's
    done = score(benchmark, metrics["use"], name=outputs, resolution=model["resolution"], folder=folder)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return [tables.plain(tables.by_prompt(done)), f"grid: {folder / 'grid.png'}"]


def score(benchmark: Outputs, chosen: Sequence[Metric], *, name: str, resolution: int, folder: Path) -> list[Record]:
    """Read the outputs of that name, save, score and record them with the base images and known targets; the method of their records is the name."""
    edits = benchmark.outputs(name, resolution)
    rows = [(name, "edit", edit) for edit in edits]
    for example in {id(edit.example): edit.example for edit in edits}.values():
        rows += [("", row, edit) for row, edit in outcome.references(example)]
    scores = scores_of(chosen, [edit for _, _, edit in rows])
    done = []
    for k, ((method, row, edit), score) in enumerate(zip(rows, scores, strict=True)):
        file = outcome.picture_name(edit.example, method or row, k)
        images.save_png(edit.image, folder / file)
        record = Record(
            run=folder.name, method=method, sampler="", model="published", example=edit.example.id, kind=edit.request.kind, local=edit.request.local,
            composed_alike=edit.request.composed_alike,
            prompt=edit.request.prompt, text=edit.prompt, seed=edit.seed, weight=edit.weight, start=edit.start, steps=0, image=file, scores={**score},
            cost={}, environment=records.environment(), row=row,
        )  # fmt: skip
        records.append(folder / records.FILE, record)
        done.append(record)
    write_cards(chosen, folder)
    _grid(edits, folder / "grid.png")
    return done


def _grid(edits: Sequence[Edit], path: Path) -> None:
    rows = [[images.to_uint8(edit.example.image), images.to_uint8(edit.image)] for edit in edits]
    labelled_grid(rows, row_labels=[edit.request.prompt for edit in edits], column_labels=["base image", "output"], path=path)
