"""The state of one controlled batch: what every attention layer and every step does to its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unitune.diffusion.schedule import Image
from unitune.prompt_to_prompt import align
from unitune.types import Inactive

if TYPE_CHECKING:
    from unitune.prompt_to_prompt.control import PromptToPrompt

Probabilities = Float[Tensor, "R heads N K"]  # of R rows; first the text's columns, then pixels'
GRID = 4  # maps of words are gathered on a grid of side / GRID: 16 x 16 at 64 px, as published
REACH = 1  # of the maximum filter over that grid, as in public code


@dataclass
class Chains:
    """The state of one controlled batch. `source` (n,) is the row of each edit's source chain; the rest is per edit and place of the text.

    `trajectory`, where the base image was inverted: x_t of the source chains at every level of sampling, which they then follow.
    """

    control: "PromptToPrompt"
    source: Int[Tensor, " n"]
    A: align.Partners
    c: align.Factors
    gone: Float[Tensor, "n L"]  # 1 at the source prompt's words that local blending looks at
    new: Float[Tensor, "n L"]  # 1 at the edit's
    differ: bool  # whether any edit's text is another than the source's
    inverted: bool = False  # whether the source chains start from the base image inverted
    trajectory: Sequence[Image] = ()
    edited: int = 0  # attention layers in the present step
    moved: bool = False  # whether any of them has changed
    _cross: bool = False
    _self: bool = False
    _side: int = 0
    _heat: Tensor | None = (
        None  # (2, n, grid, grid): attention to gone and new words, summed over layers and steps
    )

    @property
    def sources(self) -> int:
        """Number of source chains."""
        return int(self.source.max()) + 1

    @property
    def rows(self) -> int:
        """Number of rows that are controlled: source chains and edits."""
        return self.sources + len(self.source)

    @property
    def _weighted(self) -> bool:
        return bool((self.c != 1).any())

    def begin(self, k: int, steps: int, *, side: int) -> None:
        """Enter step `k` of `steps`, at an x_t of `side` px."""
        self._cross, self._self = (
            k < round(self.control.cross_share * steps),
            k < round(self.control.self_share * steps),
        )
        self._side, self.edited = side, 0

    def wants(self, *, text: int, pixels: int) -> bool:
        """Say whether a layer with so many columns of text is edited in this step, or its map read; `pixels` are its rows."""
        return bool(
            text and (self._cross or self._weighted or self.control.blend)
        ) or self._takes_self(pixels)

    @property
    def active(self) -> bool:
        """Whether any layer is."""
        return self.wants(text=1, pixels=1)

    def edit(self, M: Probabilities, *, text: int) -> Probabilities:
        """Edit the probabilities of the controlled rows in one layer, whose first `text` columns are those of the text."""
        u, pixels = self.sources, M.shape[2]
        M_src, M_star = M[:u][self.source.to(M.device)], M[u:]
        cross, own, takes_self = M_star[..., :text], M_star[..., text:], self._takes_self(pixels)
        # One softmax may span text and pixels: a part that is taken alone keeps the weight that the edit gives to it, so that rows go on to sum to 1.
        alone = 0 < text < M.shape[-1] and self._cross != takes_self
        words, places = M_src[..., :text], M_src[..., text:]
        if text:
            self._gather(words, cross)
            words = align.massed(words, cross) if alone and self._cross else words
            cross = align.refine(words, cross, self.A) if self._cross else cross
            cross = align.reweight(cross, self.c) if self._weighted else cross
        if takes_self:
            own = align.massed(places, own) if alone else places
        edited = torch.cat([cross, own], dim=-1)
        self.edited += 1
        self.moved = self.moved or not torch.equal(edited, M_star)
        return torch.cat([M[:u], edited])

    def after(self, x: Image, k: int, steps: int) -> Image:
        """Bring x after step `k` in order: source chains onto the trajectory, edits back to their source outside the words' maps; Inactive without effect."""
        self._check(last=k + 1 == steps)
        u = self.sources
        if self.trajectory:
            x = torch.cat([self.trajectory[k + 1].to(x), x[u:]])
        if self.control.blend is None or k < self.control.blend.start * steps:
            return x
        source = x[:u][self.source]
        return torch.cat([x[:u], source + self.mask(x.shape[-1]).to(x) * (x[u:] - source)])

    def mask(self, side: int) -> Float[Tensor, "n 1 side side"]:
        """Where the words that differ attract attention: 1 above the threshold of either prompt's map, else 0."""
        assert self.control.blend is not None
        if self._heat is None:
            raise Inactive(
                "no attention layer of the first stage gave a map of the words that differ"
            )
        heat = F.max_pool2d(self._heat, 2 * REACH + 1, stride=1, padding=REACH)
        heat = F.interpolate(heat, (side, side), mode="bilinear")
        low, high = heat.amin(dim=(2, 3), keepdim=True), heat.amax(dim=(2, 3), keepdim=True)
        above = heat > low + self.control.blend.threshold * (high - low)
        return above.any(dim=0)[:, None].float()

    def _takes_self(self, pixels: int) -> bool:
        return self._self and pixels <= (self.control.self_side * self._side) ** 2

    def _gather(self, M: Tensor, M_star: Tensor) -> None:
        """Add a layer's maps of the words that differ."""
        if self.control.blend is None or M.shape[2] > (self.control.blend.layers * self._side) ** 2:
            return
        maps = torch.stack(
            [
                (m * w.to(m)[:, None, None, :]).sum(-1).mean(1)
                for m, w in ((M, self.gone), (M_star, self.new))
            ]
        ).cpu()
        grid, layer = max(1, self._side // GRID), round(maps.shape[-1] ** 0.5)
        maps = F.interpolate(
            maps.unflatten(-1, (layer, layer)),
            (grid, grid),
            mode="bilinear" if layer < grid else "area",
        )
        self._heat = maps if self._heat is None else self._heat + maps

    def _check(self, *, last: bool) -> None:
        if self.active and not self.edited:
            raise Inactive(
                "prompt-to-prompt did nothing: no attention layer of the first stage gave its probabilities to it"
            )
        # Attention among pixels alone may be equal in the first step, whose x_t are.
        takes = self._cross or self._weighted or (last and bool(self.control.self_share))
        if takes and (self.differ or self._weighted) and not self.moved:
            raise Inactive(
                "prompt-to-prompt did nothing: in every attention layer the edit's probabilities are those it would have had anyway"
            )
