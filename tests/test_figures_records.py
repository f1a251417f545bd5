"""make figures: from kept records alone, the same bytes twice; unusable records in one line."""

import dataclasses
import itertools
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from unitune.storage.records import Record

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments"
SWEEPS = {
    "ablation_steps": [("unitune", f"snapshot={k}") for k in (0, 64, 128)],
    "guidance": [("unitune", f"sampler.guidance.weight={k}") for k in (1, 8)],
    "tradeoff": [
        (method, f"method={method},sampler.start={k}")
        for method in ("unitune", "untuned")
        for k in (0.7, 0.9)
    ],
    "cost": [("unitune", f"sampler.steps={k}") for k in (8, 16)],
}


def record(run: str, method: str, image: int, **more) -> Record:
    scores = {"both": 0.5, "alignment": 0.1 * image + len(run) / 100, "psnr": 20.0 + image}
    scores |= {"stlpips": 0.4 + image / 50, "error_inside": 0.1, "base_error_inside": 0.2}
    sampler = "" if "row" in more else "unitune"
    return Record(
        run=run, method=method, sampler=sampler, model="pocket", example=f"i{image}", kind="add",
        local=True, composed_alike=True, prompt="a dog", text="", seed=0, weight=6.0, start=0.9,
        steps=64, image="a.png", scores=scores, cost={"seconds": 1.0}, environment={}, **more,
    )  # fmt: skip


@pytest.fixture
def kept(tmp_path) -> Path:
    """Record files as the scripts of claims keep them."""
    for name, cells in SWEEPS.items():
        made = [
            record(f"{name}/{cell}", method, image)
            for (method, cell), image in itertools.product(cells, range(3))
        ]
        made += [record(f"{name}/reference=copy", "", image, row="copy") for image in range(3)]
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in made)
        )
    (tmp_path / "speed.jsonl").write_text('{"seconds": 3.5}\n')  # of another kind
    (tmp_path / "cost-cards.json").write_text(json.dumps({"both": {"better": "higher"}}))
    return tmp_path


def figures(kept: Path, monkeypatch, capsys, out: str = "out") -> list[Path]:
    monkeypatch.syspath_prepend(HERE)
    (kept / "docs").mkdir(exist_ok=True)
    folders = {"records": kept, "out": kept / out, "docs": kept / "docs"}
    options = [f"--{name}={folder}" for name, folder in folders.items()]
    monkeypatch.setattr(sys, "argv", ["figures.py", *options])
    runpy.run_path(str(HERE / "figures.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    (kept / "missing").write_text(
        "\n".join(line for line in printed if line.startswith("missing: "))
    )
    return [Path(line) for line in printed if not line.startswith("missing: ")]


def test_every_record_file_gets_a_table_and_a_figure_the_same_twice(kept, monkeypatch, capsys):
    first, second = (figures(kept, monkeypatch, capsys, out) for out in ("one", "two"))
    assert {path.name for path in first} == {
        f"{name}.{ending}" for name in SWEEPS for ending in ("md", "tex", "csv", "pdf", "png")
    }
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert (kept / "docs/tradeoff.png").read_bytes() == (kept / "one/tradeoff.png").read_bytes()
    text = (kept / "one/cost.md").read_text()
    assert (
        "unitune + unitune (sampler.steps=8)" in text
        and f"{kept}/cost.jsonl" in text
        and "cards.json beside it" in text
        and "too few" in text
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 9}, "is of version 9"),
        ({"cost": None}, "cost of a record"),
        ({"scores": {"psnr": float("nan")}}, "'psnr' of a record is 'NaN'"),
    ],
)
def test_records_that_cannot_be_used_are_named_in_one_line(kept, change, said, monkeypatch, capsys):
    file = kept / "cost.jsonl"
    (first, *rest) = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]))
    with pytest.raises(SystemExit, match=re.escape(f"figures: {file} line 1") + f".*{said}"):
        figures(kept, monkeypatch, capsys)
    assert not (kept / "out/cost.md").exists()


def test_claims_without_records_are_told(kept, monkeypatch, capsys):
    figures(kept, monkeypatch, capsys)
    told = (kept / "missing").read_text().splitlines()
    named = [line.partition(".jsonl")[0].rpartition("/")[2] for line in told]
    assert "stages" in named and "first_edits" in named and not {*SWEEPS} & {*named}
    command = "python run.py -m experiment=stages && python -m experiments.claims stages"
    assert f"missing: {kept.name}/stages.jsonl; make it: {command}" in told


def test_the_committed_records_are_drawn(monkeypatch, capsys, tmp_path):
    """Whichever are there, each gets its table; the claims that have none are told."""
    for file in (HERE / "records").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    drawn = {path.stem for path in figures(tmp_path, monkeypatch, capsys)}
    told = {
        line.partition(".jsonl")[0].rpartition("/")[2]
        for line in (tmp_path / "missing").read_text().splitlines()
    }
    of_claims = {path.stem for path in (HERE / "records").glob("*.jsonl")} & told
    assert "tedbench" in drawn and not drawn & told and not of_claims
