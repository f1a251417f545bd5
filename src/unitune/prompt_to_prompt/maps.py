"""Where the words in which two prompts differ attract attention (section 4 of the paper)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.prompt_to_prompt.align import Maps
from unitune.types import Inactive

GRID = 4  # maps of words are gathered on a grid of side / GRID: 16 x 16 at 64 px, as published
REACH = 1  # of the maximum filter over that grid, as in public code


@dataclass
class WordMaps:
    """Attention to the words that differ, summed over the layers and steps that it is given.

    `gone` is 1 at the source prompt's words of interest, `new` at the edit's. Layers that are finer
    than the share `layers` of the side of x_t are not read.
    """

    gone: Float[Tensor, "n L"]
    new: Float[Tensor, "n L"]
    layers: float
    side: int = 0  # of the present x_t
    heat: Tensor | None = None  # (2, n, grid, grid): of gone and of new words

    def add(self, M: Maps, M_star: Maps) -> None:
        """Add the text's columns of one layer: the sources' rows of each edit, and the edits'."""
        if M.shape[2] > (self.layers * self.side) ** 2:
            return
        words = ((M, self.gone), (M_star, self.new))
        maps = [(m * w.to(m)[:, None, None, :]).sum(-1).mean(1) for m, w in words]
        heat = torch.stack(maps).cpu()
        grid, layer = max(1, self.side // GRID), round(heat.shape[-1] ** 0.5)
        mode = "bilinear" if layer < grid else "area"
        heat = F.interpolate(heat.unflatten(-1, (layer, layer)), (grid, grid), mode=mode)
        self.heat = heat if self.heat is None else self.heat + heat

    def mask(self, side: int, *, threshold: float) -> Float[Tensor, "n 1 side side"]:
        """1 where the map of either prompt's words is above the threshold of its range, else 0."""
        if self.heat is None:
            raise Inactive(
                "no attention layer of the first stage gave a map of the words that differ"
            )
        heat = F.max_pool2d(self.heat, 2 * REACH + 1, stride=1, padding=REACH)
        heat = F.interpolate(heat, (side, side), mode="bilinear")
        low, high = heat.amin(dim=(2, 3), keepdim=True), heat.amax(dim=(2, 3), keepdim=True)
        return (heat > low + threshold * (high - low)).any(dim=0)[:, None].float()
