"""Scores of pictures that a run has saved, without a diffusion model or the libraries of one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unitune import images, metrics
from unitune.runs import reference_rows
from unitune.storage import records
from unitune.storage.records import REFERENCES, Record
from unitune.types import Edit, Example, Metric, Refused


def score(folder: Path, examples: Sequence[Example], *, chosen: Sequence[Metric]) -> list[Record]:
    """Score the saved pictures of a run again; `examples` are its benchmark's.

    The new records are appended to the run's scores.jsonl.
    """
    known = {example.id: example for example in examples}
    old = records.merge(records.read(folder))
    # A chosen sample has two records of one picture.
    edits = {record.image: _saved(folder, record, known) for record in old}
    scores = dict(zip(edits, metrics.score(chosen, list(edits.values())), strict=True))
    done = []
    for record in old:
        done.append(replace(record, scores={**record.scores, **scores[record.image]}))
        records.append(folder / records.FILE, done[-1])
    metrics.write_cards(chosen, folder)
    return done


def _saved(folder: Path, record: Record, known: Mapping[str, Example]) -> Edit:
    if record.example not in known:
        raise Refused(
            f"{folder} holds edits of {record.example!r}, which this benchmark lacks; "
            "score it with the benchmark of its config.yaml"
        )
    example = known[record.example]
    what = f"{record.prompt!r}, which {record.example} of this benchmark lacks"
    request = next((one for one in example.requests if one.prompt == record.prompt), None)
    if request is None:
        raise Refused(f"{folder} holds the edit {what}")
    if record.row in reference_rows.MODEL_FREE:
        # As the run scored it: a file has lost what is finer than 8 bits.
        for row, edit in reference_rows.model_free(example):
            if row == record.row and edit.request is request:
                return edit
        raise Refused(f"{folder} has the {REFERENCES[record.row]} of {what}")
    picture = images.load(folder / record.image, size=example.image.shape[-1]).image
    return Edit(example, request, record.seed, record.weight, record.start, record.text, picture)
