"""What a piece of work takes: peak memory, per piece where the system allows a reset."""

import re
import resource
from contextlib import suppress
from pathlib import Path

import torch


def reset_peak() -> None:
    """Forget the peak so far; where the system does not let us, peaks are the process's own."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # Linux resets the high-water mark of a process by this
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """Peak since `reset_peak`, MiB: of the GPU where one is used, else the resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        known = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        known = None
    kib = int(known[1]) if known else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**10
