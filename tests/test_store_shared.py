"""A store that several processes use, also of several machines and without working locks."""

import errno
import logging
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stores import KEY, Build, entries, first_line, started, stored, unfinished

from unitune.storage import eviction, private
from unitune.storage import store as store_module
from unitune.storage.entries import MANIFEST
from unitune.storage.store import Store
from unitune.types import Refused

A = {"a": 1}
MANY = """
import random
import numpy as np
from safetensors.numpy import load_file, save_file
from unitune.storage.entries import damage
from unitune.storage.files import write_whole
fcntl.flock = lambda *_: None  # a file system whose locks do nothing
order = list(range(50))
random.Random(os.getpid()).shuffle(order)
for k in order:
    def build(folder):
        scratch = store.scratch("tuned", {"k": k})
        for step in range(3):
            write_whole(str(step), scratch / "base.ckpt")
        assert (scratch / "base.ckpt").read_text() == "2"
        save_file({"w": np.full((3, 2), k, np.float32)}, folder / "w.safetensors")
    for entry in path.glob("tuned-*"):
        assert damage(entry, "tuned") is None, entry
    weights = load_file(stored(store, "tuned", {"k": k}, build) / "w.safetensors")["w"]
    print(bool((weights == k).all()))
"""
KILLED = """
def build(folder):
    (folder / "weights.bin").write_bytes(b"half")
    (store.scratch("tuned", {"a": 1}) / "step").write_text("7")
    os.kill(os.getpid(), signal.SIGKILL)
stored(store, "tuned", {"a": 1}, build)
"""
ELSEWHERE = 'socket.gethostname = lambda: "elsewhere"\n'


def test_four_processes_without_locks_load_whole_entries_alone(tmp_path):
    processes = [started(tmp_path, MANY) for _ in range(4)]
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert "".join(out for out, _ in said).split() == ["True"] * 200
    assert len(entries(tmp_path)) == 50 and unfinished(tmp_path) == []


def test_killed_build_leaves_no_entry_and_the_same_call_finishes(tmp_path):
    process = started(tmp_path, KILLED)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert entries(tmp_path) == [] and len(unfinished(tmp_path)) == 3
    store, steps = Store(tmp_path), []
    # The lease and the checkpoints; the dead process's folder is swept.
    assert [Path(name).suffix for name in unfinished(tmp_path)][1:] == [".lease"]

    def build(folder):
        steps.append((store.scratch("tuned", A) / "step").read_text())
        (folder / "weights.bin").write_bytes(b"whole")

    entry = stored(store, "tuned", A, build)
    assert steps == ["7"] and (entry / "weights.bin").read_bytes() == b"whole"
    assert unfinished(tmp_path) == []


def test_a_dead_process_of_another_machine_is_taken_over_from(tmp_path, hasty, caplog):
    """A copy of its checkpoints is gone on from: nobody here knows whether it lives."""
    process = started(tmp_path, hasty + ELSEWHERE + KILLED)
    process.communicate(timeout=60)
    left, steps = unfinished(tmp_path), []
    store = Store(tmp_path)

    def build(folder):
        steps.append((store.scratch("tuned", A) / "step").read_text())
        (folder / "weights.bin").touch()

    with caplog.at_level(logging.INFO):
        stored(store, "tuned", A, build)
    assert steps == ["7"] and len(entries(tmp_path)) == 1
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("waiting")]
    assert len(said) == 1
    assert said[0].startswith(f"waiting for process {process.pid} on elsewhere since ")
    assert unfinished(tmp_path) == [name for name in left if not name.endswith(".lease")]
    old = time.time() - 2 * 86400
    for name in unfinished(tmp_path):
        os.utime(tmp_path / ".work" / name, (old, old))
    Store(tmp_path)
    assert not [name for name in unfinished(tmp_path) if name.endswith(".resume")]


def test_who_is_waited_for_is_said_once(tmp_path, hasty, caplog):
    body = 'stored(store, "tuned", {"a": 1}, lambda folder: (print(flush=True), time.sleep(2)))'
    process = started(tmp_path, hasty + body)
    first_line(process)
    with caplog.at_level(logging.INFO):
        build = Build()
        stored(Store(tmp_path), "tuned", A, build)
        stored(Store(tmp_path), "embedding", A, Build())
    assert process.wait(timeout=60) == 0 and build.calls == 0
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("waiting")]
    assert len(said) == 1 and f"process {process.pid} on " in said[0] and "tuned-" in said[0]


