"""What all scores of pictures share: batches of one size, and refusals of other sizes.

A base image's features are computed once for all of its edits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.types import Edit, Refused

CHUNK = 2  # pictures per call; 16 take a CPU 1.4 times as long per picture (they leave its cache)
NAN = float("nan")
Features = Sequence[Tensor]  # (B, ...) each
Measure = Callable[[Tensor, Tensor], Tensor]  # (B, C, H, W) on [0, 1], twice -> (B,)


def compared(
    edits: Sequence[Edit],
    pictures: Callable[[Edit], Sequence[Tensor] | None],
    measure: Callable[..., Tensor],
) -> list[float]:
    """Measure what `pictures` takes of each edit, a few of one size together.

    `pictures` returns tensors (1, C, H, W), or None for an edit that has no number. `measure`
    takes as many tensors (B, C, H, W) and returns (B,).
    """
    taken = {k: pictures(edit) for k, edit in enumerate(edits)}
    given = {k: tensors for k, tensors in taken.items() if tensors is not None}
    values = [NAN] * len(edits)
    for rows in _chunks({k: (tensors[0].shape,) for k, tensors in given.items()}):
        columns = zip(*(given[k] for k in rows), strict=True)
        found = measure(*(torch.cat(column) for column in columns))
        for k, value in zip(rows, found.tolist(), strict=True):
            values[k] = value
    return values


def with_base(edits: Sequence[Edit], measure: Measure) -> list[float]:
    """Compare edits with their base images."""

    def pictures(edit: Edit) -> tuple[Tensor, Tensor]:
        check_size(edit, edit.example.image, "base image")
        return edit.image, edit.example.image

    return compared(edits, pictures, lambda image, base: measure(unit(image), unit(base)))


def unedited(edits: Sequence[Edit], measure: Measure) -> list[float]:
    """Compare what must stay as PIE-Bench does: both pictures on [0, 1] times (1 - mask), whole.

    NaN without a mask, or where the mask lets everything change.
    """

    def pictures(edit: Edit) -> tuple[Tensor, Tensor, Tensor] | None:
        mask = edit.request.mask
        if mask is None or not bool((mask < 1).any()):
            return None
        check_size(edit, mask, "mask")
        check_size(edit, edit.example.image, "base image")
        return edit.image, edit.example.image, mask

    def masked(image: Tensor, base: Tensor, mask: Tensor) -> Tensor:
        stays = 1 - mask.float().cpu()
        return measure(unit(image) * stays, unit(base) * stays)

    return compared(edits, pictures, masked)


def paired(
    edits: Sequence[Edit],
    features: Callable[[Tensor], Features],
    distance: Callable[[Features, Features], Tensor],
) -> list[float]:
    """Compare the features of each edit with those of its base image, which are computed once."""
    for edit in edits:
        check_size(edit, edit.example.image, "base image")
    digests = {key: e.digest for key, e in {id(e.example): e.example for e in edits}.items()}
    keys = {k: (e.image.shape, digests[id(e.example)]) for k, e in enumerate(edits)}
    values, kept = [NAN] * len(edits), {}
    for rows in _chunks(keys):
        new = {keys[k]: edits[k].example.image for k in rows if keys[k] not in kept}
        if new:
            levels = features(torch.cat(list(new.values())).float().cpu())
            for place, key in enumerate(new):
                kept[key] = [level[place : place + 1] for level in levels]
        # The edits of one base image stand together, so that earlier ones are not needed again.
        kept = {keys[k]: kept[keys[k]] for k in rows}
        of_bases = [torch.cat(level) for level in zip(*(kept[keys[k]] for k in rows), strict=True)]
        of_edits = features(torch.cat([edits[k].image for k in rows]).float().cpu())
        for k, value in zip(rows, distance(of_edits, of_bases).tolist(), strict=True):
            values[k] = value
    return values


def _chunks(keys: Mapping[int, tuple]) -> Iterator[list[int]]:
    """Yield rows whose keys begin with the same shape, at most CHUNK; equal keys stand together."""
    order = sorted(keys, key=keys.__getitem__)
    for _, group in groupby(order, key=lambda k: keys[k][0]):
        rows = list(group)
        yield from (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))


def check_size(edit: Edit, other: Tensor, what: str) -> None:
    """Refuse what is compared with an edit and is of another size."""
    (h, w), (y, x) = other.shape[-2:], edit.image.shape[-2:]
    if (h, w) != (y, x):
        raise Refused(
            f"{edit.request.prompt!r}: the {what} is {w}x{h} px, the edit {x}x{y} px; "
            "pictures of one size are compared"
        )


def unit(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Turn pictures in [-1, 1] to float32 in [0, 1], on the CPU."""
    return (image.float().cpu() + 1) / 2


def resized(
    image: Float[Tensor, "B C H W"], size: int, *, mode: str
) -> Float[Tensor, "B C size size"]:
    """Resize the shorter side to `size` px and keep the centre.

    `mode` is antialiased bilinear or bicubic, as Pillow's but without rounding to bytes.
    """
    shorter = min(image.shape[-2:])
    if shorter != size:
        h, w = (max(size, round(side * size / shorter)) for side in image.shape[-2:])
        image = F.interpolate(image, (h, w), mode=mode, antialias=True)
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[..., top : top + size, left : left + size]
