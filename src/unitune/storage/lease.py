"""Whose turn it is: a lease, which also holds on file systems whose locks do nothing.

A lease is a file that says who holds it and that the holder touches every few seconds. A dead
holder of this machine is seen at once; one of another machine by a file that stays untouched for
`SECONDS`. A holder that only slept that long is overtaken and goes on: what it does must harm
nobody, as in a store, where each process writes into folders of its own.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

from unitune.storage import disk

SECONDS = 30.0  # after which a holder that does not touch its file is taken for dead
SILENT = 2.0  # seconds of waiting before a word is said of it
POLL = 0.5  # seconds between looks at a file, which may lie on another machine

log = logging.getLogger(__name__)


@contextmanager
def lease(file: Path, *, wait: bool = True, outwait: bool = False) -> Iterator[bool]:
    """Hold the lease of `file` inside the context; yields whether it is held.

    That is always so where this waits. With `outwait` it waits for dead holders alone, which takes
    `SECONDS` where they are of another machine.

    Raises Refused where the folder cannot be written. On a full disk whoever does not wait needs no
    file: it comes to remove something, and nobody else can take the lease there.
    """
    claim = SoftFileLease(file, lease_duration=SECONDS)
    try:
        held = _acquired(claim, file, wait=wait) or (outwait and _outwaited(claim, file))
    except OSError as error:
        if wait or file.exists() or not disk.is_full(error):
            raise disk.explained(error) from error
        held = True
    try:
        yield held
    finally:
        if held:
            claim.release()


def holder(file: Path) -> str:
    """Name the process that holds a lease, "" where none does."""
    owner = SoftFileLease(file, lease_duration=SECONDS).owner
    return f"process {owner.pid} on {owner.hostname.partition('?')[0]}" if owner else ""


def _acquired(claim: SoftFileLease, file: Path, *, wait: bool) -> bool:
    """Take a lease; a file without a word is of a process that was killed while writing it."""
    try:
        claim.acquire(timeout=SILENT, blocking=wait)
        return True
    except Timeout:
        if not wait:
            return False
    since = time.strftime("%H:%M:%S", time.localtime(time.time() - SILENT))
    log.info("waiting for %s since %s: %s", holder(file) or "a process", since, file.stem)
    while True:
        before = _wordless(file)
        try:
            claim.acquire(timeout=SECONDS, poll_interval=POLL)
            return True
        except Timeout:
            if before is not None and before == _wordless(file):
                file.unlink(missing_ok=True)


def _outwaited(claim: SoftFileLease, file: Path) -> bool:
    """Take the lease of a dead holder: one that lives touches its file, and nothing is taken."""
    before, until = _touched(file), time.monotonic() + SECONDS + 2 * POLL
    while _touched(file) in (before, None) and time.monotonic() < until:
        with suppress(Timeout):
            claim.acquire(timeout=POLL, poll_interval=POLL)
            return True
    if before is None or before != _wordless(file):
        return False
    file.unlink(missing_ok=True)
    return _acquired(claim, file, wait=False)


def _touched(file: Path) -> tuple[int, int] | None:
    """Identify a file as it was last touched; None where there is none."""
    with suppress(FileNotFoundError):
        found = file.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _wordless(file: Path) -> tuple[int, int] | None:
    """Identify an empty file."""
    with suppress(FileNotFoundError):
        found = file.stat()
        if found.st_size == 0:
            return found.st_ino, found.st_mtime_ns
    return None
