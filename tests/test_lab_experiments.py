"""Recipes of the embedded models and dials of super-resolution, without their hours."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments/measured"))

import dial_runs  # scripts
import recipe
import search_sr

from unitune_lab.options import phases, read


@pytest.mark.parametrize("name", recipe.ROWS)
def test_every_row_is_a_training_that_the_trainer_takes(name: str):
    plain, options = (read("base", [recipe.USUAL, *more]) for more in ([], recipe.ROWS[name]))
    assert phases(options)[0].resolution == 32
    first = next(iter(recipe.ROWS))
    assert name == first or options != plain, "a row that changes nothing"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "START must be a folder"),
        (["nowhere"], "START must be a folder"),
        ([".", "faster"], "there is no row 'faster'"),
        (["--from-records"], "make it"),
    ],
)
def test_what_a_recipe_lacks_is_said_in_a_line(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "RECORD", tmp_path / "recipe.jsonl")
    monkeypatch.setattr(sys, "argv", ["recipe.py", *arguments])
    with pytest.raises(SystemExit) as end:
        recipe.main()
    assert end.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_rows_are_told_as_a_table():
    table = recipe.table(
        [{"row": "batch 16", "samples": 12_992, "objects_900": 0.1664, "kept": 0.7}]
    )
    assert "| batch 16 | 12,992 | 0.166 |" in table and table.endswith("| 0.700 |")


def test_the_dials_of_super_resolution_are_chosen_by_the_same_rule(tmp_path, monkeypatch, capsys):
    best, record = search_sr.settings()[4], tmp_path / "dials_sr.jsonl"
    about = {
        "method": "unitune", "image": "a", "edits": 2, "appear": 1.0, "stay": 1.0, "both": 0.5,
        "inside": 0.1, "base_inside": 0.2, "seconds": 60.0,
        "weights": search_sr.weights(), "judge": dial_runs.judged(),
    }  # fmt: skip
    rows = [
        about | {"setting": s, "outside": 0.001 if s == best else 0.002}
        for s in search_sr.settings()
    ]
    dial_runs.write(rows, record)
    monkeypatch.setattr(search_sr, "RECORD", record)
    monkeypatch.setattr(sys, "argv", ["search_sr.py", "--from-records"])
    search_sr.main()
    dials = ", ".join(f"{name} {value:g}" for name, value in best.items())
    assert f"chosen: {dials}; 27 minutes of one core in all." in capsys.readouterr().out
    record.write_text(json.dumps(rows[0] | {"weights": "0" * 64}) + "\n")
    with pytest.raises(SystemExit) as end:
        search_sr.main()
    assert end.value.code == 2
