"""Plans: which samples are drawn for an example, and how a grid shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unitune.types import Draw, Edit, Example, Refused, number, whole


class Plan(Protocol):
    """Which samples to draw for an example, and how a grid shows them: {row label: {column label: edit}}."""

    def draws(self, example: Example, seed: int) -> list[Draw]: ...  # noqa: D102
    def layout(self, edits: Sequence[Edit]) -> dict[str, dict[str, Edit]]: ...  # noqa: D102


@dataclass(frozen=True)
class Seeds:
    """`count` samples per prompt, in order, nothing dropped; another run seed takes other samples."""

    count: int = 4

    def __post_init__(self) -> None:
        if not (whole(self.count) and self.count >= 1):
            raise Refused(f"seeds must be a whole number of at least 1, got {self.count}")

    def draws(self, example: Example, seed: int) -> list[Draw]:
        """Every request with every seed."""
        return [
            Draw(request, seed * self.count + k)
            for request in example.requests
            for k in range(self.count)
        ]

    def layout(self, edits: Sequence[Edit]) -> dict[str, dict[str, Edit]]:
        """One row per prompt, one column per seed."""
        rows: dict[str, dict[str, Edit]] = {}
        for edit in edits:
            rows.setdefault(edit.request.prompt, {})[f"seed {edit.seed}"] = edit
        return rows


@dataclass(frozen=True)
class Dials:
    """The first request at every guidance weight and start, one seed: a contact sheet for finding an image's dials."""

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

    def layout(self, edits: Sequence[Edit]) -> dict[str, dict[str, Edit]]:
        """One row per weight, one column per start."""
        rows: dict[str, dict[str, Edit]] = {}
        for edit in edits:
            rows.setdefault(f"weight {edit.weight:g}", {})[f"start {edit.start:g}"] = edit
        return rows
