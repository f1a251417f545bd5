"""Room to write, seen to before hours are spent: folders that are read-only, disks that are too full."""

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
    """Whether an error says that a disk is full; safetensors and torch wrap the system's in one of their own, whose text stays."""
    return (
        (isinstance(error, OSError) and error.errno in FULL)
        or "No space left on device" in str(error)
        or "StorageFull" in str(error)
    )


def explained(error: Exception) -> Exception:
    """Turn the system's word that nothing more can be written into a refusal; any other error comes back as it is."""
    if is_full(error):
        return Refused(
            f"disk full{_named(error)}; free some space, or choose another disk with hydra.run.dir=DIR and store.path=DIR"
        )
    if isinstance(error, OSError) and error.errno in CLOSED:
        return Refused(
            f"no access{_named(error)} ({error.strerror}); choose folders that can be written with hydra.run.dir=DIR and store.path=DIR"
        )
    return error


def _named(error: Exception) -> str:
    return f" at {shown(error.filename)}" if isinstance(error, OSError) and error.filename else ""


def shown(path: object) -> str:
    """Write a path in one line."""
    return "".join(c if c.isprintable() else "?" for c in str(path))[:300]


def check_writable(folder: Path, setting: str) -> None:
    """Make a folder and leave it empty; raises Refused, naming the setting that chooses another, where it cannot be written."""
    probe = folder / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Refused(
            f"the folder {shown(folder)} cannot be written ({error.strerror}); choose one that can with {setting}=DIR"
        ) from error


def check_space(needs: Mapping[Path, tuple[str, int]]) -> None:
    """Refuse a disk with less room than the folders on it will take; `needs` says of each folder what is written there and how many bytes."""
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in disks.values():
        need, usage = (
            sum(needs[folder][1] for folder in folders),
            shutil.disk_usage(_existing(folders[0])),
        )
        if usage.total and need > (
            have := usage.free
        ):  # what is no disk has no size, such as /proc
            what = " and ".join(
                f"{size(needs[folder][1])} of {needs[folder][0]} in {shown(folder)}"
                for folder in folders
                if needs[folder][1]
            )
            raise Refused(
                f"disk full: need {size(need)}, have {size(have)} ({what}); free some space, or choose another disk with hydra.run.dir or store.path"
            )


def delete(path: Path) -> None:
    """Remove a file or a folder with what is in it, as far as that goes."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size(count: int) -> str:
    """Write a number of bytes."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
