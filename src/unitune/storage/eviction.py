"""Removing entries of a store: never one that a process makes or reads."""

import logging
import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from unitune.storage import disk, private
from unitune.storage.entries import WORK, used
from unitune.storage.lease import lease

log = logging.getLogger(__name__)


def lease_file(entry: Path) -> Path:
    """Name the file of an entry's lease, which whoever makes, reads or removes it holds."""
    return entry.parent / WORK / f"{entry.name}.lease"


def lease_of(
    entry: Path, *, wait: bool = True, outwait: bool = False
) -> AbstractContextManager[bool]:
    """Hold an entry's lease inside the context."""
    return lease(lease_file(entry), wait=wait, outwait=outwait)


def remove(entry: Path, *, outwait: bool = False) -> bool:
    """Remove an entry; False where a process makes or reads it, and it stays.

    `outwait` waits until a process of another machine is known to be dead.
    """
    with lease_of(entry, wait=False, outwait=outwait) as free:
        if free:
            discard(entry)
    return free


def discard(entry: Path) -> None:
    """Remove an entry of which the lease is held; it is never seen half removed."""
    aside = private.folder(entry.parent / WORK, entry.name)
    with suppress(FileNotFoundError):  # another process removed it
        os.rename(entry, aside)
        shutil.rmtree(aside, ignore_errors=True)


def shrink(store: Path, budget: int, *, spare: Path | None = None, outwait: bool = False) -> int:
    """Remove the least recently used entries until a store has at most `budget` bytes.

    `spare` stays, and so does what is in use. Returns the bytes that are left.
    """
    entries = used(store)
    total = sum(size for _, size in entries.values())
    for entry, (_, size) in sorted(entries.items(), key=lambda item: item[1]):
        if total <= budget:
            break
        if entry != spare and remove(entry, outwait=outwait):
            log.info("removed %s (%s), unused for longest", entry.name, disk.size(size))
            total -= size
    return total
