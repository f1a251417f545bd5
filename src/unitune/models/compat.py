"""The one workaround for a broken pair of packages; called before anything imports torchvision."""

import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a Library's definitions last as long as the object


def compiled_torchvision() -> Path | None:
    """Return the file of torchvision's compiled operators, if there is one."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_C*"), None)


def is_loadable(compiled: Path) -> bool:
    """Load a file of compiled operators into this torch; False where it was built for another."""
    try:
        torch.ops.load_library(str(compiled))
    except OSError:
        return False
    return True


def ensure_torchvision() -> None:
    """Let `import torchvision` succeed beside a torch that cannot load its compiled part.

    That is a CPU-only torch beside a CUDA-linked torchvision. transformers, diffusers and open_clip
    import torchvision where it is installed and fail with it ("operator torchvision::nms does not
    exist"). We use none of its compiled operators, so declaring their schemas is enough.
    """
    if "torchvision" in sys.modules or _libraries:
        return
    compiled = compiled_torchvision()
    if compiled is not None and not is_loadable(compiled):
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)
