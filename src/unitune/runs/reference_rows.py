"""Reference rows that need the model: what the cascade's later stages make of a perfect first stage, and an oracle that is given the target's own text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from unitune.diffusion.blend import Interpolation, reduced
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import PURE_NOISE
from unitune.types import Draw, Edit, Example, Request, Tuned

if TYPE_CHECKING:  # a run that is refused loads no model
    from unitune.models.cascade import Cascade

Rows = list[tuple[str, Edit]]


def texts(example: Example) -> list[str]:
    """List the texts that these rows embed."""
    return [example.caption, *(request.prompt for request in _known(example)), ""]


def made(
    cascade: "Cascade",
    sampler: Sampler,
    example: Example,
    *,
    seeds: Sequence[int],
    weight: float | None = None,
) -> Rows:
    """Make, with the untouched weights, the rows of the requests whose exact target is known.

    Base image and target are reduced to the first stage's size and go through the later stages, where there are such. The oracle samples the target's text
    from pure noise, once for each of `seeds`: it shows what the model could draw if nothing had to be kept. `weight` is the model's own of plain guidance,
    so that the oracle is the same whatever method it stands beside; None is the sampler's.
    """
    requests = _known(example)
    return (
        [
            *_through(cascade, sampler, example, requests),
            *_oracle(cascade, sampler, example, requests, seeds, weight),
        ]
        if requests
        else []
    )


def _known(example: Example) -> list[Request]:
    return [request for request in example.requests if request.target is not None]


def _through(
    cascade: "Cascade", sampler: Sampler, example: Example, requests: Sequence[Request]
) -> Rows:
    if len(cascade.stages) < 2:
        return []
    pictures = [
        example.image,
        *(request.target for request in requests if request.target is not None),
    ]
    lows = [reduced(picture, cascade.stages[0].resolution) for picture in pictures]
    base, *targets = sampler.refined(
        cascade, example, lows, texts=[example.caption, *(request.prompt for request in requests)]
    )
    rows: Rows = []
    for request, target in zip(requests, targets, strict=True):
        copied = Edit(example, request, 0, 1.0, 1.0, example.caption, base)
        rows += [
            ("copy through super-resolution", copied),
            (
                "target through super-resolution",
                replace(copied, prompt=request.prompt, image=target),
            ),
        ]
    return rows


def _oracle(
    cascade: "Cascade",
    sampler: Sampler,
    example: Example,
    requests: Sequence[Request],
    seeds: Sequence[int],
    weight: float | None,
) -> Rows:
    if not seeds:
        return []
    plain = replace(
        sampler,
        name="oracle",
        template="{edit}",
        start=PURE_NOISE,
        mask=None,
        control=None,
        interpolation=Interpolation(),
    )
    plain = replace(
        plain,
        guidance=Guidance(
            sampler.guidance.weight if weight is None else weight, rescale=sampler.guidance.rescale
        ),
    )
    plain = replace(
        plain, sr=replace(sampler.sr, guidance=replace(sampler.sr.guidance, reference=""))
    )
    draws = [Draw(request, seed) for request in requests for seed in seeds]
    with torch.no_grad():
        return [("oracle", edit) for edit in plain(cascade, example, tuned=Tuned(), draws=draws)]
