import dataclasses
import json
import logging
import math
import platform
import subprocess
import sys

import pytest
import torch

from unitune.storage.records import REFERENCES, Record, append, environment, merge, read
from unitune.types import Refused

RECORD = Record(
    run="outputs/one",
    method="unitune",
    sampler="cfg",
    model="pocket",
    example="cat",
    kind="replace",
    local=None,
    composed_alike=None,
    prompt="a dog, 'quoted' \u00e9\u732b",
    text="beikkpic a dog",
    seed=0,
    weight=16.0,
    start=0.98,
    steps=128,
    image="cat_0.png",
    scores={"clip": 0.25, "psnr": 19.5},
    cost={"seconds": 1.5},
    environment={"torch": "2", "threads": 1},
)


def with_(**changes):
    return dataclasses.replace(RECORD, **changes)


def test_round_trip(tmp_path):
    path = tmp_path / "scores.jsonl"
    written = [
        RECORD,
        with_(seed=1, local=True, composed_alike=True, row="copy", weight=4, scores={"clip": None}),
    ]
    for record in written:
        append(path, record)
    assert read(path) == written and read(tmp_path) == written
    assert len(path.read_text().splitlines()) == 2


def test_nan_is_null_and_infinity_an_error(tmp_path):
    path = tmp_path / "scores.jsonl"
    append(path, with_(scores={"psnr": math.nan, "clip": 0.5}))
    assert json.loads(path.read_text())["scores"] == {"psnr": None, "clip": 0.5}
    assert read(path)[0].scores == {"psnr": None, "clip": 0.5}
    with pytest.raises(ValueError, match="psnr"):
        append(path, with_(scores={"psnr": math.inf}))
    assert len(read(path)) == 1


def test_half_written_last_line_is_skipped_and_healed(tmp_path, caplog):
    path = tmp_path / "scores.jsonl"
    append(path, RECORD)
    whole = path.read_bytes()
    for cut in (1, 2, len(whole) // 2, whole.index("\u732b".encode()) + 1):
        path.write_bytes(whole + whole[:-1][:-cut])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read(path) == [RECORD]
        assert "line 2 is half-written" in caplog.text
        append(path, with_(seed=1))
        assert read(path) == [RECORD, with_(seed=1)]


def test_folder_is_searched_in_order(tmp_path):
    for name, seed in (("b/2", 2), ("a", 0), ("b/1", 1)):
        (tmp_path / name).mkdir(parents=True)
        append(tmp_path / name / "scores.jsonl", with_(seed=seed))
    append(tmp_path / "other.jsonl", with_(seed=9))
    assert [record.seed for record in read(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"colour": 1},
        {"seed": None},
        {"seed": "0"},
        {"scores": None},
        {"row": "mean"},
        {"row": "reference"},
        {"image": "/etc/x.png"},
        {"image": "../x.png"},
    ],
)
def test_wrong_fields_are_refused_with_file_and_line(tmp_path, change):
    path = tmp_path / "scores.jsonl"
    append(path, RECORD)
    path.write_text(path.read_text() + json.dumps({**dataclasses.asdict(RECORD), **change}) + "\n")
    with pytest.raises(Refused, match=rf"scores\.jsonl line 2.*{next(iter(change))}"):
        read(path)


def test_missing_field_and_missing_file(tmp_path):
    data = dataclasses.asdict(RECORD)
    del data["method"]
    (tmp_path / "scores.jsonl").write_text(json.dumps(data) + "\n")
    with pytest.raises(Refused, match="method"):
        read(tmp_path)
    (tmp_path / "scores.jsonl").write_text("[1]\n")
    with pytest.raises(Refused, match="not a record"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing.jsonl"):
        with pytest.raises(Refused, match=r"scores\.jsonl"):
            read(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {"version": 1},
            r"is of version 1, and this program reads version 3; score or run it again",
        ),
        ({"version": None}, r"is of version None"),
        (
            {"scores": {"psnr": math.nan}},
            r"score 'psnr' of a record is 'NaN'; it must be a number, or null",
        ),
        ({"scores": {"psnr": -math.inf}}, r"score 'psnr' of a record is '-Infinity'"),
        ({"scores": {"psnr": "12"}}, r"score 'psnr' of a record is '12'"),
    ],
)
def test_records_of_another_version_and_scores_that_are_no_numbers(tmp_path, line, said):
    path = tmp_path / "scores.jsonl"
    append(path, RECORD)
    path.write_text(path.read_text() + json.dumps({**dataclasses.asdict(RECORD), **line}) + "\n")
    before = path.read_bytes()
    with pytest.raises(Refused, match=rf"scores\.jsonl line 2.*{said}"):
        read(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("row", REFERENCES)
def test_every_reference_has_a_row_of_its_own(tmp_path, row):
    append(tmp_path / "scores.jsonl", with_(row=row, method=""))
    assert read(tmp_path) == [with_(row=row, method="")]


def test_a_missing_column_is_named(tmp_path):
    for name in ("kind", "cost"):
        data = dataclasses.asdict(RECORD)
        del data[name]
        (tmp_path / "scores.jsonl").write_text(json.dumps(data) + "\n")
        with pytest.raises(
            Refused, match=rf"line 1 lacks the field '{name}', so it is no record of version 3"
        ):
            read(tmp_path)


def test_two_processes_append_whole_lines(tmp_path):
    script = (
        "import dataclasses, json, sys; from unitune.storage.records import *; "
        "first = int(sys.argv[3]); data = {**json.loads(sys.argv[2]), 'text': 'x' * 20000}; "
        "[append(sys.argv[1], Record(**{**data, 'seed': first + i})) for i in range(20)]"
    )
    path = tmp_path / "scores.jsonl"
    data = json.dumps(dataclasses.asdict(RECORD))
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path), data, str(first)])
        for first in (0, 100)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(record.seed for record in read(path)) == [*range(20), *range(100, 120)]


def test_merge_joins_scores_of_one_edit():
    later = with_(scores={"clip": 0.5, "judge": 1.0}, cost={})
    assert merge([RECORD, with_(seed=1), later]) == [
        with_(scores={"clip": 0.5, "psnr": 19.5, "judge": 1.0}),
        with_(seed=1),
    ]


def test_environment_is_plain(tmp_path):
    found = environment(dtype=torch.bfloat16)
    assert sorted(found) == ["device", "diffusers", "dtype", "python", "threads", "torch"]
    assert (
        found["torch"] == torch.__version__
        and found["dtype"] == "bfloat16"
        and found["device"] == "cpu"
        and found["python"] == platform.python_version()
    )
    append(tmp_path / "scores.jsonl", with_(environment=found))
    assert read(tmp_path)[0].environment == found
