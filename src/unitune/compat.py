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


def ensure_torchvision() -> None:
    """Let `import torchvision` succeed beside a torch that cannot load its compiled part (a CPU-only torch, a CUDA-linked torchvision).

    transformers, diffusers and open_clip import torchvision where it is installed and fail with it ("operator torchvision::nms does not exist").
    We use none of its compiled operators, so declaring their schemas is enough. Where the compiled part loads, nothing is done.
    """
    if "torchvision" in sys.modules or _libraries:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    compiled = next(Path(spec.origin).parent.glob("_C*"), None)
    if compiled is None:
        return
    try:
        torch.ops.load_library(str(compiled))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)
