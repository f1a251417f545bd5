"""What a run says of its tunings, from its tunings.jsonl, and how many of its samples the judge accepts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unitune.report.formats import Table
from unitune.storage.records import TUNINGS, Record
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
NOTES = (
    "The tuning prompt against the prompt that must stay apart from it, before tuning: below 0.5 of what another noun changes the model hardly sees it. "
    "After tuning, sampled without guidance from pure noise at the first stage's resolution, one seed: an empty prompt within 6 dB of it is a leak. "
    "The response is how much the edit prompts change the prediction, tuned over untuned.",
)


def read(folder: Path) -> list[dict]:
    """Read what a run noted of its tunings, nothing where it noted none; raises Refused for lines that are no notes."""
    file = folder / TUNINGS
    if not file.is_file():
        return []
    try:
        noted = [
            json.loads(line)
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        _ = [(*(one[name] for name in COLUMNS), one["texts"]["tuned"]) for one in noted]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{file} cannot be read ({error}); run it again with this version") from None
    return noted


def table(noted: Sequence[dict]) -> Table | None:
    """Write the notes as a table; None where there are none."""
    if not noted:
        return None
    rows = [(one["texts"]["tuned"], *(_said(one[name]) for name in COLUMNS)) for one in noted]
    return Table(("tuning prompt", *COLUMNS.values()), tuple(rows), NOTES)


def leaks(noted: Sequence[dict]) -> list[str]:
    """Say of each tuning how near the tuning prompt and the empty one come to the base image."""
    return [
        f"leak: {one['texts']['tuned']!r} gives {one['example']} back at {one['tuned_db']:.1f} dB, the empty prompt at {one['empty_db']:.1f} dB"
        for one in noted
        if one["tuned_db"] is not None
    ]


def succeeded(done: Iterable[Record]) -> list[str]:
    """Say how many samples the judge accepts, by prompt; nothing where no sample can be decided."""
    by_prompt: dict[str, list[float]] = {}
    for record in done:
        if (
            record.row == "edit"
            and (both := record.scores.get("both")) is not None
            and both == both
        ):
            by_prompt.setdefault(record.prompt, []).append(both)
    if not by_prompt:
        return []
    each = ", ".join(
        f"{prompt}: {sum(found):.0f} of {len(found)}" for prompt, found in by_prompt.items()
    )
    total = [value for found in by_prompt.values() for value in found]
    return [f"samples that succeed by the judge: {sum(total):.0f} of {len(total)} ({each})"]


def _said(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
