"""`python run.py --config-name store`: what the store holds is listed, explained and freed."""

import json
import os
import time
from pathlib import Path

import pytest
from stores import Build, entries, stored, unfinished

from unitune.storage import eviction, inventory
from unitune.storage.entries import MANIFEST
from unitune.storage.store import TUNING_VERSION, Store
from unitune.types import Refused

TUNE = {"lr": 1e-4, "steps": 128, "batch_size": 4, "kinds": ["AdamW", "Lora"], "snapshots": []}
KEYS = [
    ("tuned", {"recipe": "unitune", "stage": "base", "image": "ab12cd34ef", "seed": 3,
               "prompt": "a cat", "tune": TUNE}),
    ("tuned", {"recipe": "unitune", "stage": "sr256", "image": "ab12cd34ef", "seed": 3,
               "prompt": "a cat", "tune": {**TUNE, "snapshots": [16]}}),
    ("embedding", {"recipe": "textual_inversion", "image": "99", "seed": 0, "texts": ["a <>"],
                   "embedding": {"lr": 0.1, "steps": 8, "batch_size": 1, "optimizer": ["AdamW"]}}),
    ("embedding", {"text": "a dog"}),
    ("class_images", {"prompt": "a cat", "seed": 0, "sampler": {"count": 16}}),
]  # fmt: skip
WORDS = [
    "unitune base of the image ab12cd34 on 'a cat': AdamW Lora, lr 0.0001, 128 steps x 4, seed 3",
    "unitune sr256 of the image ab12cd34 on 'a cat': AdamW Lora, lr 0.0001, 128 steps x 4, "
    "snapshots [16], seed 3",
    "textual_inversion embedding of the image 99 on 'a <>': AdamW, lr 0.1, 8 steps x 1, seed 0",
    "the text 'a dog'",
    "16 pictures of the class 'a cat', seed 0",
]
ASK = ("--config-name", "store")


@pytest.fixture
def made(here: Path) -> list[Path]:
    """A store of five entries, the first of them unused for longest: 5 days, 4 days, ..."""
    store = Store(here / "store")
    folders = [stored(store, kind, key, Build(size=2**20)) for kind, key in KEYS]
    for age, folder in enumerate(folders):
        last = time.time() - (5 - age) * 86400
        os.utime(folder / MANIFEST, (last, last))
    return folders


def test_the_list_says_what_when_how_large_and_when_used(typed, made):
    answer = typed(*ASK)
    lines = answer.out.splitlines()
    assert answer.code == 0 and len(lines) == 6
    for folder, line, words in zip(reversed(made), lines, reversed(WORDS), strict=False):
        last = time.strftime("%Y-%m-%d", time.gmtime((folder / MANIFEST).stat().st_mtime))
        day = time.strftime("%Y-%m-%d", time.gmtime())
        assert line.startswith(f"{folder.name}  1.0 MiB  made {day}") and f"used {last}" in line
        assert line.endswith(f"{words}, version {TUNING_VERSION}")
    assert lines[-1] == f"in {made[0].parent}: 5 entries, 5.0 MiB"


def test_an_entry_is_explained(typed, made):
    said = typed(*ASK, f"explain={made[0].name}").out
    for line in ("tune.lr: 0.0001", 'stage: "base"', "tune.snapshots: []", "file weights.bin: "):
        assert line in said


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (lambda names: f"free={names[1]}", [0, 2, 3, 4]),
        (lambda names: f"free={names[1][:-2]}", [0, 2, 3, 4]),
        (lambda names: f"free=[{names[0]},{names[4]}]", [1, 2, 3]),
        (lambda _: "unused_days=2.5", [3, 4]),
        (lambda _: "unused_days=30", [0, 1, 2, 3, 4]),
        (lambda _: f"down_to_gib={2.5 / 1024}", [3, 4]),
        (lambda _: "down_to_gib=0", []),
    ],
)
def test_entries_are_freed_by_name_by_age_and_down_to_a_size(typed, made, asked, left):
    answer = typed(*ASK, asked([folder.name for folder in made]))
    assert answer.code == 0, answer.err
    assert entries(made[0].parent) == sorted(made[k].name for k in left)
    assert answer.out.count("removed tuned-") + answer.out.count("removed embed") + (
        answer.out.count("removed class")
    ) == 5 - len(left)
    assert unfinished(made[0].parent) == []


