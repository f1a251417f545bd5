"""Room to write, asked for before hours are spent: read-only folders and full disks."""

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from unitune.errors import Refused

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full.

    safetensors and torch wrap the system's error in one of their own, which repeats its text.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(words in str(error) for words in ("No space left on device", "StorageFull"))


def explained(error: Exception) -> Exception:
    """Turn the system's word that nothing more can be written into a refusal.

    Any other error comes back as it is.
    """
    name = error.filename if isinstance(error, OSError) else None
    where = f" at {shown(name)}" if name else ""
    if is_full(error):
        return Refused(
            f"disk full{where}; free some space, "
            "or choose another disk with hydra.run.dir=DIR and store.path=DIR"
        )
    if isinstance(error, OSError) and error.errno in CLOSED:
        return Refused(
            f"no access{where} ({error.strerror}); "
            "choose folders that can be written with hydra.run.dir=DIR and store.path=DIR"
        )
    return error


def shown(path: object) -> str:
    """Write a path in one line."""
    return "".join(c if c.isprintable() else "?" for c in str(path))[:300]


def check_writable(folder: Path, setting: str) -> None:
    """Make a folder and leave it empty.

    Raises Refused, naming the setting that chooses another, where it cannot be written, or where
    nothing can be renamed, without which nothing is ever whole or absent.
    """
    probe = folder / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    doing, moved = "written", probe.with_name(f"{probe.name}.moved")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        (probe / "file").touch()
        doing = "used, as nothing in it can be renamed"
        os.rename(probe, moved)
    except OSError as error:
        raise Refused(
            f"the folder {shown(folder)} cannot be {doing} ({error.strerror}); "
            f"choose one that can with {setting}=DIR"
        ) from error
    finally:
        for left in (probe, moved):
            shutil.rmtree(left, ignore_errors=True)


def check_space(needs: Mapping[Path, tuple[str, int]]) -> None:
    """Refuse a disk with less room than the folders on it will take.

    `needs` says of each folder what is written there and how many bytes.
    """
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in disks.values():
        need = sum(needs[folder][1] for folder in folders)
        disk = shutil.disk_usage(_existing(folders[0]))
        if disk.total and need > disk.free:  # what is no disk has no size, such as /proc
            what = " and ".join(
                f"{size(count)} of {name} in {shown(folder)}"
                for folder, (name, count) in needs.items()
                if folder in folders and count
            )
            raise Refused(
                f"disk full: need {size(need)}, have {size(disk.free)} ({what}); "
                "free some space, or choose another disk with hydra.run.dir or store.path"
            )


def size(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
