"""Prompt-to-Prompt (arXiv 2208.01626) in the loop: a chain for the description of the base image runs beside the edits and lends them its attention.

Rows of a controlled batch: first the source chains, then the edits; edits whose source chain would be the same share one. A stage whose condition carries
`Chains` gives every attention layer's probabilities to `Chains.edit`; rows behind (guidance's reference) stay as they are.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unitune.diffusion import attention
from unitune.diffusion.schedule import Image
from unitune.types import Inactive, Refused, Tuned, number, whole

Probabilities = Float[Tensor, "R heads N K"]  # of R rows; the first columns are the text's, the others pixels'
INVERSIONS = ("auto", "on", "off")
GRID = 4  # maps of words are gathered on a grid of side / GRID: 16 x 16 at 64 px, as published
REACH = 1  # of the maximum filter over that grid, as in public code


@dataclass(frozen=True)
class LocalBlend:
    """After a step put the source chain back where the words that differ attract no attention (section 4); `words` of either prompt replace those."""

    threshold: float = 0.3  # of the map's range (public code: of its maximum, but joint attention gives a word some weight everywhere)
    start: float = 0.2  # share of the steps before the first blend: maps of the first steps are vague; both numbers are public code's for real images
    words: Sequence[str] = ()
    layers: float = 1.0  # maps of more pixels than a picture of this share of the side has are not read

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("start", self.start), ("layers", self.layers)):
            _check_share(f"blend.{name}", value)


@dataclass(frozen=True)
class PromptToPrompt:
    """Which attention an edit takes from its source chain, and how long: shares of the steps, from the first one.

    `mode`: swap takes the source's map of every token (for prompts of equally many), refine those of shared words; auto swaps where words are only replaced.
    `reweight` multiplies maps of words of the edit by a number in [-2, 2], in all steps. `inversion`: the chains start from the base image inverted
    (`inversion.invert`); auto unless the first stage was tuned on a text that `source` holds, which then brings the image. Deterministic, so all seeds of an
    edit are alike then.
    """

    mode: str = "auto"
    cross_share: float = 0.4
    self_share: float = 0.6
    self_side: float = 0.5  # attention among more pixels than a picture of this share of the side has is left alone
    reweight: Mapping[str, float] | None = None
    blend: LocalBlend | None = None
    source: str = "{caption}"
    inversion: str = "auto"
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.mode not in attention.MODES:
            raise Refused(f"control.mode must be one of {', '.join(attention.MODES)}, got {self.mode!r}")
        if self.inversion not in INVERSIONS:
            raise Refused(f"control.inversion must be one of {', '.join(INVERSIONS)}, got {self.inversion!r}")
        for name in ("cross_share", "self_share", "self_side"):
            _check_share(name, getattr(self, name))
        if bad := [(word, c) for word, c in (self.reweight or {}).items() if not (number(c) and -2 <= c <= 2)]:
            raise Refused(f"control.reweight gives {bad[0][0]!r} {bad[0][1]}; a word's factor must be in [-2, 2] (1 = unchanged)")
        if not (whole(self.rounds) and self.rounds >= 1):
            raise Refused(f"control.rounds must be a whole number of at least 1, got {self.rounds}")

    def inverts(self, tuned: Tuned, source: str, *, stage: str) -> bool:
        """Say whether the chains start from the base image inverted, with this text of the source; `stage` is the first."""
        named = tuned.prompt and re.search(rf"(?<!\w){re.escape(tuned.prompt)}(?!\w)", source, flags=re.IGNORECASE)
        return self.inversion == "on" or (self.inversion == "auto" and not (stage in tuned.weights and named))

    def chains(self, source: str, *, edits: Sequence[str], rows: Sequence[int], tokenize: Callable[[str], list[str]], offset: int, length: int) -> "Chains":
        """Align each edit's text with the source's; `rows` are its source chain's, `offset` and `length` the first piece's place and the places in all."""
        end = length - 1
        before = attention.tokens(tokenize(source), offset=offset, end=end)
        A, c, gone, new = [], [], torch.zeros(len(edits), length), torch.zeros(len(edits), length)
        for i, edit in enumerate(edits):
            after = attention.tokens(tokenize(edit), offset=offset, end=end)
            A.append(attention.partners(before, after, mode=self.mode, length=length))
            c.append(attention.factors(after, self.reweight or {}, prompt=edit, length=length))
            gone[i, (places := self._places(before, after, source, edit))[0]] = 1
            new[i, places[1]] = 1
        differ = any(edit != source for edit in edits)
        return Chains(self, torch.tensor(rows), torch.tensor(A), torch.tensor(c), gone, new, differ)

    def _places(self, before: attention.Tokens, after: attention.Tokens, source: str, edit: str) -> tuple[list[int], list[int]]:
        words = self.blend.words if self.blend else ()
        if not words:
            return attention.changed(before, after)
        known = {"gone": before.words, "new": after.words}
        if lost := [word for word in words if word.lower() not in (*known["gone"], *known["new"])]:
            after.of(lost[0], f"{source} / {edit}")
        return tuple([place for word in words if word.lower() in t.words for place in t.of(word, edit)] for t in (before, after))  # type: ignore[return-value]


@dataclass
class Chains:
    """The state of one controlled batch. `source` (n,) is the row of each edit's source chain; the rest is per edit and place of the text.

    `trajectory`, where the base image was inverted: x_t of the source chains at every level of sampling, which they then follow.
    """

    control: PromptToPrompt
    source: Int[Tensor, " n"]
    A: attention.Partners
    c: attention.Factors
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
    _heat: Tensor | None = None  # (2, n, grid, grid): attention to gone and new words, summed over layers and steps

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
        self._cross, self._self = k < round(self.control.cross_share * steps), k < round(self.control.self_share * steps)
        self._side, self.edited = side, 0

    def wants(self, *, text: int, pixels: int) -> bool:
        """Say whether a layer with so many columns of text is edited in this step, or its map read; `pixels` are its rows."""
        return bool(text and (self._cross or self._weighted or self.control.blend)) or self._takes_self(pixels)

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
            words = attention.massed(words, cross) if alone and self._cross else words
            cross = attention.refine(words, cross, self.A) if self._cross else cross
            cross = attention.reweight(cross, self.c) if self._weighted else cross
        if takes_self:
            own = attention.massed(places, own) if alone else places
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
            raise Inactive("no attention layer of the first stage gave a map of the words that differ")
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
        maps = torch.stack([(m * w.to(m)[:, None, None, :]).sum(-1).mean(1) for m, w in ((M, self.gone), (M_star, self.new))]).cpu()
        grid, layer = max(1, self._side // GRID), round(maps.shape[-1] ** 0.5)
        maps = F.interpolate(maps.unflatten(-1, (layer, layer)), (grid, grid), mode="bilinear" if layer < grid else "area")
        self._heat = maps if self._heat is None else self._heat + maps

    def _check(self, *, last: bool) -> None:
        if self.active and not self.edited:
            raise Inactive("prompt-to-prompt did nothing: no attention layer of the first stage gave its probabilities to it")
        # Attention among pixels alone may be equal in the first step, whose x_t are.
        takes = self._cross or self._weighted or (last and bool(self.control.self_share))
        if takes and (self.differ or self._weighted) and not self.moved:
            raise Inactive("prompt-to-prompt did nothing: in every attention layer the edit's probabilities are those it would have had anyway")


def shared(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Number equal keys alike: the position where each different key is first, and for every position its key's number."""
    numbers: dict[Hashable, int] = {}
    rows = [numbers.setdefault(key, len(numbers)) for key in keys]
    return [rows.index(row) for row in range(len(numbers))], rows


def _check_share(name: str, value: object) -> None:
    if not (number(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise Refused(f"control.{name} must be in [0, 1], got {value!r}")
