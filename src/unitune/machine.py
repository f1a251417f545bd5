"""Where networks run and in which arithmetic: what must not change a result's meaning."""

import torch

from unitune.types import Refused

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
    """Return the networks' arithmetic; "auto" is bf16 where the processor computes it natively. Weights stay float32."""
    if name == "auto":
        native = torch.cuda.is_bf16_supported() if chosen.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in PRECISIONS:
        raise Refused(f"machine.precision must be auto, {' or '.join(PRECISIONS)}, got {name!r}")
    return PRECISIONS[name]


def use_threads(count: int) -> None:
    """Use so many CPU threads; 0 leaves torch's choice."""
    if count < 0:
        raise Refused(f"machine.threads must be 0 (torch's choice) or more, got {count}")
    if count:
        torch.set_num_threads(count)
