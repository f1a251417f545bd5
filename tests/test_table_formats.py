"""Prompts with newlines, pipes, tabs and control characters: one cell of one line everywhere."""

from dataclasses import replace

import finished
import pytest

from unitune.report import saved_runs, tables
from unitune.report.groups import make_groups
from unitune.report.summary import successes
from unitune.report.table_formats import Table
from unitune.runs import config

PROMPTS = {  # typed -> in a terminal and in Markdown
    "a\nb\r\nc\td": ("a b c d", "a b c d"),
    "a | b || c": ("a | b || c", r"a \| b \|\| c"),
    "x\x1b[31mred\x07\0": (r"x\x1b[31mred\x07\x00", r"x\\x1b[31mred\\x07\\x00"),
    "\u202egnp.exe \u2028 \ud800": (r"\u202egnp.exe \ud800", r"\\u202egnp.exe \\ud800"),
    "<image> `c` *b* \\|": (r"<image> `c` *b* \|", r"\<image> \`c\` \*b\* \\\|"),
    "été 👩\u200d🚀 $5 #1_2 & {x}": (
        "été 👩\u200d🚀 $5 #1_2 & {x}",
        "été 👩\u200d🚀 $5 #1_2 \\& {x}",
    ),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_prompt_is_one_cell_of_one_line(prompt):
    table = Table(("prompt", "n"), ((prompt, "1"),), (f"of {prompt}",))
    plain, markdown = PROMPTS[prompt]
    assert table.plain().splitlines()[1:] == [f"{plain}  1", f"of {plain}"]
    assert table.markdown().splitlines()[2] == f"| {markdown} | 1 |"
    lines = table.latex().splitlines()
    assert len(lines) == 8 and lines[0] == f"% of {plain}" and lines[5].endswith(r" & 1 \\")


def test_a_prompt_is_one_line_on_the_screen_and_one_field_of_the_csv(tmp_path):
    (one, *_) = saved_runs.load(finished.run(tmp_path / "scored")).records
    scored = [replace(one, seed=seed, scores={"psnr": 1.0, "both": 1.0}) for seed in (0, 1)]
    made = [replace(one, prompt="a\nb\x1b[2J", method="un\ntuned") for one in scored]
    assert "a b\\x1b[2J: 2 of 2" in successes(made)[0]
    lines = tables.as_csv(make_groups(made)).splitlines()
    assert len(lines) == 2 and ",un tuned," in lines[1]


def test_a_path_that_was_set_is_written_from_the_working_directory(here):
    for k in range(2):
        folder = finished.run(here / f"{k}-unitune")
        picture = "/elsewhere/a.png" if k else here / "pictures/a.png"
        config.write(f"image: {picture}\n", folder)
    told = saved_runs.load(here).settings
    assert sorted(told.values()) == ["image=/elsewhere/a.png", "image=pictures/a.png"]
