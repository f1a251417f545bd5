"""Folders of a store's `.work`, each written by one process alone and named by it.

`ENTRY.PID.MACHINE+RANDOM` is an entry while it is built. `ENTRY.PID.MACHINE+RANDOM.resume` holds a
long build's checkpoints: another process takes over what a dead one left, or a copy of it.
"""

import hashlib
import logging
import os
import secrets
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

RESUME = ".resume"
STALE_DAYS = 30  # of what processes on other machines left, who may live
BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux draws it anew whenever it starts
FINISHED_DAYS = 1  # of checkpoints for an entry that is there: whoever writes them writes often

log = logging.getLogger(__name__)
_RANDOM = secrets.token_hex(4)


def folder(work: Path, entry: str) -> Path:
    """Name a new folder of this process."""
    return work / f"{entry}.{os.getpid()}.{_here()}{secrets.token_hex(4)}"


def checkpoints(work: Path, entry: str) -> Path:
    """Return this process's folder for the checkpoints of an entry.

    It begins with what the latest other process left. What a dead one left is taken over; of what
    is perhaps still written a copy is made, newest file first, so that a checkpoint never knows
    more than the files that are copied after it.
    """
    while True:
        with suppress(FileNotFoundError):  # taken over or removed since it was listed
            return _begun(work, entry)


def _begun(work: Path, entry: str) -> Path:
    """Make the folder that `checkpoints` returns, or find it."""
    own = work / f"{entry}.{os.getpid()}.{_here()}{_RANDOM}{RESUME}"
    left = sorted(work.glob(f"{entry}.*{RESUME}"), key=_changed)
    if own in left:
        return own
    if not left:
        own.mkdir(parents=True)
    elif _is_dead(left[-1]):
        os.rename(left[-1], own)
    else:
        files = sorted(left[-1].iterdir(), key=_changed, reverse=True)
        copy = folder(work, entry)
        copy.mkdir()
        for file in files:
            with suppress(FileNotFoundError):  # renamed or removed meanwhile
                if not file.name.endswith(".tmp"):
                    _copy(file, copy / file.name)
        if not left[-1].exists():  # and not all of it was copied
            shutil.rmtree(copy)
            return _begun(work, entry)
        os.rename(copy, own)
    return own


def unfinished(work: Path) -> dict[Path, tuple[float, int]]:
    """Return when the checkpoints of each unfinished build were last changed, and their bytes."""
    found = {}
    for folder in sorted(work.glob(f"*{RESUME}")):
        with suppress(FileNotFoundError):  # taken over or removed since it was listed
            found[folder] = _changed(folder), sum(map(_bytes, folder.iterdir()))
    return found


def clear(work: Path, entry: str) -> None:
    """Remove the checkpoints of an entry that is whole; those of others that live stay."""
    for path in work.glob(f"{entry}.*{RESUME}"):
        if _is_own(path) or _is_dead(path):
            shutil.rmtree(path, ignore_errors=True)


def sweep(store: Path, work: Path) -> None:
    """Remove what dead processes left, apart from checkpoints that a build can go on from."""
    for path in work.iterdir():
        days = (time.time() - _changed(path)) / 86400
        limit = STALE_DAYS
        if path.name.endswith(RESUME) and (store / path.name.partition(".")[0]).exists():
            limit = FINISHED_DAYS
        dead = _is_dead(path) and (not path.name.endswith(RESUME) or limit == FINISHED_DAYS)
        if dead or days > limit:
            log.info("removed the unfinished %s", path.name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """When a file or folder was last changed; now where it just went."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _copy(file: Path, copy: Path) -> None:
    """Give a file a second name where that works, which takes no room.

    What is written to either later shows in that one alone: files of checkpoints are replaced by
    new ones (`files.write_whole`), never changed.
    """
    try:
        os.link(file, copy)
    except OSError:  # not every file system has links
        shutil.copyfile(file, copy)


def _bytes(file: Path) -> int:
    """Return the size of a file; 0 of one that just went."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _is_own(path: Path) -> bool:
    return path.name.endswith(f".{os.getpid()}.{_here()}{_RANDOM}{RESUME}")


def _is_dead(path: Path) -> bool:
    """Whether a folder's process has ended; of one on another machine that is not known."""
    _, pid, machine, *_ = [*path.name.split("."), "", ""]
    if not (pid.isdigit() and machine.startswith(_here())):
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _here() -> str:
    """Name this machine, or container, in 12 hex digits: a pid says something within it alone."""
    name = socket.gethostname()
    with suppress(OSError):  # Linux alone says in which space of pids a process is
        name += str(os.stat("/proc/self/ns/pid").st_ino)
    with suppress(OSError):  # which copies of one machine share, their names, too
        name += BOOT.read_text()
    return hashlib.sha256(name.encode()).hexdigest()[:12]
