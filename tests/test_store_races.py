"""What other processes rename, remove or still write in a store while this one looks."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unitune.storage import private
from unitune.storage.files import write_whole


@pytest.fixture
def others(tmp_path) -> list[Path]:
    """Checkpoints of an entry by two processes, the first of which has ended; it wrote last."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    owners = (f"{dead.pid}.{private._here()}aa", "1.0123456789abaa")
    folders = [tmp_path / f"tuned-1.{owner}{private.RESUME}" for owner in owners]
    for age, folder in enumerate(folders):
        folder.mkdir()
        for name in ("base.ckpt", "base-2.safetensors"):
            (folder / name).write_text(folder.name)
        os.utime(folder, (2000 - age, 2000 - age))
    return folders


@pytest.mark.parametrize("dead", [True, False], ids=["renamed", "listed"])
def test_checkpoints_that_another_process_takes_are_looked_for_again(others, monkeypatch, dead):
    def taken(path: Path) -> bool:
        shutil.rmtree(others[0], ignore_errors=True)
        return dead and path == others[0]

    monkeypatch.setattr(private, "_is_dead", taken)
    own = private.checkpoints(others[0].parent, "tuned-1")
    assert {file.read_text() for file in own.iterdir()} == {others[1].name}
    assert sorted(others[0].parent.iterdir()) == sorted([others[1], own])


def test_a_copy_that_was_cut_short_is_not_gone_on_from(others, monkeypatch):
    """Its checkpoint may know of files that went before they were copied."""
    changed = private._changed

    def and_takes(path: Path) -> float:
        when = changed(path)
        if path.parent == others[0]:
            shutil.rmtree(others[0], ignore_errors=True)
        return when

    monkeypatch.setattr(private, "_is_dead", lambda path: False)
    monkeypatch.setattr(private, "_changed", and_takes)
    own = private.checkpoints(others[0].parent, "tuned-1")
    assert {file.read_text() for file in own.iterdir()} == {others[1].name}
    assert len(list(own.iterdir())) == 2
    assert sorted(others[0].parent.iterdir()) == sorted([others[1], own])


def test_checkpoints_that_go_while_they_are_counted_do_not_count(others, monkeypatch):
    (others[1] / "gone").symlink_to("nothing")
    changed = private._changed

    def and_takes(path: Path) -> float:
        shutil.rmtree(others[0], ignore_errors=True)
        return changed(path)

    monkeypatch.setattr(private, "_changed", and_takes)
    (count,) = private.unfinished(others[0].parent).values()
    assert count == (changed(others[1]), 2 * len(others[1].name))


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_copy_takes_no_room_where_files_can_be_linked(others, monkeypatch, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    if number is not None:
        monkeypatch.setattr(os, "link", without)
    monkeypatch.setattr(private, "_is_dead", lambda path: False)
    own, kept = private.checkpoints(others[0].parent, "tuned-1"), others[0] / "base.ckpt"
    assert (own / kept.name).samefile(kept) == (number is None)
    write_whole("newer", own / kept.name)
    assert kept.read_text() == others[0].name and (own / kept.name).read_text() == "newer"


def test_machines_alike_in_all_but_their_start_are_told_apart(tmp_path, monkeypatch):
    """A process of one is not taken for dead on the other, where its number means nothing."""
    dead, names = subprocess.Popen(["true"]), set()
    dead.wait()
    for boot in ("one", "other", None):
        file = tmp_path / f"boot-{boot}"
        if boot is not None:
            file.write_text(boot)
        monkeypatch.setattr(private, "BOOT", file)
        names.add(f"tuned-1.{dead.pid}.{private._here()}aa")
    assert len(names) == 3
    assert [private._is_dead(tmp_path / name) for name in sorted(names)].count(True) == 1
