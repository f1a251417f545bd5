"""What a run noted of its tunings in tunings.jsonl: how well their prompts are told from others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitune.report.table_formats import Table
from unitune.storage.records import TUNINGS
from unitune.types import Refused

COLUMNS: Mapping[str, str] = {
    "example": "image",
    "method": "method",
    "steps": "tuning steps",
    "text": "change of the text, of that by another noun",
    "x_0": "change of the prediction, of that by another noun",
    "tuned_db": "tuning prompt, dB to the base",
    "empty_db": "empty prompt, dB to the base",
    "other_db": "another rare word, dB to the base",
    "response": "text response, of the untuned model's",
}
MEANING = (
    "The tuning prompt against the prompt that must stay apart from it, before tuning: below 0.5 "
    "of what another noun changes the model hardly sees it. After tuning, sampled without guidance "
    "from pure noise at the first stage's resolution, one seed: an empty prompt within 6 dB of it "
    "is a leak. The response is how much the edit prompts change the prediction, tuned over "
    "untuned."
)


def read(folder: Path) -> list[dict]:
    """Read the notes of a run's folder, of which there may be none.

    Raises Refused for lines that are no notes.
    """
    file = folder / TUNINGS
    if not file.is_file():
        return []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        notes = [json.loads(line) for line in lines if line.strip()]
        _rows(notes)
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{file} cannot be read ({error}); run it again with this version") from None
    return notes


def table(notes: Sequence[dict]) -> Table | None:
    """Write a row for each note; None where there are none."""
    head = ("tuning prompt", *COLUMNS.values())
    return Table(head, _rows(notes), (MEANING,)) if notes else None


def leaks(notes: Sequence[dict]) -> list[str]:
    """Say of each tuning how near the tuning prompt and the empty one come to the base image."""
    return [
        f"leak: {note['texts']['tuned']!r} gives {note['example']} back at "
        f"{note['tuned_db']:.1f} dB, the empty prompt at {note['empty_db']:.1f} dB"
        for note in notes
        if note["tuned_db"] is not None
    ]


def _rows(notes: Sequence[dict]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (note["texts"]["tuned"], *(_said(note[name]) for name in COLUMNS)) for note in notes
    )


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)
