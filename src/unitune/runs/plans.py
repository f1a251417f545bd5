"""Plans: which samples are drawn for an example, and how a grid shows them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unitune.types import Draw, Edit, Example, Refused, number, whole

Layout = dict[str, dict[str, Edit]]  # {row label: {column label: edit}}


class Plan(Protocol):
    """Which samples to draw for an example, and how a grid shows them."""

    def draws(self, example: Example, seed: int) -> list[Draw]: ...  # noqa: D102
    def layout(self, edits: Sequence[Edit]) -> Layout: ...  # noqa: D102


@dataclass(frozen=True)
class Seeds:
    """`count` samples per prompt, nothing dropped; another run seed takes other samples."""

    count: int = 4

    def __post_init__(self) -> None:
        if not (whole(self.count) and self.count >= 1):
            raise Refused(f"seeds must be a whole number of at least 1, got {self.count}")

    def draws(self, example: Example, seed: int) -> list[Draw]:
        """Every request with every seed."""
        seeds = range(seed * self.count, (seed + 1) * self.count)
        return [Draw(request, one) for request in example.requests for one in seeds]

    def layout(self, edits: Sequence[Edit]) -> Layout:
        """One row per prompt, one column per seed."""
        return _table((edit.request.prompt, f"seed {edit.seed}", edit) for edit in edits)


@dataclass(frozen=True)
class Dials:
    """The first request at every guidance weight and start, with one seed.

    The grid is a contact sheet for finding an image's dials.
    """

    weights: tuple[float, ...]
    starts: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or not self.starts:
            raise Refused("plan=dials needs at least one weight and one start")
        if bad := [weight for weight in self.weights if not number(weight)]:
            raise Refused(f"plan.weights must be finite numbers (1 = off), got {bad[0]}")
        if bad := [start for start in self.starts if not (number(start) and 0 < start <= 1)]:
            raise Refused(f"plan.starts must be in (0, 1] (1 = pure noise), got {bad[0]}")

    def draws(self, example: Example, seed: int) -> list[Draw]:
        """All pairs."""
        return [
            Draw(example.requests[0], seed, float(weight), float(start))
            for weight in self.weights
            for start in self.starts
        ]

    def layout(self, edits: Sequence[Edit]) -> Layout:
        """One row per weight, one column per start."""
        return _table((f"weight {e.weight:g}", f"start {e.start:g}", e) for e in edits)


def _table(cells: Iterable[tuple[str, str, Edit]]) -> Layout:
    rows: Layout = {}
    for row, column, edit in cells:
        rows.setdefault(row, {})[column] = edit
    return rows
