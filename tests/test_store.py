import dataclasses
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from unitune.storage import store as store_module
from unitune.storage.store import MANIFEST, Store, fingerprint
from unitune.types import Refused

KEY = {"lr": 1e-4, "steps": 128, "image": "ab12"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    lr: float
    steps: int
    names: tuple[str, ...] = ("a", "b")


class Build:
    """Writes two files and counts its calls."""

    def __init__(self, text="weights", size=0):
        self.calls, self.text, self.size = 0, text, size

    def __call__(self, folder):
        self.calls += 1
        (folder / "weights.bin").write_bytes(self.text.encode() + bytes(self.size))
        (folder / "images").mkdir()
        (folder / "images" / "0.png").write_bytes(b"png")


def entries(path):
    return sorted(child.name for child in path.iterdir() if child.name != ".work")


def unfinished(path):
    return sorted(child.name for child in (path / ".work").iterdir() if child.suffix != ".lock")


def run_script(path, body):
    head = "import os, signal, sys, time\nfrom pathlib import Path\n"
    head += "from unitune.storage.store import Store\n"
    script = f"{head}store = Store(Path({str(path)!r}))\n{body}"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1e-4}, {"x": 0.0001}),
        ({"x": 0.0}, {"x": -0.0}),
        ({"x": (1, 2)}, {"x": [1, 2]}),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        (Recipe(1, 2), {"lr": 1.0, "steps": 2, "names": ["a", "b"]}),
        ({"x": {"r": Recipe(1, 2)}}, {"x": {"r": dataclasses.asdict(Recipe(1, 2))}}),
        ({"x": np.float64(0.5)}, {"x": 0.5}),
    ],
)
def test_equal_data_agree(a, b):
    assert fingerprint(a) == fingerprint(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 2}),
        ({"x": 1}, {"x": "1"}),
        ({"x": 1}, {"x": True}),
        ({"x": None}, {}),
        ({"x": None}, {"x": "None"}),
        ({"x": [1, 2]}, {"x": [2, 1]}),
        ({"x": {"y": 1}}, {"x.y": 1}),
        ({"x": 0.1}, {"x": 0.1 + 1e-17 * 2}),
        ({"x": 2**53 + 1}, {"x": 2**53}),
    ],
)
def test_other_data_differ(a, b):
    assert fingerprint(a) != fingerprint(b)


def test_fingerprint_is_16_hex_and_stable():
    assert fingerprint({"a": [1, 2.5, "x", None, True]}) == "781726d78a18d28b"


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1),
        Path("x"),
        {1, 2},
        b"x",
        float("nan"),
        float("inf"),
        np.int64(1),
        object(),
        Recipe,
        {1: "x"},
    ],
)
def test_other_than_plain_data_is_named(value):
    with pytest.raises(TypeError, match=r"outer\.list\[1\]"):
        fingerprint({"outer": {"list": [0, value]}})


def test_made_once_and_again_for_another_key(tmp_path):
    store, build = Store(tmp_path), Build()
    first = store.get_or_make("tuned", KEY, build)
    assert store.get_or_make("tuned", {**KEY, "steps": 128.0}, build) == first and build.calls == 1
    assert Store(tmp_path).get_or_make("tuned", KEY, build) == first and build.calls == 1
    others = [
        store.get_or_make("tuned", {**KEY, "steps": 64}, build),
        store.get_or_make("embedding", KEY, build),
    ]
    assert build.calls == 3 and len({first, *others}) == 3 and unfinished(tmp_path) == []


def test_entry_and_manifest(tmp_path):
    entry = Store(tmp_path).get_or_make("class_images", {"recipe": Recipe(1, 2)}, Build())
    manifest = json.loads((entry / MANIFEST).read_text())
    assert (
        sorted(manifest) == ["files", "key", "kind", "made"] and manifest["kind"] == "class_images"
    )
    assert manifest["key"] == {
        "recipe": {"lr": 1, "steps": 2, "names": ["a", "b"]},
        "tuning_version": store_module.TUNING_VERSION,
    }
    assert entry.name == f"class_images-{fingerprint(manifest['key'])}" and sorted(
        manifest["files"]
    ) == ["images/0.png", "weights.bin"]


