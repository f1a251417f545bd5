"""Which parameters are tuned, by glob patterns over their names; no pattern may match nothing."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from unitune.types import Refused

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParameterSelection:
    """Tune what a `train` pattern matches unless a `freeze` pattern matches it too.

    For example freeze=("down_blocks.*",) or train=("*norm*", "*bias").
    """

    train: Sequence[str] = ("*",)
    freeze: Sequence[str] = ()

    def names(self, network: nn.Module) -> list[str]:
        """Return the tuned parameters' names in the network's order."""
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        chosen = self.chosen(list(sizes))
        counts = len(chosen), len(sizes)
        millions = sum(sizes[name] for name in chosen) / 1e6, sum(sizes.values()) / 1e6
        log.info("tuning %d of %d tensors, %.2f of %.2f M parameters", *counts, *millions)
        return chosen

    def chosen(self, everything: Sequence[str]) -> list[str]:
        """Choose among parameters' names; a pattern that matches none is refused."""
        for field, patterns in (("train", self.train), ("freeze", self.freeze)):
            if (pattern := unmatched(patterns, everything)) is not None:
                (near,) = similar(pattern, everything, count=1)
                raise Refused(
                    f"{field} pattern {pattern!r} matches none of the {len(everything)} "
                    f"parameters; names look like {near!r}"
                )
        train, freeze = matching(self.train, everything), {*matching(self.freeze, everything)}
        chosen = [name for name in train if name not in freeze]
        if not chosen:
            raise Refused(
                f"nothing is left to tune: train={list(self.train)} less freeze={list(self.freeze)}"
            )
        return chosen


def matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the names that one of the patterns matches, in their order."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def unmatched(patterns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first pattern that matches no name."""
    return next((pattern for pattern in patterns if not matching([pattern], names)), None)


def similar(pattern: str, names: Sequence[str], *, count: int) -> list[str]:
    """Return the names that look most like a pattern."""
    return difflib.get_close_matches(pattern.strip("*"), names, n=count, cutoff=0.0)
