"""The store: what is slow to make is made once, named by what it was made from, and an entry is either whole or absent.

An entry is the folder `<kind>-<fingerprint>` with its files and a `manifest.json` (kind, key, files: name -> sha256, made), written last. It is built
aside in `.work` and renamed when everything is on disk, so a killed process leaves no entry. `.work/<entry>.resume` holds a long build's checkpoints.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from unitune.storage import disk
from unitune.types import Refused, number

TUNING_VERSION = 4  # raised whenever the same key would give another result
KINDS = ("tuned", "embedding", "class_images")
MANIFEST = "manifest.json"
STALE_DAYS = 30  # for work folders whose process cannot be asked for (another machine), and forgotten checkpoints

log = logging.getLogger(__name__)


def fingerprint(data: object) -> str:
    """Name plain data by 16 hex digits: 1 and 1.0 agree, tuples and lists, dataclasses and their fields, keys in any order. Else TypeError naming the key."""
    canonical = json.dumps(
        _plain(data, "data"), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """Entries under `path`, at most `budget_gib` of them: the least recently used go first. Raises Refused where nothing can be written."""

    path: Path
    budget_gib: float = 20.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser().absolute())
        if not (number(self.budget_gib) and self.budget_gib > 0):
            raise Refused(f"store.budget_gib must be a number above 0, got {self.budget_gib!r}")
        disk.check_writable(self._work, "store.path")
        self._sweep()

    @property
    def _work(self) -> Path:
        return self.path / ".work"

    def get_or_make(
        self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> Path:
        """Return the folder of an entry; where it is missing or damaged, `build(folder)` writes its files first.

        A second process that wants it waits; without working locks both build, the first to finish is kept. Raises Refused when the disk is full.
        """
        name, key = _entry(kind, key)
        with FileLock(self._work / f"{name}.lock"):
            return self._get_or_make(kind, name, key, build)

    def _get_or_make(
        self, kind: str, name: str, key: Mapping[str, object], build: Callable[[Path], None]
    ) -> Path:
        entry = self.path / name
        if entry.exists():
            if (damage := _damage(entry, kind)) is None:
                os.utime(entry / MANIFEST)
                return entry
            log.warning("stored entry %s is damaged (%s): rebuilt", name, damage)
            self._remove(entry)
        work = self._work_folder(name)
        try:
            work.mkdir()
            build(work)
            _seal(work, kind, key)
            try:
                os.rename(work, entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                log.info("another process made %s first; its result is used", name)
            _fsync(self.path)
        except Exception as error:
            if not disk.is_full(error):
                raise
            have = disk.size(shutil.disk_usage(self.path).free)
            raise Refused(
                f"disk full ({have} left): {name} could not be stored under {self.path}; free some space or set store.path elsewhere"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(self._work / f"{name}.resume", ignore_errors=True)
        self._keep_budget(entry)
        return entry

    def scratch(self, kind: str, key: Mapping[str, object]) -> Path:
        """Return the folder for checkpoints of this entry's build: the same in every process, removed once the entry is complete."""
        folder = self._work / f"{_entry(kind, key)[0]}.resume"
        folder.mkdir(exist_ok=True)
        return folder

    def _work_folder(self, name: str) -> Path:
        return self._work / f"{name}.{os.getpid()}.{_here()}{secrets.token_hex(4)}"

    def _remove(self, entry: Path) -> None:
        # Renamed first: an entry is never seen half deleted.
        aside = self._work_folder(entry.name)
        try:
            os.rename(entry, aside)
        except FileNotFoundError:  # another process removed it
            return
        disk.delete(aside)

    def _sweep(self) -> None:
        for folder in self._work.iterdir():
            _, _, rest = folder.name.partition(".")
            pid, _, random = rest.partition(".")
            try:
                old = time.time() - folder.stat().st_mtime > STALE_DAYS * 86400
            except FileNotFoundError:  # finished meanwhile
                continue
            # A pid says something about this machine alone; the store may be shared by several.
            if old or (pid.isdigit() and random.startswith(_here()) and not _is_alive(int(pid))):
                log.info("removed the unfinished %s", folder.name)
                disk.delete(folder)

    def _keep_budget(self, new: Path) -> None:
        used = _used(self.path)
        total, budget = sum(size for _, size in used.values()), self.budget_gib * 2**30
        for entry, (_, size) in sorted(used.items(), key=lambda item: item[1]):
            if total <= budget:
                return
            if entry != new:
                log.info(
                    "the store is over %g GiB: removed %s (%.1f MiB), unused for longest",
                    self.budget_gib,
                    entry.name,
                    size / 2**20,
                )
                self._remove(entry)
                total -= size
        if total > budget:
            log.warning(
                "%s alone is over the store's budget of %g GiB (%.1f MiB)",
                new.name,
                self.budget_gib,
                total / 2**20,
            )


def contents(path: Path) -> tuple[dict[str, set[str]], int]:
    """Return what a store has of each image, by its digest: the stages that were tuned on it, and "embedding"; and the bytes the store uses."""
    made, used = defaultdict[str, set[str]](set), _used(path)
    for entry in used:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            about = json.loads((entry / MANIFEST).read_bytes())
            made[str(about["key"]["image"])].add(str(about["key"].get("stage", about["kind"])))
    return made, sum(size for _, size in used.values())


def _used(path: Path) -> dict[Path, tuple[float, int]]:
    """Of each entry when it was last used and how many bytes it has."""
    used: dict[Path, tuple[float, int]] = {}
    for manifest in path.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            size = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
            used[manifest.parent] = (manifest.stat().st_mtime, size)
    return used


def _plain(value: object, where: str) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        odd = [name for name in value if not isinstance(name, str)]
        if odd:
            raise TypeError(f"{where} has the key {odd[0]!r}; keys must be strings")
        return {name: _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return int(value) if value.is_integer() else float(value)
    raise TypeError(
        f"{where} is {value!r} ({type(value).__name__}), not plain data: use strings, finite numbers, booleans, None, lists and mappings"
    )


def _entry(kind: str, key: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    full = {
        **{name: _plain(value, name) for name, value in key.items()},
        "tuning_version": TUNING_VERSION,
    }
    return f"{kind}-{fingerprint(full)}", full


def _seal(folder: Path, kind: str, key: Mapping[str, object]) -> None:
    """Put everything on disk, then the manifest."""
    files = {}
    for file in sorted(folder.rglob("*")):
        _fsync(file)
        if file.is_file():
            files[file.relative_to(folder).as_posix()] = _sha256(file)
    if MANIFEST in files:
        raise ValueError(f"a build must not write {MANIFEST} itself")
    made = datetime.now(UTC).isoformat(timespec="seconds")
    (folder / MANIFEST).write_text(
        json.dumps({"kind": kind, "key": key, "files": files, "made": made}, indent=1) + "\n",
        encoding="utf-8",
    )
    _fsync(folder / MANIFEST)
    _fsync(folder)


def _damage(entry: Path, kind: str) -> str | None:
    """Name the file that is not as it was stored, or None."""
    try:
        manifest = json.loads((entry / MANIFEST).read_bytes())
        if manifest["kind"] != kind or entry.name != f"{kind}-{fingerprint(manifest['key'])}":
            return MANIFEST
        files = dict(manifest["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return MANIFEST
    for name, digest in files.items():
        try:
            if _sha256(entry / name) != digest:
                return name
        except OSError:
            return name
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _here() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
