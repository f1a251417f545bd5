"""LPIPS (arXiv 1801.03924), version 0.1: Alex or squeeze; whole, or outside the mask (PIE-Bench).

The linear heads lie in the torchmetrics wheel, the backbone is torchvision's. Features of a base
image are computed once for its edits, which the function of torchmetrics cannot do; tests hold the
two equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from unitune.metrics import weights
from unitune.metrics.batches import paired, unedited
from unitune.metrics.card import card
from unitune.types import Edit, Refused

# net: (torchvision's function, its weights, the backbone's name, the layers of `features` before
# each activation that is compared)
BACKBONES = {
    "alex": (
        models.alexnet,
        models.AlexNet_Weights.IMAGENET1K_V1,
        "AlexNet",
        (2, 5, 8, 10, 12),
    ),
    "squeeze": (
        models.squeezenet1_1,
        models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        "SqueezeNet 1.1",
        (2, 5, 8, 10, 11, 12, 13),
    ),
}
# The authors' scaling layer, of pictures in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class PerceptualNetwork:
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
        """Return squared differences: weighted by channel, mean over pixels, summed over levels."""
        levels = zip(a, b, self.heads, strict=True)
        weighted = [((x - y).square() * head).sum(dim=1).mean(dim=(1, 2)) for x, y, head in levels]
        return torch.stack(weighted).sum(dim=0)


def heads(net: str) -> list[Tensor]:
    """Return the authors' linear heads, (1, C, 1, 1) each, read from the installed torchmetrics."""
    spec = find_spec("torchmetrics")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "functional/image/lpips_models" / f"{net}.pth"
    return [head for _, head in sorted(weights.read(file).items())]  # lin0 ... lin6


@lru_cache(maxsize=4)
def load(net: str, file: str | None) -> PerceptualNetwork:
    """Build the network; torchvision's weights come from `file`, torch's cache or a download."""
    if net not in BACKBONES:
        raise Refused(f"lpips has no network {net!r}; use one of {', '.join(BACKBONES)}")
    build, published, _, cuts = BACKBONES[net]
    values = weights.of_torchvision(published.url, what=f"the backbone of LPIPS ({net})", file=file)
    prefix = "features."
    values = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    with torch.device("meta"):  # nothing is drawn at random only to be replaced
        backbone = build(weights=None).features
    try:
        backbone.load_state_dict(values, assign=True)
    except RuntimeError as error:
        raise Refused(
            f"{file or published.url} does not hold torchvision's {build.__name__}; "
            f"give {published.url}, or the same as safetensors"
        ) from error
    backbone = backbone.eval().requires_grad_(False)
    pieces = [backbone[first:last] for first, last in pairwise((0, *cuts))]
    return PerceptualNetwork(pieces, heads(net))


class LPIPS:
    """LPIPS of edit and base image at the edit's size; 0 for equal pictures."""

    higher_is_better = False
    name_of = "lpips_{}"
    what = "LPIPS ({}), distance of edit and base image"
    nan = "never"

    def __init__(self, net: str = "alex", file: str | None = None) -> None:
        self.network, self.name = load(net, file), self.name_of.format(net)
        self.card: Mapping[str, str] = card(
            self.what.format(net),
            backbone=f"torchvision {BACKBONES[net][2]} (ImageNet), linear heads v0.1",
            preprocessing="[-1, 1], at the edit's size",
            nan=self.nan,
            version=f"own code, heads of torchmetrics {version('torchmetrics')}, "
            f"torchvision {version('torchvision')}",
        )

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return paired(edits, self.network.features, self.network.distance)


class UneditedLPIPS(LPIPS):
    """LPIPS of edit and base image, both made 0 where the mask lets them change (PIE-Bench).

    NaN without a mask or where nothing must stay.
    """

    name_of = "lpips_{}_unedited"
    what = "LPIPS ({}) of edit and base image, both times (1 - mask) on [0, 1]"
    nan = "no mask, or one that is 1 everywhere"

    def __init__(self, net: str = "squeeze", file: str | None = None) -> None:
        super().__init__(net, file)

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return unedited(edits, self._distance)

    def _distance(self, image: Tensor, base: Tensor) -> Tensor:
        of_image, of_base = (self.network.features(x * 2 - 1) for x in (image, base))
        return self.network.distance(of_image, of_base)
