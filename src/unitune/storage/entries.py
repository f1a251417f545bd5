"""The folders of the store: their manifest, whether they are as they were stored, their size."""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unitune.storage.keys import fingerprint

MANIFEST = "manifest.json"
WORK = ".work"  # beside the entries: what is being made, and by whom
JUST = 2.0  # seconds within which two changes of a file may bear the same time

State = tuple[bytes, list[tuple[str, int, int, float]]]  # manifest; files: name, inode, bytes, time
_WHOLE: dict[Path, State] = {}  # entries that this process found as they were stored


def manifests(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each entry with its manifest; without those that are damaged or just removed."""
    for file in sorted(path.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            manifest = json.loads(file.read_bytes())
            yield file.parent, {"kind": manifest["kind"], "key": dict(manifest["key"])}


def used(path: Path) -> dict[Path, tuple[float, int]]:
    """Return when each entry was last used, and how many bytes it has."""
    found: dict[Path, tuple[float, int]] = {}
    for manifest in path.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            size = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
            found[manifest.parent] = (manifest.stat().st_mtime, size)
    return found


def seal(folder: Path, kind: str, key: Mapping[str, object]) -> None:
    """Write the manifest and put everything on disk."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    digests = {file.relative_to(folder).as_posix(): _sha256(file) for file in files}
    if MANIFEST in digests:
        raise ValueError(f"a build must not write {MANIFEST} itself")
    made = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {"kind": kind, "key": key, "files": digests, "made": made}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        fsync(path)


def damage(entry: Path, kind: str) -> str | None:
    """Name the file that is not as it was stored, or None.

    What this process found whole is not read again while no file of it changes.
    """
    began = time.time()
    state = _state(entry)
    if state is not None and _WHOLE.get(entry) == state and entry.name.startswith(f"{kind}-"):
        return None
    harm = _damage(entry, kind)
    if harm is None and state is not None and all(at < began - JUST for *_, at in state[1]):
        _WHOLE[entry] = state
    return harm


def _state(entry: Path) -> State | None:
    """Return what tells of a change to an entry's files; None where some cannot be read.

    The manifest says itself what it holds: its time is that of the last use.
    """
    try:
        files = [file for file in sorted(entry.rglob("*")) if file.is_file()]
        found = [(file, file.stat()) for file in files if file != entry / MANIFEST]
        manifest = (entry / MANIFEST).read_bytes()
    except OSError:
        return None
    return manifest, [(str(f), of.st_ino, of.st_size, of.st_mtime) for f, of in found]


def _damage(entry: Path, kind: str) -> str | None:
    reading = MANIFEST
    try:
        manifest = json.loads((entry / MANIFEST).read_bytes())
        if manifest["kind"] != kind or entry.name != f"{kind}-{fingerprint(manifest['key'])}":
            return MANIFEST
        for reading, digest in dict(manifest["files"]).items():
            if _sha256(entry / reading) != digest:
                return reading
    except (OSError, ValueError, TypeError, KeyError):
        return reading
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Put a file, or what a folder lists, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems do so with files alone
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