def test_a_process_killed_before_it_said_its_name_is_taken_over_from(tmp_path, hasty):
    store = Store(tmp_path)
    entry = tmp_path / store_module._entry("tuned", A)[0]
    eviction.lease_file(entry).touch()
    assert stored(store, "tuned", A, Build()) == entry and entry.exists()


def test_sweep_spares_the_living_and_other_machines(tmp_path):
    store = Store(tmp_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    here, other = private._here(), "0123456789ab"
    names = (
        f"tuned-0.{dead.pid}.{here}aa",
        f"tuned-1.{os.getpid()}.{here}aa",
        f"tuned-2.{dead.pid}.{other}aa",
        f"tuned-3.{dead.pid}.{other}aa",
        f"tuned-4.{dead.pid}.{here}aa.resume",
    )
    for name in names:
        (tmp_path / ".work" / name).mkdir()
    old = time.time() - 40 * 86400
    os.utime(tmp_path / ".work" / names[3], (old, old))
    assert Store(tmp_path) == store
    assert unfinished(tmp_path) == [names[1], names[2], names[4]]


def test_checkpoints_are_a_processes_own_and_go_with_success(tmp_path):
    store = Store(tmp_path)
    folder = store.scratch("tuned", KEY)
    (folder / "checkpoint").touch()
    assert Store(tmp_path).scratch("tuned", {**KEY, "steps": 128.0}) == folder
    process = started(tmp_path, f'print(store.scratch("tuned", {KEY!r}))\ntime.sleep(60)')
    other = Path(first_line(process))
    assert other != folder and (other / "checkpoint").exists(), "a copy of what is there"
    with pytest.raises(RuntimeError):
        stored(store, "tuned", KEY, lambda _: (_ for _ in ()).throw(RuntimeError))
    assert (folder / "checkpoint").exists()
    stored(store, "tuned", KEY, Build())
    assert not folder.exists() and (other / "checkpoint").exists(), "the other process lives"
    process.kill()
    process.communicate()


def test_of_two_that_both_build_the_first_is_kept(tmp_path):
    body = """
import contextlib, unitune.storage.store
unitune.storage.store.lease_of = lambda entry: contextlib.nullcontext()
def build(folder):
    (path / ".work" / f"started-{os.getpid()}").touch()
    until = time.monotonic() + 60
    while len(list((path / ".work").glob("started-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    (folder / "weights.bin").write_text(str(os.getpid()))
print(stored(store, "tuned", {"a": 1}, build))
"""
    processes = [started(tmp_path, body) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and printed[0] == printed[1]
    assert len([name for name in unfinished(tmp_path) if name.startswith("started-")]) == 2
    assert entries(tmp_path) == [Path(printed[0]).name] and len(unfinished(tmp_path)) == 2
    build = Build()
    kept = (stored(Store(tmp_path), "tuned", A, build) / "weights.bin").read_text()
    assert kept in [str(process.pid) for process in processes] and build.calls == 0


def test_budget_removes_the_least_recently_used_that_nobody_uses(tmp_path, caplog):
    store, mib = Store(tmp_path, budget_gib=4.5 / 1024), 2**20
    made = {}
    for age, name in enumerate("abcx"):
        made[name] = stored(store, "tuned", {"name": name}, Build(size=mib))
        os.utime(made[name] / MANIFEST, (1000 + age, 1000 + age))
    stored(store, "tuned", {"name": "a"}, Build())  # read: now the newest
    with caplog.at_level(logging.INFO), eviction.lease_of(made["b"]):  # being read
        made["d"] = stored(store, "tuned", {"name": "d"}, Build(size=mib))
    assert {name for name, entry in made.items() if entry.exists()} == {"a", "b", "x", "d"}
    assert any(made["c"].name in record.getMessage() for record in caplog.records)


def test_the_new_entry_stays_over_budget(tmp_path, caplog):
    store = Store(tmp_path, budget_gib=1 / 1024)
    old = stored(store, "tuned", {"name": "old"}, Build())
    new = stored(store, "tuned", {"name": "new"}, Build(size=2 * 2**20))
    assert new.exists() and not old.exists() and "over its budget" in caplog.text


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_a_file_system_without_rename_is_refused_at_once(tmp_path, monkeypatch, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched, pytest.raises(Refused, match="can be renamed") as found:
        patched.setattr(os, "rename", without)
        Store(tmp_path)
    assert os.strerror(number) in str(found.value) and "store.path=DIR" in str(found.value)
    assert unfinished(tmp_path) == []


def test_a_store_that_cannot_be_written_is_one_line(refused):
    assert "/proc/store/.work cannot be written" in refused("store.path=/proc/store")
