"""What a network may predict, and how x_0 follows from it: eps, v, or the velocity of a flow."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitune.diffusion.schedule import Image, Levels, Schedule


@dataclass(frozen=True)
class Prediction:
    """One kind, by its name in diffusers' files.

    `target` is what the network should give for (x_0, eps, t); `x_0` follows from (x_t, output, t);
    `gain` is the squared error of the output over that of x_0 at each level.
    """

    target: Callable[[Schedule, Image, Image, Levels], Image]
    x_0: Callable[[Schedule, Image, Image, Levels], Image]
    gain: Callable[[Schedule, Levels], Float[Tensor, " B"]]


def _x_0_from_eps(schedule: Schedule, x_t: Image, eps: Image, t: Levels) -> Image:
    alpha, sigma = schedule.at(t)
    return (x_t - sigma.to(x_t) * eps) / alpha.to(x_t)


def _v(schedule: Schedule, x_0: Image, eps: Image, t: Levels) -> Image:
    """Salimans & Ho (2022)."""
    alpha, sigma = schedule.at(t)
    return alpha.to(x_0) * eps - sigma.to(x_0) * x_0


def _x_0_from_v(schedule: Schedule, x_t: Image, v: Image, t: Levels) -> Image:
    alpha, sigma = schedule.at(t)
    return alpha.to(x_t) * x_t - sigma.to(x_t) * v


def _x_0_from_velocity(schedule: Schedule, x_t: Image, u: Image, t: Levels) -> Image:
    _, sigma = schedule.at(t)
    return x_t - sigma.to(x_t) * u


PREDICTIONS = {
    "epsilon": Prediction(lambda schedule, x_0, eps, t: eps, _x_0_from_eps, Schedule.snr),
    "v_prediction": Prediction(_v, _x_0_from_v, lambda schedule, t: schedule.snr(t) + 1),
    # Lipman et al. (2023): the derivative of x_t along the straight path.
    "flow_prediction": Prediction(
        lambda schedule, x_0, eps, t: eps - x_0,
        _x_0_from_velocity,
        lambda schedule, t: schedule.at(t)[1].flatten() ** -2,
    ),
}
