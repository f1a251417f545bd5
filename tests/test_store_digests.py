"""What is stored is read whole once in a process, and while nobody waits for it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import KEY, Build, stored

from unitune.storage import entries, store
from unitune.storage.store import MANIFEST, Store


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are digested, with "leased " before those that others wait for."""
    files: list[str] = []
    digest, lease_of, leased = entries._sha256, store.lease_of, []

    def noted(file: Path) -> str:
        files.append(f"{'leased ' if leased else ''}{file.name}")
        return digest(file)

    @contextmanager
    def noted_lease(entry: Path) -> Iterator[bool]:
        with lease_of(entry) as held:
            leased.append(entry)
            yield held
            leased.clear()

    monkeypatch.setattr(entries, "_sha256", noted)
    monkeypatch.setattr(store, "lease_of", noted_lease)
    return files


def made(folder: Path, age: float = 60.0) -> tuple[Store, Path]:
    """A store with one entry whose files are seconds old."""
    found = Store(folder)
    entry = stored(found, "tuned", KEY, Build())
    then = time.time() - age
    for file in (entry / "weights.bin", entry / "images/0.png"):
        os.utime(file, (then, then))
    return found, entry


def test_an_entry_is_digested_once_and_before_its_lease(tmp_path: Path, read: list[str]):
    found, entry = made(tmp_path)
    read.clear()
    for _ in range(3):
        assert stored(found, "tuned", KEY, Build()) == entry
        os.utime(entry / MANIFEST)  # as each use does, also that of another process
    assert sorted(read) == ["0.png", "weights.bin"]


@pytest.mark.parametrize("name", ["weights.bin", "images/0.png", MANIFEST])
@pytest.mark.parametrize("how", ["removed", "cut", "other bytes"])
def test_a_change_after_that_is_found(tmp_path: Path, name: str, how: str):
    found, entry = made(tmp_path)
    stored(found, "tuned", KEY, Build())
    file = entry / name
    held = file.read_bytes()
    file.unlink()
    if how != "removed":
        file.write_bytes(held[:-3] if how == "cut" else held[:-3] + b"???")
    again = Build()
    stored(found, "tuned", KEY, again)
    assert again.calls == 1 and entries.damage(entry, "tuned") is None


def test_files_just_written_are_read_again(tmp_path: Path, read: list[str]):
    """Two changes within a moment may bear the same time."""
    found, entry = made(tmp_path, age=0.0)
    stored(found, "tuned", KEY, Build())
    read.clear()
    stored(found, "tuned", KEY, Build())
    assert "weights.bin" in read
    kept = (entry / "weights.bin").stat()
    (entry / "weights.bin").write_bytes(b"weightS")
    os.utime(entry / "weights.bin", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    again = Build()
    stored(found, "tuned", KEY, again)
    assert again.calls == 1
