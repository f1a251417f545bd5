"""The one writer of whole files: after a crash or on a full disk a file is new, or as it was."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(content: bytes | memoryview | str, file: Path) -> None:
    """Write beside the file, flush to the disk, rename; text is written as UTF-8."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(partial, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            partial.unlink(missing_ok=True)
