"""The scripts of experiments/ that measure recipes of the embedded models and dials of super-resolution, without their hours."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "experiments"))

import recipe  # noqa: E402  # a script
import search_dials  # noqa: E402
import search_sr  # noqa: E402

from unitune_lab.options import phases, read  # noqa: E402


@pytest.mark.parametrize("name", recipe.ROWS)
def test_every_row_is_a_training_that_the_trainer_takes(name: str):
    options = read("base", [recipe.PHASE.format(batch=32), *recipe.ROWS[name]])
    assert phases(options)[0].resolution == 32
    assert name == next(iter(recipe.ROWS)) or options != read(
        "base", [recipe.PHASE.format(batch=32)]
    ), "a row that changes nothing"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "START must be a folder"),
        (["nowhere"], "START must be a folder"),
        ([".", "faster"], "there is no row 'faster'"),
        (["--from-records"], "make it"),
    ],
)
def test_what_a_recipe_lacks_is_said_in_a_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "RECORD", tmp_path / "recipe.jsonl")
    monkeypatch.setattr(sys, "argv", ["recipe.py", *arguments])
    with pytest.raises(SystemExit) as end:
        recipe.main()
    assert (
        end.value.code == 2
        and said in capsys.readouterr().err.splitlines()[-1]
        and not list(tmp_path.iterdir())
    )


def test_rows_are_told_as_a_table():
    row = {"row": "batch 16", "samples": 12_992, "objects_900": 0.1664, "kept": 0.7}
    assert "| batch 16 | 12,992 | 0.166 |" in recipe.table([row]) and recipe.table([row]).endswith(
        "| 0.700 |"
    )


def test_the_dials_of_super_resolution_are_chosen_by_the_same_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    best, record = search_sr.settings()[4], tmp_path / "dials_sr.jsonl"
    about = {
        "method": "unitune",
        "image": "a",
        "edits": 2,
        "appear": 1.0,
        "stay": 1.0,
        "inside": 0.1,
        "base_inside": 0.2,
        "seconds": 60.0,
    }
    named = {"weights": search_sr.weights(), "judge": search_dials.judged()}
    rows = [
        about | named | {"setting": s, "both": 0.5, "outside": 0.001 if s == best else 0.002}
        for s in search_sr.settings()
    ]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(search_sr, "RECORD", record)
    monkeypatch.setattr(sys, "argv", ["search_sr.py", "--from-records"])
    search_sr.main()
    told = capsys.readouterr().out
    assert (
        f"chosen: {', '.join(f'{name} {value:g}' for name, value in best.items())}; 27 minutes of one core in all."
        in told
    )
    record.write_text(json.dumps(rows[0] | {"weights": "0" * 64}) + "\n")
    with pytest.raises(SystemExit) as end:
        search_sr.main()
    assert end.value.code == 2
