"""The store: what is slow to make is made once, named by what it was made from.

An entry is the folder `<kind>-<fingerprint>` with its files and a `manifest.json` (kind, key,
files: name -> sha256, made). It is whole or absent: it is built aside in `.work` and renamed when
everything is on disk. `.work/<entry>.resume` holds a long build's checkpoints.
"""

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from unitune.errors import Refused, number
from unitune.storage import disk
from unitune.storage.entries import MANIFEST, damage, fsync, manifests, seal, used
from unitune.storage.keys import fingerprint, plain

TUNING_VERSION = 4  # of the store: raised when the same key would give another result
KINDS = ("tuned", "embedding", "class_images")
STALE_DAYS = 30  # of forgotten checkpoints, and of work folders of processes on other machines

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Entries under `path`, at most `budget_gib` of them: the least recently used go first.

    Raises Refused where nothing can be written, and for a store of another version.
    """

    path: Path
    budget_gib: float = 20.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser().absolute())
        if not (number(self.budget_gib) and self.budget_gib > 0):
            raise Refused(f"store.budget_gib must be a number above 0, got {self.budget_gib!r}")
        check_version(self.path)
        disk.check_writable(self._work, "store.path")
        self._sweep()

    @property
    def _work(self) -> Path:
        return self.path / ".work"

    def get_or_make(
        self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> Path:
        """Return the folder of an entry; `build(folder)` makes one that is missing or damaged.

        A second process that wants it waits; without working locks both build, and the first to
        finish is kept. Raises Refused when the disk is full.
        """
        name, full_key = _entry(kind, key)
        entry = self.path / name
        with FileLock(self._work / f"{name}.lock"):
            if entry.exists():
                harm = damage(entry, kind)
                if harm is None:
                    os.utime(entry / MANIFEST)
                    return entry
                log.warning("stored entry %s is damaged (%s): rebuilt", name, harm)
                self._remove(entry)
            self._make(entry, kind, full_key, build)
            shutil.rmtree(self._work / f"{name}.resume", ignore_errors=True)
            self._keep_budget(entry)
        return entry

    def _make(
        self, entry: Path, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> None:
        work = self._work_folder(entry.name)
        try:
            work.mkdir()
            build(work)
            seal(work, kind, key)
            try:
                os.rename(work, entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                log.info("another process made %s first; its result is used", entry.name)
            fsync(self.path)
        except Exception as error:
            if not disk.is_full(error):
                raise
            have = disk.size(shutil.disk_usage(self.path).free)
            raise Refused(
                f"disk full ({have} left): {entry.name} could not be stored under {self.path}; "
                "free some space or set store.path elsewhere"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def scratch(self, kind: str, key: Mapping[str, object]) -> Path:
        """Return the folder for checkpoints of this entry's build: the same in every process.

        It goes once the entry is complete.
        """
        folder = self._work / f"{_entry(kind, key)[0]}.resume"
        folder.mkdir(exist_ok=True)
        return folder

    def _work_folder(self, name: str) -> Path:
        # `_sweep` reads from the name which process on which machine it belongs to.
        return self._work / f"{name}.{os.getpid()}.{_here()}{secrets.token_hex(4)}"

    def _remove(self, entry: Path) -> None:
        # Renamed first: an entry is never seen half deleted.
        aside = self._work_folder(entry.name)
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            os.rename(entry, aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _sweep(self) -> None:
        for path in self._work.iterdir():
            _, _, rest = path.name.partition(".")
            pid, _, machine = rest.partition(".")
            try:
                old = time.time() - path.stat().st_mtime > STALE_DAYS * 86400
            except FileNotFoundError:  # finished meanwhile
                continue
            # A pid says something about this machine alone; the store may be shared by several.
            dead = pid.isdigit() and machine.startswith(_here()) and not _is_alive(int(pid))
            if old or dead:
                log.info("removed the unfinished %s", path.name)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _keep_budget(self, new: Path) -> None:
        entries = used(self.path)
        total = sum(size for _, size in entries.values())
        budget = self.budget_gib * 2**30
        over = "the store is over %g GiB: removed %s (%.1f MiB), unused for longest"
        for entry, (_, size) in sorted(entries.items(), key=lambda item: item[1]):
            if total > budget and entry != new:
                log.info(over, self.budget_gib, entry.name, size / 2**20)
                self._remove(entry)
                total -= size
        if total > budget:
            alone = "%s alone is over the store's budget of %g GiB (%.1f MiB)"
            log.warning(alone, new.name, self.budget_gib, total / 2**20)


def check_version(path: Path) -> None:
    """Refuse a store that holds entries of another version of this program."""
    for entry, manifest in manifests(path):
        version = manifest["key"].get("tuning_version", "none")
        if version != TUNING_VERSION:
            raise Refused(
                f"the store {disk.shown(path)} holds {entry.name} of version {disk.shown(version)},"
                f" and this program reads version {TUNING_VERSION}; move that store away, "
                "or choose another folder with store.path=DIR"
            )


def contents(path: Path) -> tuple[dict[str, set[str]], int]:
    """Return what a store has of each image, by its digest, and the bytes that the store uses.

    What it has are the names of the stages that were tuned on the image, and "embedding".
    """
    made = defaultdict[str, set[str]](set)
    for _, manifest in manifests(path):
        key = manifest["key"]
        if "image" in key:
            made[str(key["image"])].add(str(key.get("stage", manifest["kind"])))
    return made, sum(size for _, size in used(path).values())


def _entry(kind: str, key: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Return the name of an entry and its whole key."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    full = {name: plain(value, name) for name, value in key.items()}
    full["tuning_version"] = TUNING_VERSION
    return f"{kind}-{fingerprint(full)}", full


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _here() -> str:
    """Name this machine in 4 hex digits."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
