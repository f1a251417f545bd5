"""ST-LPIPS (Alex): a perceptual distance that tolerates shifts of a pixel (arXiv 2207.13686).

Our own code: of the authors' package `stlpips-pytorch` only the weights file is used, and it is
never imported. The network is AlexNet whose first convolution has stride 1 and whose every
subsampling is a 3x3 binomial blur with stride 2 behind a reflection padding of 2.
"""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.metrics.batches import paired
from unitune.metrics.card import card
from unitune.metrics.weights import read
from unitune.types import Edit, Refused

PACKAGE = "stlpips-pytorch"
FILE = "weights/vST0.0/alex_shift_tolerant.pth"
CONVOLUTIONS = (
    ("net.slice1.0", 2),
    ("net.slice2.5", 2),
    ("net.slice3.9", 1),
    ("net.slice4.11", 1),
    ("net.slice5.13", 1),
)  # (name in the file, zero padding)
POOLED = (1, 2)  # the convolutions that follow a max pooling


def weights_file() -> Path:
    """Return where the installed package keeps the Alex weights, without importing it."""
    spec = importlib.util.find_spec("stlpips_pytorch")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [Path(folder) / FILE for folder in folders]
    if not (files and files[0].exists()):
        raise Refused(
            f"the metric stlpips needs the weights file of the package {PACKAGE}, "
            "which is not installed; install it or leave the metric out"
        )
    return files[0]


def _blur(x: Tensor) -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def features(weights: Mapping[str, Tensor], image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
    """Return the five activations, each with unit length over channels."""
    x = (image - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    # Channels last: blurring and pooling take a third of the time on a CPU.
    x = x.contiguous(memory_format=torch.channels_last)
    levels = []
    for k, (name, padding) in enumerate(CONVOLUTIONS):
        if k in POOLED:
            x = _blur(F.max_pool2d(x, kernel_size=3, stride=1))
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)
        x = F.relu(_blur(x) if k == 0 else x)
        levels.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
    return levels


def distance(
    weights: Mapping[str, Tensor], a: Sequence[Tensor], b: Sequence[Tensor]
) -> Float[Tensor, " B"]:
    """Return squared differences: weighted by channel, mean over pixels, summed over levels."""
    heads = [weights[f"lin{k}.model.1.weight"] for k in range(len(CONVOLUTIONS))]
    levels = zip(a, b, heads, strict=True)
    weighted = [F.conv2d((x - y).square(), head).mean(dim=(1, 2, 3)) for x, y, head in levels]
    return torch.stack(weighted).sum(dim=0)


class STLPIPS:
    """ST-LPIPS (Alex) between edit and base image; 0 for equal pictures.

    Not comparable with LPIPS.
    """

    name = "stlpips"
    higher_is_better = False

    def __init__(self) -> None:
        self.weights = read(weights_file())
        self.card: Mapping[str, str] = card(
            "ST-LPIPS (Alex), distance of edit and base image",
            backbone="shift-tolerant AlexNet with linear heads, vST0.0",
            preprocessing="[-1, 1], at the edit's size",
            version=f"weights of {PACKAGE} {importlib.metadata.version(PACKAGE)}, "
            "own implementation",
        )

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return paired(edits, partial(features, self.weights), partial(distance, self.weights))