@pytest.mark.parametrize("ask", ["free", "unused_days", "down_to_gib"])
def test_what_is_in_use_stays(typed, made, hasty, ask):
    value = made[0].name if ask == "free" else 0
    with eviction.lease_of(made[0]):
        answer = typed(*ASK, f"{ask}={value}")
        assert answer.code == 0 and made[0].exists()
    if ask != "down_to_gib":
        assert f"kept {made[0].name}: in use by process {os.getpid()} on " in answer.out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["free=tuned-nothing"], "'tuned-nothing' is no entry of the store"),
        (["free=../outside"], "'../outside' is no entry of the store"),
        (["explain=tuned"], "'tuned' stands for 2 entries (tuned-"),
        (["free=[]", "explain=x"], "explain= and free= cannot be asked for at once"),
        (["unused_days=-1"], "unused_days must be a number of at least 0, got '-1'"),
        (["unused_days=nan"], "unused_days must be a number of at least 0, got 'nan'"),
        (["down_to_gib=much"], "down_to_gib must be a number of at least 0, got 'much'"),
        (["down_to_gib=true"], "down_to_gib must be a number of at least 0, got 'True'"),
        (["store.path=none"], "name its folder with store.path=DIR"),
    ],
)
def test_bad_input_is_one_line_and_nothing_goes(refused, made, given, said):
    assert said in refused(*ASK, *given)


def test_what_no_run_can_read_is_listed_and_freed_too(typed, made):
    """A damaged manifest, and an entry of an earlier version, which a run refuses."""
    (made[0] / MANIFEST).write_text("{")
    manifest = json.loads((made[1] / MANIFEST).read_text())
    manifest["key"]["tuning_version"] = TUNING_VERSION - 1
    (made[1] / MANIFEST).write_text(json.dumps(manifest))
    said = typed(*ASK).out
    assert "damaged: its manifest cannot be read" in said
    assert f"version {TUNING_VERSION - 1}" in said
    with pytest.raises(Refused, match="of version"):
        Store(made[0].parent)
    assert typed(*ASK, f"free=[{made[0].name},{made[1].name}]").code == 0
    Store(made[0].parent)


def test_checkpoints_of_unfinished_builds_are_listed_and_go_by_age(typed, made):
    work = made[0].parent / ".work"
    for name, days in (("tuned-1.1.elsewhere.resume", 9), ("tuned-2.1.elsewhere.resume", 0)):
        (work / name).mkdir()
        (work / name / "base.ckpt").write_bytes(bytes(2**20))
        last = time.time() - days * 86400
        os.utime(work / name, (last, last))
    assert "checkpoints of 2 unfinished builds, 2.0 MiB" in typed(*ASK).out
    said = typed(*ASK, "unused_days=7").out
    assert "removed the checkpoints tuned-1.1.elsewhere.resume" in said
    assert unfinished(made[0].parent) == ["tuned-2.1.elsewhere.resume"]


@pytest.mark.parametrize("days", [0, 1, 8])
def test_checkpoints_of_a_build_that_runs_stay(typed, made, hasty, days):
    """However long ago it wrote the last of them."""
    checkpoints = made[0].parent / ".work" / "tuned-1.1.elsewhere.resume"
    checkpoints.mkdir()
    last = time.time() - 9 * 86400
    os.utime(checkpoints, (last, last))
    with eviction.lease_of(made[0].with_name("tuned-1")):
        said = typed(*ASK, f"unused_days={days}").out
    assert checkpoints.exists()
    assert f"kept the checkpoints {checkpoints.name}: in use by process {os.getpid()} on " in said
    typed(*ASK, f"unused_days={days}")
    assert not checkpoints.exists()


def test_a_list_writes_nothing(typed, made):
    before = sorted(made[0].parent.rglob("*"))
    assert typed(*ASK).code == 0 and sorted(made[0].parent.rglob("*")) == before
    assert inventory.stored(made[0].parent / "none") == []
