"""What a run says of its tunings and of its success: on the screen and in its page."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import finished
import pytest

from unitune.report import page as pages
from unitune.report import saved_runs, summary, tuning_notes
from unitune.runs import results
from unitune.runs.results import TuningResult
from unitune.storage import records
from unitune.types import Refused, Tuned

NOTE = {
    "example": "cat",
    "method": "unitune",
    "texts": {"tuned": "a cat & a city"},
    "steps": 128,
    "text": 1.3655,
    "x_0": 1.2,
    "tuned_db": 28.24,
    "empty_db": 12.9,
    "other_db": None,
    "response": 0.7,
}


def noted(folder: Path, *notes: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / records.TUNINGS).write_text("".join(json.dumps(note) + "\n" for note in notes))
    return folder


@dataclass(frozen=True)
class Noted:
    """A visibility of which the line in tunings.jsonl is known."""

    line: dict

    def plain(self) -> dict:
        return {"stage": "base", "key": "1", **NOTE, **self.line}


def test_a_line_of_another_tuning_stays_whatever_its_prompt_holds(tmp_path: Path):
    """U+2028 ends a line for str.splitlines, and JSON writes it as it is."""
    separated = Noted({"example": "dog", "texts": {"tuned": "a dog\u2028in a city"}})
    for visibility in (separated, Noted({"text": 1.0}), Noted({"text": 2.0})):
        results.note(tmp_path, [TuningResult(Tuned(), [], visibility=visibility)])
    found = tuning_notes.read(tmp_path)
    assert [(one["example"], one["text"]) for one in found] == [("dog", 1.3655), ("cat", 2.0)]


def test_a_leak_is_told_by_tuning(tmp_path: Path):
    untuned = {**NOTE, "steps": 0, "tuned_db": None, "empty_db": None}
    found = tuning_notes.read(noted(tmp_path, NOTE, untuned))
    assert tuning_notes.leaks(found) == [
        "leak: 'a cat & a city' gives cat back at 28.2 dB, the empty prompt at 12.9 dB"
    ]
    assert tuning_notes.read(tmp_path / "none") == [] and tuning_notes.table([]) is None


def test_the_table_has_a_row_for_each_tuning(tmp_path: Path):
    table = tuning_notes.table(tuning_notes.read(noted(tmp_path, NOTE)))
    assert table is not None and table.rows == (
        ("a cat & a city", "cat", "unitune", "128", "1.37", "1.2", "28.2", "12.9", "-", "0.7"),
    )
    assert len(table.head) == len(table.rows[0])


@pytest.mark.parametrize("text", ["no json", '{"example": "cat"}', "[]"])
def test_a_damaged_file_of_notes_is_refused_in_a_line(tmp_path: Path, text: str):
    (tmp_path / records.TUNINGS).write_text(text)
    with pytest.raises(Refused, match=r"tunings\.jsonl cannot be read .*run it again"):
        tuning_notes.read(tmp_path)


def test_success_is_counted_by_prompt_over_edits_that_can_be_decided(tmp_path: Path):
    finished.run(tmp_path / "run", prompts=("a dog", "a fox"))
    every = records.read(tmp_path / "run")
    edits = [record for record in every if record.row == "edit"]
    references = [replace(record, scores={"both": 1.0}) for record in every if record.row != "edit"]
    scored = [
        replace(record, scores={"both": None if record.prompt == "a fox" else float(k % 2)})
        for k, record in enumerate(edits)
    ]
    dogs = [record.scores["both"] for record in scored if record.prompt == "a dog"]
    said = f"{sum(dogs):.0f} of {len(dogs)}"
    assert references
    assert summary.successes([*scored, *references]) == [
        f"samples that succeed by the judge: {said} (a dog: {said})"
    ]
    assert summary.successes([replace(record, scores={}) for record in scored]) == []


def test_the_page_shows_the_tunings_and_a_run_says_them(tmp_path: Path):
    finished.run(tmp_path / "run", prompts=("a dog",))
    noted(tmp_path / "run", NOTE)
    page = pages.page(saved_runs.load(tmp_path / "run"))
    title = "Tunings: how well their prompts are told from others"
    assert all(said in page for said in ("a cat &amp; a city", title, "28.2"))
    told = summary.of_run(tmp_path / "run", records.read(tmp_path / "run"))
    assert any(line.startswith("leak: 'a cat & a city'") for line in told)
