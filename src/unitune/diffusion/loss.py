"""The loss that belongs to a stage.

What its network predicts, how its errors are weighed over the noise levels, and how often each
level is drawn. Pretraining and tuning use the same one unless the stage's folder names both. The
weighting decides what tuning keeps of the text: plain v weighs the error of x_0 at the paper's
start 0.95 some 165 times more than min-SNR does, and the network then memorises the image there,
whatever the text says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.schedule import Levels, Schedule
from unitune.types import Refused, number, whole

VERSION = 1  # of the file that names a stage's loss
WEIGHTINGS = ("plain", "min_snr", "snr")
DENSITIES = ("uniform",)
FIELDS = ("prediction", "weighting", "gamma", "density")
OF_THE_MODEL = "model"  # a dial that leaves the weighting to the stage's own loss

UniformDraw = Callable[[int, int], Levels]  # (count, n) -> so many draws from 0 ... n - 1


@dataclass(frozen=True)
class StageLoss:
    """The squared error of the network's own prediction, weighed by the level's SNR.

    SNR is the signal-to-noise ratio. `weighting` is one of these:
    - plain: all levels alike. For v this weighs the error of x_0 by SNR + 1, for eps by SNR.
    - min_snr: the error of x_0 weighed by min(SNR, gamma) (Hang et al. 2023, arXiv 2303.09556).
    - snr: the error of x_0 weighed by SNR, the plain error of eps (Ho et al. 2020, eq. 14).

    `density` says how the levels t of a batch are drawn: uniform over the schedule's.
    """

    prediction: str
    weighting: str = "plain"
    gamma: int | float = 5.0
    density: str = "uniform"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise Refused(f"the prediction type {self.prediction!r} is not supported, only {known}")
        if self.weighting not in WEIGHTINGS:
            raise Refused(
                f"the weighting {self.weighting!r} of a loss is unknown; "
                f"allowed: {', '.join(WEIGHTINGS)}"
            )
        if not (number(self.gamma) and self.gamma > 0):
            raise Refused(f"gamma of a loss must be a finite number above 0, got {self.gamma!r}")
        if self.density not in DENSITIES:
            raise Refused(
                f"the density {self.density!r} of a loss's levels is unknown; "
                f"allowed: {', '.join(DENSITIES)}"
            )

    def weights(self, schedule: Schedule, t: Levels) -> Float[Tensor, " B"]:
        """Return the weight of the squared error at each level, float64."""
        snr = schedule.snr(t)
        if self.weighting == "plain":
            return torch.ones_like(snr)
        of_x_0 = snr.clamp(max=self.gamma) if self.weighting == "min_snr" else snr
        return of_x_0 / PREDICTIONS[self.prediction].gain(schedule, t)

    def weighed(self, weighting: str) -> "StageLoss":
        """Return this loss with another weighting; "model" keeps its own."""
        return self if weighting == OF_THE_MODEL else replace(self, weighting=weighting)


@dataclass(frozen=True)
class Losses:
    """The losses of a stage: where its file names one, pretraining and tuning share it."""

    pretraining: StageLoss
    tuning: StageLoss

    def plain(self) -> dict[str, object]:
        """Return what the file holds: plain data that `losses` reads again."""
        shared, own = (
            {name: getattr(loss, name) for name in FIELDS}
            for loss in (self.pretraining, self.tuning)
        )
        own = {name: value for name, value in own.items() if value != shared[name]}
        return {"version": VERSION, **shared, **({"tuning": own} if own else {})}


def losses(data: Mapping[str, object], *, prediction: str, where: str) -> Losses:
    """Read the content of a loss file.

    `prediction` is what the stage's scheduler says, `where` names the file in refusals. The fields
    serve pretraining and tuning; an object `tuning` may hold those that differ there.
    """
    fields = ", ".join(FIELDS)
    if (version := data.get("version")) != VERSION:
        raise Refused(
            f"{where} is of version {version!r}, and this program reads version {VERSION}; "
            "take the model's files of this version"
        )
    own = data.get("tuning", {})
    if not isinstance(own, Mapping):
        raise Refused(
            f"{where}: tuning is {own!r}; "
            f"give an object with those of {fields} that differ from pretraining's"
        )
    if unknown := sorted({*data, *own} - {*FIELDS, "version", "tuning"}):
        raise Refused(
            f"{where} has the unknown field {unknown[0]!r}; allowed: {fields}, version, tuning"
        )
    shared = {"prediction": prediction} | {name: data[name] for name in FIELDS if name in data}
    try:
        both = Losses(StageLoss(**shared), StageLoss(**shared | own))  # type: ignore[arg-type]
    except Refused as refused:
        raise Refused(f"{where}: {refused}") from None
    for loss in (both.pretraining, both.tuning):
        if loss.prediction != prediction:
            raise Refused(
                f"{where} says that the network predicts {loss.prediction}, its scheduler says "
                f"{prediction}; one of the two files belongs to another model"
            )
    return both


def check_dials(weighting: object, levels: object, strata: object) -> None:
    """Refuse dials of a tuning's loss that cannot be.

    `levels` is a range in [0, 1] of cosine time, `strata` a number of at least 1.
    """
    allowed = (OF_THE_MODEL, *WEIGHTINGS)
    if weighting not in allowed:
        raise Refused(f"weighting must be one of {', '.join(allowed)}, got {weighting!r}")
    pair = [*levels] if isinstance(levels, list | tuple) else []
    if not (len(pair) == 2 and all(map(number, pair)) and 0 <= pair[0] < pair[1] <= 1):
        raise Refused(
            "levels must be two rising numbers in [0, 1] (cosine time; 1 = pure noise) between "
            f"which noise levels are drawn, got {pair or levels!r}"
        )
    if not (whole(strata) and strata >= 1):  # type: ignore[operator]
        raise Refused(
            "strata must be a whole number of at least 1 (parts of the range that the rows of a "
            f"batch take in turn), got {strata!r}"
        )


def drawn(
    schedule: Schedule,
    count: int,
    draw: UniformDraw,
    *,
    levels: tuple[float, float] = (0.0, 1.0),
    strata: int = 1,
) -> Levels:
    """Draw noise levels within a range of cosine time (converted by equal log-SNR).

    With several strata the range is cut into so many equal parts, and row i is drawn from part i
    modulo their number: a small batch is spread over all levels.
    """
    first = schedule.level(levels[0]) if levels[0] > 0 else 0
    size = schedule.level(levels[1]) + 1 - first
    if strata == 1:
        return first + draw(count, size)
    edges = [first + size * k // strata for k in range(strata + 1)]
    within = draw(count, 2**31 - 1)
    rows = []
    for k, u in enumerate(within.tolist()):
        low, high = edges[k % strata], edges[k % strata + 1]
        rows.append(low + int(u) * (high - low) // (2**31 - 1))
    return torch.tensor(rows, dtype=within.dtype)
