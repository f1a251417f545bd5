"""LPIPS (arXiv 1801.03924), version 0.1 of its authors: Alex or squeeze; whole, or outside the mask as PIE-Bench defines it.

The linear heads lie in the torchmetrics wheel, the backbone is torchvision's. Features of a base image are computed once for its edits, which the function
of torchmetrics cannot do; tests hold the two equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from unitune.metrics import weights
from unitune.metrics.batches import paired
from unitune.metrics.card import card
from unitune.metrics.masks import unedited
from unitune.types import Edit, Refused

LEVELS = {
    "alex": (2, 5, 8, 10, 12),
    "squeeze": (2, 5, 8, 10, 11, 12, 13),
}  # layers of torchvision's `features` before each activation that is compared
SHIFT, SCALE = (
    (-0.030, -0.088, -0.188),
    (0.458, 0.448, 0.450),
)  # of pictures in [-1, 1]: the authors' scaling layer


@dataclass(frozen=True)
class Network:
    """A backbone in pieces, one per level, and the linear head of each level, (1, C, 1, 1)."""

    pieces: Sequence[nn.Module]
    heads: Sequence[Tensor]

    def features(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the activations of pictures in [-1, 1], each with unit length over channels."""
        x = (image - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        levels = []
        for piece in self.pieces:
            x = piece(x)
            levels.append(x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt())
        return levels

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, " B"]:
        """Return squared differences, weighted by channel, averaged over the picture, summed over levels."""
        return torch.stack(
            [
                ((x - y).square() * head).sum(dim=1).mean(dim=(1, 2))
                for x, y, head in zip(a, b, self.heads, strict=True)
            ]
        ).sum(dim=0)


def heads(net: str) -> list[Tensor]:
    """Return the authors' linear heads, (1, C, 1, 1) each, read from the installed torchmetrics."""
    spec = find_spec("torchmetrics")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "functional/image/lpips_models" / f"{net}.pth"
    return [head for _, head in sorted(weights.read(file).items())]  # lin0 ... lin6


@lru_cache(maxsize=4)
def load(net: str, file: str | None) -> Network:
    """Build the network; `file` gives torchvision's weights of the backbone, else they come from torch's cache or are downloaded."""
    if net not in LEVELS:
        raise Refused(f"lpips has no network {net!r}; use one of {', '.join(LEVELS)}")
    build, published = {
        "alex": (torchvision.models.alexnet, torchvision.models.AlexNet_Weights.IMAGENET1K_V1),
        "squeeze": (
            torchvision.models.squeezenet1_1,
            torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        ),
    }[net]
    values = weights.of_torchvision(published.url, what=f"the backbone of LPIPS ({net})", file=file)
    with torch.device("meta"):  # nothing is drawn at random only to be replaced
        backbone = build(weights=None).features
    try:
        backbone.load_state_dict(
            {
                name.removeprefix("features."): value
                for name, value in values.items()
                if name.startswith("features.")
            },
            assign=True,
        )
    except RuntimeError as error:
        raise Refused(
            f"{file or published.url} does not hold torchvision's {build.__name__}; give {published.url}, or the same as safetensors"
        ) from error
    backbone = backbone.eval().requires_grad_(False)
    cuts = (0, *LEVELS[net])
    return Network([backbone[first:last] for first, last in pairwise(cuts)], heads(net))


def _card(what: str, net: str, nan: str) -> Mapping[str, str]:
    backbone = {"alex": "AlexNet", "squeeze": "SqueezeNet 1.1"}[net]
    return card(
        what,
        backbone=f"torchvision {backbone} (ImageNet), linear heads v0.1",
        preprocessing="[-1, 1], at the edit's size",
        nan=nan,
        version=f"own code, heads of torchmetrics {version('torchmetrics')}, torchvision {version('torchvision')}",
    )


class LPIPS:
    """LPIPS of edit and base image at the edit's size; 0 for equal pictures."""

    higher_is_better = False

    def __init__(self, net: str = "alex", file: str | None = None) -> None:
        self.network, self.name = load(net, file), f"lpips_{net}"
        self.card = _card(f"LPIPS ({net}), distance of edit and base image", net, "never")

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return paired(edits, self.network.features, self.network.distance)


class UneditedLPIPS:
    """LPIPS of edit and base image, both made 0 where the mask lets them change (PIE-Bench); NaN without a mask or where nothing must stay."""

    higher_is_better = False

    def __init__(self, net: str = "squeeze", file: str | None = None) -> None:
        self.network, self.name = load(net, file), f"lpips_{net}_unedited"
        self.card = _card(
            f"LPIPS ({net}) of edit and base image, both times (1 - mask) on [0, 1]",
            net,
            "no mask, or one that is 1 everywhere",
        )

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, self._between)

    def _between(self, image: Tensor, base: Tensor) -> Tensor:
        return self.network.distance(
            self.network.features(image * 2 - 1), self.network.features(base * 2 - 1)
        )
