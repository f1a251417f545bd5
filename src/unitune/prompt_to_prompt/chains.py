"""The state of one controlled batch: what every attention layer and every step does to its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitune.diffusion.hold import Item
from unitune.diffusion.sampling import Memory, StageRun
from unitune.diffusion.schedule import Image, Levels
from unitune.diffusion.stage import Condition, Predict, Probabilities
from unitune.prompt_to_prompt import align, inversion
from unitune.prompt_to_prompt.maps import WordMaps
from unitune.types import Inactive

if TYPE_CHECKING:
    from unitune.prompt_to_prompt.control import PromptToPrompt


@dataclass
class Chains:
    """One controlled batch: it takes part in the loop, and edits attention.

    That is a `Companion` of `diffusion.sampling` and an `AttentionEditor` of `diffusion.stage`.
    `source` (n,) is the row of each edit's source chain. `trajectory`, where the base image was
    inverted: x_t of the source chains at every level of sampling, which they then follow; `memory`
    holds the inversions of earlier batches.
    """

    control: "PromptToPrompt"
    source: Int[Tensor, " n"]
    A: align.Partners
    c: align.Factors
    differ: bool  # whether any edit's text is another than the source's
    words: WordMaps | None = None  # that local blending looks at
    items: Sequence[Item] = ()  # first those of the source chains, then the edits
    inverted: bool = False  # whether the source chains start from the base image inverted
    memory: Memory = field(default_factory=dict)
    trajectory: Sequence[Image] = ()
    edited: int = 0  # attention layers in the present step
    moved: bool = False  # whether any of them has changed
    _cross: bool = False
    _self: bool = False
    _side: int = 0
    _steps: int = 0

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

    def first(self, run: StageRun) -> Image | None:
        """Begin at the base image inverted, or as every edit does."""
        if not self.inverted:
            return None
        rounds = self.control.rounds
        self.trajectory = inversion.trajectory(run, self.sources, rounds=rounds, known=self.memory)
        x = self.trajectory[0]
        return torch.cat([x, x[self.source]])

    def predict(self, run: StageRun) -> Predict:
        """Predict with the attention of the source chains lent to the edits."""
        step = {int(t): k for k, t in enumerate(run.levels[:-1, 0])}

        def predict(x_t: Image, t: Levels, condition: Condition) -> Image:
            self.begin(step[int(t[0])], run.how.steps, side=x_t.shape[-1])
            with run.stage.attention(self):
                return run.stage.predict(x_t, t, condition)

        return predict

    def begin(self, k: int, steps: int, *, side: int) -> None:
        """Enter step `k` of `steps`, at an x_t of `side` px."""
        self._cross = k < round(self.control.cross_share * steps)
        self._self = k < round(self.control.self_share * steps)
        self._side, self._steps, self.edited = side, steps, 0
        if self.words is not None:
            self.words.side = side

    def wants(self, *, text: int, pixels: int) -> bool:
        """Say whether a layer of so many columns of text and rows of pixels is edited or read."""
        looked_at = self._cross or self._weighted or self.words is not None
        return bool(text and looked_at) or self._takes_self(pixels)

    @property
    def active(self) -> bool:
        """Whether any layer is edited or read in this step."""
        return self.wants(text=1, pixels=1)

    def edit(self, M: Probabilities, *, text: int) -> Probabilities:
        """Edit one layer's probabilities, whose first `text` columns are those of the text."""
        u, pixels = self.sources, M.shape[2]
        M_src, M_star = M[:u][self.source.to(M.device)], M[u:]
        words, places = M_src[..., :text], M_src[..., text:]
        cross, own, takes_self = M_star[..., :text], M_star[..., text:], self._takes_self(pixels)
        # One softmax may span text and pixels: a part that is taken alone keeps the weight that the
        # edit gives to it, so that rows go on to sum to 1.
        alone = 0 < text < M.shape[-1] and self._cross != takes_self
        if text and self.words is not None:
            self.words.add(words, cross)
        if text and self._cross:
            words = align.massed(words, cross) if alone else words
            cross = align.refine(words, cross, self.A)
        if text and self._weighted:
            cross = align.reweight(cross, self.c)
        if takes_self:
            own = align.massed(places, own) if alone else places
        edited = torch.cat([cross, own], dim=-1)
        self.edited += 1
        self.moved = self.moved or not torch.equal(edited, M_star)
        return torch.cat([M[:u], edited])

    def after(self, x: Image, k: int) -> Image:
        """Put source chains back onto the trajectory, edits onto their source outside the words.

        Inactive where the attention that was lent has changed nothing.
        """
        self._check(last=k + 1 == self._steps)
        u, blend = self.sources, self.control.blend
        if self.trajectory:
            x = torch.cat([self.trajectory[k + 1].to(x), x[u:]])
        if blend is None or k < blend.start * self._steps:
            return x
        source = x[:u][self.source]
        return torch.cat([x[:u], source + self.mask(x.shape[-1]).to(x) * (x[u:] - source)])

    def mask(self, side: int) -> Float[Tensor, "n 1 side side"]:
        """Where the words that differ attract attention."""
        assert self.control.blend is not None and self.words is not None
        return self.words.mask(side, threshold=self.control.blend.threshold)

    def _takes_self(self, pixels: int) -> bool:
        return self._self and pixels <= (self.control.self_side * self._side) ** 2

    def _check(self, *, last: bool) -> None:
        if self.active and not self.edited:
            raise Inactive(
                "prompt-to-prompt did nothing: no attention layer of the first stage gave its "
                "probabilities to it"
            )
        # Attention among pixels alone may be equal in the first step, whose x_t are.
        takes = self._cross or self._weighted or (last and bool(self.control.self_share))
        if takes and (self.differ or self._weighted) and not self.moved:
            raise Inactive(
                "prompt-to-prompt did nothing: in every attention layer the edit's probabilities "
                "are those it would have had anyway"
            )
