"""Which parameters are tuned, by glob patterns over their names; a pattern that matches nothing is an error, never a silent no-op."""

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
    """Tune what a `train` pattern matches unless a `freeze` pattern matches it too; e.g. freeze=("down_blocks.*",) or train=("*norm*", "*bias")."""

    train: Sequence[str] = ("*",)
    freeze: Sequence[str] = ()

    def names(self, network: nn.Module) -> list[str]:
        """Return the tuned parameters' names in the network's order."""
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        chosen = self.chosen(list(sizes))
        tuned, whole = sum(sizes[n] for n in chosen) / 1e6, sum(sizes.values()) / 1e6
        log.info(
            "tuning %d of %d tensors, %.2f of %.2f M parameters",
            len(chosen),
            len(sizes),
            tuned,
            whole,
        )
        return chosen

    def chosen(self, everything: Sequence[str]) -> list[str]:
        """Choose among parameters' names; a pattern that matches none is refused."""
        for field, patterns in (("train", self.train), ("freeze", self.freeze)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in everything):
                    near = difflib.get_close_matches(
                        pattern.strip("*"), everything, n=1, cutoff=0.0
                    )
                    raise Refused(
                        f"{field} pattern {pattern!r} matches none of the {len(everything)} parameters; names look like {near[0]!r}"
                    )
        chosen = [
            n
            for n in everything
            if any(fnmatchcase(n, p) for p in self.train)
            and not any(fnmatchcase(n, p) for p in self.freeze)
        ]
        if not chosen:
            raise Refused(
                f"nothing is left to tune: train={list(self.train)} less freeze={list(self.freeze)}"
            )
        return chosen
