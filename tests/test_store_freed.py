"""A store is freed where that is hardest: on a full disk, and after another machine has died."""

import errno
import os
import time
from pathlib import Path

import pytest
from stores import Build, entries, started, stored, unfinished

from unitune.storage import eviction
from unitune.storage.entries import MANIFEST
from unitune.storage.store import Store

ASK = ("--config-name", "store")
OLD = time.time() - 9 * 86400  # seconds since 1970


@pytest.fixture
def made(here: Path) -> list[Path]:
    """A store of three entries, unused for days, and of checkpoints as old."""
    store = Store(here / "store")
    folders = [stored(store, "tuned", {"k": k}, Build(size=2**20)) for k in range(3)]
    checkpoints = here / "store" / ".work" / "tuned-1.1.elsewhere.resume"
    checkpoints.mkdir()
    for path in (*[folder / MANIFEST for folder in folders], checkpoints):
        os.utime(path, (OLD, OLD))
    return folders


def asked(ask: str, folders: list[Path]) -> str:
    names = ",".join(folder.name for folder in folders)
    return f"free=[{names}]" if ask == "free" else f"{ask}=0"


def fill(monkeypatch, number: int) -> None:
    """From now on no new file can be written in a store."""
    opened = os.open

    def no_room(path, flags, *more, **named):
        if flags & os.O_CREAT and ".work" in str(path) and not Path(path).exists():
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", no_room)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("ask", ["free", "unused_days", "down_to_gib"])
def test_a_full_store_is_freed(typed, made, monkeypatch, ask, number):
    fill(monkeypatch, number)
    answer = typed(*ASK, asked(ask, made))
    assert answer.code == 0, answer.err
    assert entries(made[0].parent) == [] and answer.out.count("removed tuned-") == 3
    assert len(unfinished(made[0].parent)) == (0 if ask == "unused_days" else 1)


@pytest.mark.parametrize("ask", ["free", "unused_days", "down_to_gib"])
def test_what_is_in_use_stays_in_a_full_store(typed, made, hasty, monkeypatch, ask):
    with eviction.lease_of(made[1]):
        fill(monkeypatch, errno.ENOSPC)
        assert typed(*ASK, asked(ask, made)).code == 0
        assert entries(made[0].parent) == [made[1].name]


def test_a_store_that_cannot_be_written_for_another_reason_is_not_freed(refused, made, monkeypatch):
    fill(monkeypatch, errno.EROFS)
    assert "Read-only file system" in refused(*ASK, asked("free", made))


KILLED = """
socket.gethostname = lambda: "elsewhere"
from unitune.storage.eviction import lease_of
held = [lease_of(path / name) for name in ENTRIES]
for each in held:
    each.__enter__()
print("held", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ask", ["free", "unused_days", "down_to_gib"])
def test_what_a_dead_process_of_another_machine_held_is_freed(typed, made, hasty, ask):
    names = [made[0].name, "tuned-1"]
    body = hasty + KILLED.replace("ENTRIES", repr(names))
    said, errors = started(made[0].parent, body).communicate(timeout=60)
    assert said == "held\n", errors
    assert eviction.lease_file(made[0]).exists()
    answer = typed(*ASK, asked(ask, made))
    assert answer.code == 0 and entries(made[0].parent) == [], answer.out
    assert "kept" not in answer.out
    left = ["tuned-1.1.elsewhere.resume", "tuned-1.lease"]
    assert unfinished(made[0].parent) == ([] if ask == "unused_days" else left)


def test_what_a_process_held_that_was_killed_before_it_said_its_name_is_freed(typed, made, hasty):
    eviction.lease_file(made[0]).touch()
    assert typed(*ASK, asked("free", made)).code == 0
    assert entries(made[0].parent) == [] and not eviction.lease_file(made[0]).exists()
