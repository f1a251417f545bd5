"""Scoring in batches: pictures of one size go through a function together, and the features of a base image are computed once for its edits."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune.types import Edit, Picture, Refused

CHUNK = 2  # pictures per call: on a CPU 16 take 1.4 times as long per picture (ST-LPIPS, 256 px), as their activations leave the cache
Features = Sequence[Tensor]  # (B, ...) each


def in_batches(function: Callable[..., Tensor], *columns: Sequence[Tensor]) -> list[float]:
    """Call a function of (B, C, H, W) tensors on columns of (1, C, H, W) ones, pictures of one size at a time; it returns (B,)."""
    values = [float("nan")] * len(columns[0])
    for rows in _alike([(tuple(image.shape),) for image in columns[0]]):
        found = function(*(torch.cat([column[k] for k in rows]) for column in columns))
        for k, value in zip(rows, found.tolist(), strict=True):
            values[k] = value
    return values


def unit(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Turn pictures in [-1, 1] to float32 in [0, 1], on the CPU. Done to a batch, not to a benchmark, whose copies would fill the memory."""
    return (image.float().cpu() + 1) / 2


def paired(
    edits: Sequence[Edit],
    features: Callable[[Tensor], Features],
    distance: Callable[[Features, Features], Tensor],
) -> list[float]:
    """Compare the features of each edit with those of its base image, which are computed once."""
    check_sizes(edits)
    keys = [
        (tuple(edit.image.shape), digest)
        for edit, digest in zip(edits, base_digests(edits), strict=True)
    ]
    values, kept = [float("nan")] * len(edits), {}
    for rows in _alike(keys):
        new = {keys[k]: edits[k].example.image for k in rows if keys[k] not in kept}
        levels = features(torch.cat(list(new.values())).float().cpu()) if new else []
        kept |= {
            key: [level[place : place + 1] for level in levels] for place, key in enumerate(new)
        }
        kept = {
            keys[k]: kept[keys[k]] for k in rows
        }  # edits of one base image stand together, so what is left behind is not asked for again
        of_bases = [torch.cat(level) for level in zip(*(kept[keys[k]] for k in rows), strict=True)]
        of_edits = features(torch.cat([edits[k].image for k in rows]).float().cpu())
        for k, value in zip(rows, distance(of_edits, of_bases).tolist(), strict=True):
            values[k] = value
    return values


def base_digests(edits: Sequence[Edit]) -> list[str]:
    """Return the digest of each edit's base image; it is computed once per example."""
    known = {
        key: example.digest
        for key, example in {id(edit.example): edit.example for edit in edits}.items()
    }
    return [known[id(edit.example)] for edit in edits]


def check_sizes(edits: Sequence[Edit]) -> None:
    """Refuse an edit whose base image is of another size."""
    for edit in edits:
        check_size(edit, edit.example.image, "base image")


def check_size(edit: Edit, other: Picture | Tensor, what: str) -> None:
    """Refuse what is compared with an edit and is of another size."""
    if other.shape[-2:] != edit.image.shape[-2:]:
        (h, w), (y, x) = other.shape[-2:], edit.image.shape[-2:]
        raise Refused(
            f"{edit.request.prompt!r}: the {what} is {w}x{h} px, the edit {x}x{y} px; pictures of one size are compared"
        )


def resized(
    image: Float[Tensor, "B C H W"], size: int, *, mode: str
) -> Float[Tensor, "B C size size"]:
    """Resize the shorter side to `size` px by antialiased bilinear or bicubic, as Pillow does but without rounding to bytes; keep the centre."""
    shorter = min(image.shape[-2:])
    if shorter != size:
        h, w = (max(size, round(side * size / shorter)) for side in image.shape[-2:])
        image = F.interpolate(image, (h, w), mode=mode, antialias=True)
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[..., top : top + size, left : left + size]


def _alike(keys: Sequence[tuple]) -> Iterator[list[int]]:
    """Yield the places of pictures of one shape, the first of a key, in parts of at most CHUNK; equal keys stand together."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for _, group in groupby(order, key=lambda k: keys[k][0]):
        rows = list(group)
        yield from (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))
