"""THE loop: the reverse process for a batch of items, each with its own levels.

What is sampled is a denoiser. Guidance and thresholding make one of another (`guidance.py`); what
else acts while sampling, such as a mask, is a hook after each step.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from jaxtyping import Int
from torch import Tensor

from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.diffusion.steps import Step, Transition

Denoiser = Callable[[Image, Levels], Image]  # (x_t, t) -> x_0
# (role, step) -> standard normal noise, named so that an item is the same alone or in a batch.
NoiseSource = Callable[[str, int], Image]
After = Callable[[Image, int], Image]  # (x, k) -> x, once step k has brought it to levels[k + 1]
PAST = 2  # earlier predictions that a step rule is given


def denoise(
    denoiser: Denoiser,
    x: Image,
    levels: Int[Tensor, "N B"],
    *,
    schedule: Schedule,
    step: Step,
    noise: NoiseSource,
    after: Sequence[After] = (),
) -> Image:
    """Bring x from levels[0] down to x_0 at levels[-1] = -1."""
    past: deque[tuple[Levels, Image]] = deque(maxlen=PAST)
    for k, (t, s) in enumerate(itertools.pairwise(levels)):
        x_0 = denoiser(x, t)
        x = step(x, x_0, Transition(schedule, t, s, noise("step", k), tuple(past)))
        past.append((t, x_0))
        for hook in after:
            x = hook(x, k)
    return x
