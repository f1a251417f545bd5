"""Where networks run and in which arithmetic: what must not change a result's meaning."""

import os
from pathlib import Path

import torch

from unitune.types import Refused

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# A container's limit of memory and what it has taken of it, by the two versions of control groups.
CONTAINER = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def device(name: str) -> torch.device:
    """Return the device of a name; "auto" is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise Refused(f"machine.device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("machine.device=cuda, but torch sees no GPU here; use machine=cpu")
    return torch.device(name)


def precision(name: str, chosen: torch.device) -> torch.dtype:
    """Return the networks' arithmetic; "auto" is bf16 where the processor computes it natively."""
    if name == "auto":
        cuda = chosen.type == "cuda"
        native = torch.cuda.is_bf16_supported if cuda else torch.cpu._is_avx512_bf16_supported
        return torch.bfloat16 if native() else torch.float32
    if name not in PRECISIONS:
        raise Refused(f"machine.precision must be auto, {' or '.join(PRECISIONS)}, got {name!r}")
    return PRECISIONS[name]


def use_threads(count: int) -> None:
    """Use so many CPU threads; 0 leaves torch's choice."""
    if count < 0:
        raise Refused(f"machine.threads must be 0 (torch's choice) or more, got {count}")
    if count:
        torch.set_num_threads(count)


def memory() -> tuple[int, int]:
    """Free and total bytes of the system's memory, within the limit that a container sets."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free, table = total, Path("/proc/meminfo")  # where there is no such table, nothing is known
    for line in table.read_text().splitlines() if table.is_file() else ():
        if line.startswith("MemAvailable"):
            free = 1024 * int(line.split()[1])
    for names in CONTAINER:
        try:
            most, taken = (int((Path("/sys/fs/cgroup") / name).read_text()) for name in names)
        except (OSError, ValueError):  # no such limit
            continue
        total, free = min(total, most), min(free, max(0, most - taken))
    return free, total
