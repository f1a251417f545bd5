"""Reference rows, which edits are compared with: those that need no model, and those it makes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import PURE_NOISE
from unitune.diffusion.stage import reduced
from unitune.types import Draw, Edit, Example, Request, Tuned

if TYPE_CHECKING:  # a run that is refused loads no model
    from unitune.models.cascade import Cascade

Rows = list[tuple[str, Edit]]
MODEL_FREE = ("copy", "target")  # made again where they are scored again


def texts(example: Example) -> list[str]:
    """List the texts that these rows embed."""
    return [example.caption, *(request.prompt for request in _known(example)), ""]


def model_free(example: Example) -> Rows:
    """Make the rows that need no model.

    A copy of the base keeps everything and edits nothing; the exact target of each request where
    it is known.
    """
    rows: Rows = []
    for request in example.requests:
        copied = Edit(example, request, 0, 1.0, 1.0, request.prompt, example.image)
        rows.append(("copy", copied))
        if request.target is not None:
            rows.append(("target", replace(copied, image=request.target)))
    return rows


def made(
    cascade: "Cascade",
    sampler: Sampler,
    example: Example,
    *,
    seeds: Sequence[int],
    weight: float | None = None,
) -> Rows:
    """Make, with the untouched weights, the rows of the requests whose exact target is known.

    Base image and target are reduced to the first stage's size and go through the later stages,
    where there are such. The oracle samples the target's text from pure noise, once for each of
    `seeds`: it shows what the model could draw if nothing had to be kept. `weight` is the model's
    own of plain guidance, so that the oracle is the same whatever method it stands beside; None is
    the sampler's.
    """
    rows: Rows = []
    requests = _known(example)
    if requests and len(cascade.stages) > 1:
        rows += _through(cascade, sampler, example, requests)
    if requests and seeds:
        weight = sampler.guidance.weight if weight is None else weight
        draws = [Draw(request, seed) for request in requests for seed in seeds]
        plain = _oracle(sampler, weight)
        edits = plain(cascade, example, tuned=Tuned(), draws=draws)
        rows += [("oracle", edit) for edit in edits]
    return rows


def _known(example: Example) -> list[Request]:
    return [request for request in example.requests if request.target is not None]


def _through(
    cascade: "Cascade", sampler: Sampler, example: Example, requests: Sequence[Request]
) -> Rows:
    targets = [request.target for request in requests if request.target is not None]
    lows = [reduced(one, cascade.stages[0].resolution) for one in (example.image, *targets)]
    texts = [example.caption, *(request.prompt for request in requests)]
    base, *refined = sampler.refined(cascade, example, lows, texts=texts)
    rows: Rows = []
    for request, target in zip(requests, refined, strict=True):
        copied = Edit(example, request, 0, 1.0, 1.0, example.caption, base)
        exact = replace(copied, prompt=request.prompt, image=target)
        rows += [
            ("copy through super-resolution", copied),
            ("target through super-resolution", exact),
        ]
    return rows


def _oracle(sampler: Sampler, weight: float) -> Sampler:
    """Return the sampler without all that knows of the image."""
    of_later_stages = replace(sampler.sr.guidance, reference="")
    return replace(
        sampler,
        name="oracle",
        template="{edit}",
        start=PURE_NOISE,
        mask=None,
        control=None,
        interpolation=Interpolation(),
        guidance=Guidance(weight, rescale=sampler.guidance.rescale),
        sr=replace(sampler.sr, guidance=of_later_stages),
    )