def test_the_version_is_in_the_key(tmp_path, monkeypatch):
    store, build = Store(tmp_path), Build()
    first = store.get_or_make("tuned", KEY, build)
    monkeypatch.setattr(store_module, "TUNING_VERSION", store_module.TUNING_VERSION + 1)
    assert store.get_or_make("tuned", KEY, build) != first and build.calls == 2


def test_unknown_kind_and_own_manifest(tmp_path):
    with pytest.raises(ValueError, match="class_images"):
        Store(tmp_path).get_or_make("weights", KEY, Build())
    with pytest.raises(ValueError, match=MANIFEST):
        Store(tmp_path).get_or_make("tuned", KEY, lambda folder: (folder / MANIFEST).touch())
    assert entries(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(tmp_path, error):
    def build(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(error):
        Store(tmp_path).get_or_make("tuned", KEY, build)
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


@pytest.mark.parametrize(
    "harm", ["bit", "missing", "truncated", "no manifest", "bad manifest", "other key"]
)
def test_damage_is_found_and_rebuilt(tmp_path, caplog, harm):
    store, build = Store(tmp_path), Build()
    entry = store.get_or_make("tuned", KEY, build)
    file, manifest = entry / "weights.bin", entry / MANIFEST
    if harm == "bit":
        data = bytearray(file.read_bytes())
        data[3] ^= 4
        file.write_bytes(data)
    elif harm == "missing":
        file.unlink()
    elif harm == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "bad manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace("128", "129"))
    with caplog.at_level(logging.WARNING):
        again = store.get_or_make("tuned", KEY, build)
        store.get_or_make("tuned", KEY, build)
    assert (
        again == entry
        and build.calls == 2
        and file.read_bytes() == b"weights"
        and unfinished(tmp_path) == []
    )
    warned = MANIFEST if "manifest" in harm or harm == "other key" else "weights.bin"
    assert [record.getMessage() for record in caplog.records] == [
        f"stored entry {entry.name} is damaged ({warned}): rebuilt"
    ]


def test_killed_build_leaves_no_entry_and_the_same_call_finishes(tmp_path):
    body = """
def build(folder):
    (folder / "weights.bin").write_bytes(b"half")
    (store.scratch("tuned", {"a": 1}) / "step").write_text("7")
    os.kill(os.getpid(), signal.SIGKILL)
store.get_or_make("tuned", {"a": 1}, build)
"""
    process = run_script(tmp_path, body)
    assert process.wait() == -signal.SIGKILL
    assert entries(tmp_path) == [] and len(unfinished(tmp_path)) == 2
    store, steps = Store(tmp_path), []
    assert len(unfinished(tmp_path)) == 1  # the checkpoints; the dead process's folder is swept

    def build(folder):
        steps.append((store.scratch("tuned", {"a": 1}) / "step").read_text())
        (folder / "weights.bin").write_bytes(b"whole")

    entry = store.get_or_make("tuned", {"a": 1}, build)
    assert (
        steps == ["7"]
        and (entry / "weights.bin").read_bytes() == b"whole"
        and unfinished(tmp_path) == []
    )


def test_sweep_spares_the_living_and_other_machines(tmp_path):
    store = Store(tmp_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = store._work_folder("tuned-0").name.rpartition(".")[2][:4]
    other = "0000" if here != "0000" else "1111"
    for name in (
        f"tuned-0.{dead.pid}.{here}aa",
        f"tuned-1.{os.getpid()}.{here}aa",
        f"tuned-2.{dead.pid}.{other}aa",
        f"tuned-3.{dead.pid}.{other}aa",
    ):
        (tmp_path / ".work" / name).mkdir()
    old = time.time() - 40 * 86400
    os.utime(tmp_path / ".work" / f"tuned-3.{dead.pid}.{other}aa", (old, old))
    Store(tmp_path)
    assert [name.split(".")[0] for name in unfinished(tmp_path)] == ["tuned-1", "tuned-2"]


def test_scratch_is_stable_and_goes_with_success(tmp_path):
    store = Store(tmp_path)
    folder = store.scratch("tuned", KEY)
    (folder / "checkpoint").touch()
    assert Store(tmp_path).scratch(
        "tuned", {**KEY, "steps": 128.0}
    ) == folder and folder.name.endswith(".resume")
    with pytest.raises(RuntimeError):
        store.get_or_make("tuned", KEY, lambda _: (_ for _ in ()).throw(RuntimeError))
    assert (folder / "checkpoint").exists()
    store.get_or_make("tuned", KEY, Build())
    assert not folder.exists()


def test_without_locks_two_processes_racing_give_one_valid_entry(tmp_path):
    body = f"""
import contextlib, unitune.storage.store
# As on a file system whose locks do nothing.
unitune.storage.store.FileLock = lambda file: contextlib.nullcontext()
def build(folder):
    work = Path({str(tmp_path)!r}) / ".work"
    (work / f"started-{{os.getpid()}}").touch()
    until = time.monotonic() + 60
    while len(list(work.glob("started-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    (folder / "weights.bin").write_text(str(os.getpid()))
print(store.get_or_make("tuned", {{"a": 1}}, build))
"""
    processes = [run_script(tmp_path, body) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and printed[0] == printed[1]
    assert (
        len([name for name in unfinished(tmp_path) if name.startswith("started-")]) == 2
    )  # both did build
    assert entries(tmp_path) == [Path(printed[0]).name] and len(unfinished(tmp_path)) == 2
    build = Build()
    assert (Store(tmp_path).get_or_make("tuned", {"a": 1}, build) / "weights.bin").read_text() in [
        str(process.pid) for process in processes
    ]
    assert build.calls == 0


def test_a_second_process_waits_and_builds_nothing(tmp_path):
    body = f"""
def build(folder):
    time.sleep(1)
    (Path({str(tmp_path)!r}) / f"built-{{os.getpid()}}").touch()
    (folder / "weights.bin").write_text("x")
print(store.get_or_make("tuned", {{"a": 1}}, build))
"""
    processes = [run_script(tmp_path, body) for _ in range(2)]
    assert len({process.communicate(timeout=120)[0] for process in processes}) == 1 and [
        process.returncode for process in processes
    ] == [0, 0]
    assert len(list(tmp_path.glob("built-*"))) == 1


def test_budget_removes_the_least_recently_used(tmp_path, caplog):
    store, mib = Store(tmp_path, budget_gib=3.5 / 1024), 2**20
    made = {}
    for age, name in enumerate("abc"):
        made[name] = store.get_or_make("tuned", {"name": name}, Build(size=mib))
        os.utime(made[name] / MANIFEST, (1000 + age, 1000 + age))
    store.get_or_make("tuned", {"name": "a"}, Build())  # read: now the newest
    with caplog.at_level(logging.INFO):
        made["d"] = store.get_or_make("tuned", {"name": "d"}, Build(size=mib))
    assert {name for name, entry in made.items() if entry.exists()} == {"a", "c", "d"}
    assert any(made["b"].name in record.getMessage() for record in caplog.records)


def test_the_new_entry_stays_over_budget(tmp_path, caplog):
    store = Store(tmp_path, budget_gib=1 / 1024)
    old = store.get_or_make("tuned", {"name": "old"}, Build())
    new = store.get_or_make("tuned", {"name": "new"}, Build(size=2 * 2**20))
    assert new.exists() and not old.exists() and "over the store's budget" in caplog.text


def test_contents_are_told_by_image(tmp_path):
    store = Store(tmp_path)
    for kind, key in (
        ("tuned", {"image": "a", "stage": "base"}),
        ("embedding", {"image": "a"}),
        ("class_images", {"prompt": "a cat"}),
    ):
        store.get_or_make(kind, key, lambda folder: (folder / "file").write_bytes(b"12345"))
    made, used = store_module.contents(tmp_path)
    assert made == {"a": {"base", "embedding"}} and used > 15
    assert store_module.contents(tmp_path / "none") == ({}, 0)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(
            'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
        ),
    ],
)
def test_full_disk_is_refused_and_leaves_nothing(tmp_path, error):
    def build(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(Refused, match="disk full"):
        Store(tmp_path).get_or_make("tuned", KEY, build)
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


def test_full_disk_while_sealing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="disk full"):
        store.get_or_make("tuned", KEY, Build())
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


def test_unusable_path_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(Refused, match="cannot be written"):
        Store(Path("/proc/store"))
    with pytest.raises(Refused, match="above 0"):
        Store(tmp_path, budget_gib=0)


def test_read_only_folder_is_refused(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    Store(tmp_path)
    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(Refused, match="Read-only file system"):
        Store(tmp_path)
