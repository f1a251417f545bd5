"""The store: what is slow to make is made once, named by what it was made from.

An entry is the folder `<kind>-<fingerprint>` with its files and a `manifest.json` (kind, key,
files: name -> sha256, made). It is whole or absent: it is built aside in `.work` and renamed when
everything is on disk. Processes, also of several machines that share the folder, take turns by a
lease (`lease`) and write into folders of their own (`private`).
"""

import errno
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unitune.errors import Refused, number
from unitune.storage import disk, private
from unitune.storage.entries import MANIFEST, WORK, damage, fsync, manifests, seal, used
from unitune.storage.eviction import discard, lease_of, shrink
from unitune.storage.keys import fingerprint, plain

TUNING_VERSION = 5  # of the store: raised when the same key would give another result
KINDS = ("tuned", "embedding", "class_images")

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
        private.sweep(self.path, self._work)

    @property
    def _work(self) -> Path:
        return self.path / WORK

    @contextmanager
    def get_or_make(
        self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> Iterator[Path]:
        """Give the folder of an entry, which no other process removes inside the context.

        `build(folder)` makes one that is missing or damaged. A second process that wants it waits.
        Should both build, as after a sleep, the first to finish is kept. Raises Refused when the
        disk is full or cannot be written.
        """
        name, full_key = _entry(kind, key)
        entry = self.path / name
        if entry.exists():
            damage(entry, kind)  # it is read here, so that others need not wait for that
        with lease_of(entry):
            self._ensure(entry, kind, full_key, build)
            yield entry

    def _ensure(
        self, entry: Path, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> None:
        if entry.exists():
            harm = damage(entry, kind)
            if harm is None:
                os.utime(entry / MANIFEST)
                return
            log.warning("stored entry %s is damaged (%s): rebuilt", entry.name, harm)
            discard(entry)
        self._make(entry, kind, key, build)
        private.clear(self._work, entry.name)
        self._keep_budget(entry)

    def _make(
        self, entry: Path, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> None:
        work = private.folder(self._work, entry.name)
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
            explained = disk.explained(error)
            if explained is error:
                raise
            if disk.is_full(error):
                have = disk.size(shutil.disk_usage(self.path).free)
                explained = Refused(
                    f"disk full ({have} left): {entry.name} could not be stored under {self.path}; "
                    "free some space or set store.path elsewhere"
                )
            raise explained from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def scratch(self, kind: str, key: Mapping[str, object]) -> Path:
        """Return this process's folder for checkpoints of this entry's build.

        It begins with those that another process left, and goes once the entry is complete.
        """
        return private.checkpoints(self._work, _entry(kind, key)[0])

    def _keep_budget(self, new: Path) -> None:
        total = shrink(self.path, int(self.budget_gib * 2**30), spare=new)
        if total > self.budget_gib * 2**30:
            over = "the store is over its budget of %g GiB (%s): the rest is new or in use"
            log.warning(over, self.budget_gib, disk.size(total))


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
