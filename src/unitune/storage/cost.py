"""What a piece of work takes: peak memory, per piece where the system allows a reset."""

import resource
from pathlib import Path

import torch


def reset_peak() -> bool:
    """Forget the peak so far; True where that works (Linux lets a process reset its high-water mark), else peaks are the process's."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_mib() -> float:
    """Peak memory since `reset_peak`: of the GPU where one is used, else resident memory of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        line = next(
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return int(line.split()[1]) / 2**10
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
