"""What a store holds, in words, and freeing it: python run.py --config-name store."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unitune.errors import Refused, number
from unitune.storage import disk, private
from unitune.storage.entries import MANIFEST, WORK, used
from unitune.storage.eviction import lease_file, lease_of, remove, shrink
from unitune.storage.lease import holder

DAY = 86400


@dataclass(frozen=True)
class Stored:
    """An entry of a store: its folder, when it was last used (s since 1970), its bytes, its key."""

    entry: Path
    last_use: float
    size: int
    manifest: Mapping[str, Any]

    @property
    def line(self) -> str:
        """Say all of it in one line."""
        made, day = str(self.manifest.get("made", ""))[:16].replace("T", " "), "%Y-%m-%d %H:%M"
        last = datetime.fromtimestamp(self.last_use, UTC).strftime(day)
        name, size = self.entry.name, disk.size(self.size)
        return f"{name}  {size}  made {made or '?'}  used {last}  {words(self.manifest)}"


def run(
    *, store: Mapping[str, Any], explain: object = None, free: object = None,
    unused_days: object = None, down_to_gib: object = None,
) -> Iterator[str]:  # fmt: skip
    """Yield the lines of one command: a list of entries, or what one is, or what was removed.

    Raises Refused for names and numbers that cannot be meant.
    """
    path = Path(str(store["path"])).expanduser().absolute()
    asked = {"explain": explain, "free": free}
    asked |= {"unused_days": unused_days, "down_to_gib": down_to_gib}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise Refused(f"{given[0]}= and {given[1]}= cannot be asked for at once; leave one out")
    if not path.is_dir():
        raise Refused(f"no store in {disk.shown(path)}; name its folder with store.path=DIR")
    held = stored(path)
    if explain is not None:
        yield from explained(_named(held, [explain])[0])
    elif free is not None:
        names = free if isinstance(free, list) else [free]
        yield from _freed(path, _named(held, names))
    elif unused_days is not None:
        before = time.time() - _at_least_0("unused_days", unused_days) * DAY
        yield from _freed(path, [one for one in held if one.last_use < before])
        yield from _forgotten(path, before)
    elif down_to_gib is not None:
        budget = int(_at_least_0("down_to_gib", down_to_gib) * 2**30)
        _check_removable(path)
        shrink(path, budget, outwait=True)
        gone = [one for one in held if not one.entry.exists()]
        yield from (f"removed {one.line}" for one in gone)
        yield _sum("removed", gone)
        yield _sum("left", stored(path))
    else:
        yield from (one.line for one in held)
        yield _sum(f"in {disk.shown(path)}:", held)
        if left := private.unfinished(path / WORK):
            size = disk.size(sum(size for _, size in left.values()))
            yield f"checkpoints of {len(left)} unfinished builds, {size}: the same command goes on"


def stored(path: Path) -> list[Stored]:
    """List the entries of a store, last used first; of any version, and damaged ones, too."""
    found = []
    for entry, (last_use, size) in used(path).items():
        try:
            manifest = json.loads((entry / MANIFEST).read_bytes())
        except (OSError, ValueError):
            manifest = {}
        known = isinstance(manifest, dict) and isinstance(manifest.get("key"), dict)
        found.append(Stored(entry, last_use, size, manifest if known else {}))
    return sorted(found, key=lambda one: (-one.last_use, one.entry.name))


def words(manifest: Mapping[str, Any]) -> str:
    """Say in one line what an entry was made from."""
    if not manifest:
        return "damaged: its manifest cannot be read"
    key, kind = manifest["key"], manifest.get("kind")
    text = key.get("prompt") or key.get("text") or "; ".join(key.get("texts") or [])
    of = f" of the image {str(key['image'])[:8]}" if "image" in key else ""
    if kind == "class_images":
        said = f"{key.get('sampler', {}).get('count', '?')} pictures of the class {text!r}"
    elif kind == "embedding" and "image" not in key:
        said = f"the text {text!r}"
    else:
        tune = key.get("tune") or key.get("embedding") or {}
        kinds = tune.get("kinds") or tune.get("optimizer") or ["?"]
        how = " ".join(str(one) for one in kinds if isinstance(one, str))
        snapshots = f", snapshots {tune['snapshots']}" if tune.get("snapshots") else ""
        said = (
            f"{key.get('recipe', '?')} {key.get('stage', kind)}{of} on {text!r}: {how}, "
            f"lr {tune.get('lr')}, {tune.get('steps')} steps x {tune.get('batch_size')}{snapshots}"
        )
    seed = f", seed {key['seed']}" if "seed" in key else ""
    return disk.shown(f"{said}{seed}, version {key.get('tuning_version', 'none')}")


def explained(one: Stored) -> Iterator[str]:
    """Say all that decides an entry, and its files with their bytes."""
    yield one.line
    yield from _leaves("", one.manifest.get("key", {}))
    for file in sorted(one.entry.rglob("*")):
        if file.is_file():
            yield f"file {file.relative_to(one.entry)}: {disk.size(file.stat().st_size)}"


def _leaves(name: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for child in value:
            yield from _leaves(f"{name}.{child}" if name else str(child), value[child])
    else:
        yield disk.shown(f"{name}: {json.dumps(value, ensure_ascii=False)}")


def _named(held: Sequence[Stored], names: Sequence[object]) -> list[Stored]:
    """Find entries by their names, or by beginnings of them."""
    found: dict[Path, Stored] = {}
    for name in names:
        fits = [one for one in held if name and one.entry.name.startswith(str(name))]
        exact = [one for one in fits if one.entry.name == name]
        if len(exact or fits) != 1:
            several = " and ".join(one.entry.name for one in fits[:3])
            what = f"stands for {len(fits)} entries ({several})" if fits else "is no entry"
            raise Refused(
                f"{disk.shown(name)!r} {what} of the store; "
                "python run.py --config-name store lists their names"
            )
        found |= {one.entry: one for one in exact or fits}
    return list(found.values())


def _freed(path: Path, chosen: Sequence[Stored]) -> Iterator[str]:
    """Remove entries that nobody uses; say what went and what stayed."""
    if chosen:
        _check_removable(path)
    gone = []
    for one in chosen:
        who = holder(lease_file(one.entry))
        if remove(one.entry, outwait=True):
            gone.append(one)
            yield f"removed {one.line}"
        else:
            yield f"kept {one.entry.name}: in use by {who or 'a process'}"
    yield _sum("removed", gone)


def _forgotten(path: Path, before: float) -> Iterator[str]:
    """Remove checkpoints that nobody added to since and no build goes on from; say which."""
    for folder, (changed, size) in private.unfinished(path / WORK).items():
        if changed >= before:
            continue
        entry = path / folder.name.partition(".")[0]
        who = holder(lease_file(entry))
        with lease_of(entry, wait=False, outwait=True) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
        if free:
            yield f"removed the checkpoints {folder.name}, {disk.size(size)}"
        else:
            yield f"kept the checkpoints {folder.name}: in use by {who or 'a process'}"


def _check_removable(path: Path) -> None:
    """Refuse a store that cannot be written, unless that is for lack of room."""
    try:
        disk.check_writable(path / WORK, "store.path")
    except Refused as refused:
        if refused.__cause__ is None or not disk.is_full(refused.__cause__):
            raise


def _sum(doing: str, held: Sequence[Stored]) -> str:
    entries = f"{len(held)} {'entry' if len(held) == 1 else 'entries'}"
    return f"{doing} {entries}, {disk.size(sum(one.size for one in held))}"


def _at_least_0(name: str, value: object) -> float:
    if not (isinstance(value, int | float) and number(value) and value >= 0):
        raise Refused(f"{name} must be a number of at least 0, got {disk.shown(value)!r}")
    return float(value)
