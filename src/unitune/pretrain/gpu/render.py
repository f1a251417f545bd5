"""Pictures of scenes made on a GPU, pasted from banks of backgrounds and sprites that lie there.

They are those of `unitune.scenes.render`, but for one level of 255 in a few of a hundred thousand pixels of the grey, pencil and sepia styles.
The speed is not measured on a GPU; one CPU core draws 150 pictures a second here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unitune.pretrain.data import STYLE
from unitune.pretrain.gpu.data import Facts
from unitune.scenes import sprites
from unitune.scenes.backgrounds import OBJECT_TINT, background
from unitune.scenes.render import PIXEL, SIDE
from unitune.scenes.scene import MAX_OBJECTS
from unitune.scenes.vocabulary import COLOURS, NOUNS, PLACES, TIMES

GREY = (0.299, 0.587, 0.114)


def _resized(noun: str, sides: list[int]) -> np.ndarray:
    return np.concatenate([np.asarray(sprites.resized(noun, side, False)).reshape(-1, 4) for side in sides])


def _details(place_time: tuple[str, str], *, first: int, last: int) -> np.ndarray:
    return np.stack([np.asarray(background(*place_time, seed)) for seed in range(first, last)])


@dataclass(frozen=True)
class Banks:
    """What pictures are pasted from: P pixels of all sprites at all sides as Pillow resizes them, and `details` backgrounds of each place and time."""

    pixels: Tensor  # (P, 4) uint8, RGBA
    offset: Tensor  # (nouns, 257) int64: where the tile of a noun at a side begins, -1 where the bank has none
    scenery: Tensor  # (places * times * details, 256 * 256 * 3) uint8
    details: int

    def to(self, device: torch.device) -> "Banks":
        """Copy to a device."""
        return Banks(self.pixels.to(device), self.offset, self.scenery.to(device), self.details)


def build_banks(facts: Iterable[Facts], *, details: int, mapped: Callable[..., Iterable] = map) -> Banks:
    """Build the banks for these scenes: each sprite at each side that occurs, backgrounds of the seeds 0 .. details - 1."""
    used = sum(torch.bincount((f.noun.long() * (SIDE + 1) + f.side.long()).flatten(), minlength=len(NOUNS) * (SIDE + 1)) for f in facts)
    used = torch.as_tensor(used).view(len(NOUNS), SIDE + 1)[:, 1:]  # side 0: no object
    wanted = [(noun, (1 + torch.nonzero(row).flatten()).tolist()) for noun, row in zip(NOUNS, used, strict=True)]
    offset, total = torch.full((len(NOUNS), SIDE + 1), -1), 0
    for k, (_, sides) in enumerate(wanted):
        for side in sides:
            offset[k, side] = total
            total += side * side
    tiles = [tile for tile in mapped(_resized, *zip(*((noun, sides) for noun, sides in wanted if sides), strict=True))]
    kinds = [(place, time) for place in PLACES for time in TIMES]
    scenery = torch.empty((len(kinds), details, SIDE * SIDE * 3), dtype=torch.uint8)
    for first in range(0, details, 64):
        last = min(details, first + 64)
        for k, drawn in enumerate(mapped(partial(_details, first=first, last=last), kinds)):
            scenery[k, first:last] = torch.from_numpy(drawn.reshape(last - first, -1))
    return Banks(torch.from_numpy(np.concatenate(tiles)), offset, scenery.flatten(0, 1), details)


def render(facts: Facts, banks: Banks, *, size: int, device: torch.device) -> Tensor:
    """Draw scenes, given on the CPU, as uint8 (N, 3, size, size) on the banks' device; a background's seed counts modulo the bank's details."""
    n, area = len(facts), SIDE * SIDE
    where = (facts.place.long() * len(TIMES) + facts.time.long()) * banks.details + facts.seed.long() % banks.details
    canvas = torch.empty((n * area + 1, 3), dtype=torch.uint8, device=device)  # the last pixel takes what falls outside a picture
    canvas[:-1].view(n, -1)[:] = banks.scenery[where.to(device, non_blocking=True)]
    for slot in range(MAX_OBJECTS):
        for count in range(slot + 1, MAX_OBJECTS + 1):  # scenes of as many objects have sprites of about one size
            rows = torch.nonzero(facts.count == count).flatten()
            if len(rows):
                _paste(canvas, rows, facts.rows(rows), slot, banks, device)
    pictures = canvas[:-1].view(n, SIDE, SIDE, 3)
    for style, change in STYLES.items():
        rows = torch.nonzero(facts.style == STYLE[style]).flatten().to(device, non_blocking=True)
        if len(rows):
            pictures[rows] = change(pictures[rows].float()).clamp(0, 255).to(torch.uint8)
    k = SIDE // size
    if k > 1:
        sums = pictures.view(n, size, k, size, k, 3).sum(dim=(2, 4), dtype=torch.int32)
        pictures = ((sums + k * k // 2) // (k * k)).to(torch.uint8)
    return pictures.permute(0, 3, 1, 2)


def _paste(canvas: Tensor, rows: Tensor, facts: Facts, slot: int, banks: Banks, device: torch.device) -> None:
    """Paste one object into each of the pictures `rows`, with Pillow's own integer blending."""
    side, offset = facts.side[:, slot].long(), banks.offset[facts.noun[:, slot].long(), facts.side[:, slot].long()]
    tint = torch.tensor([OBJECT_TINT[time] for time in TIMES], dtype=torch.float64)[facts.time.long()]
    box = int(side.max())
    numbers = torch.stack([rows, offset, side, facts.left[:, slot].long(), facts.top[:, slot].long(), facts.flip[:, slot].long()])
    row, offset, side, left, top, flip = numbers.to(device, non_blocking=True)[:, :, None, None]
    i, j = torch.arange(box, device=device)[:, None], torch.arange(box, device=device)
    y, x = top + i, left + j
    inside = (i < side) & (j < side) & (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE)
    tile = banks.pixels[torch.where(inside, offset + i * side + torch.where(flip > 0, side - 1 - j, j), 0)]
    painted = torch.nonzero(facts.colour[:, slot] >= 0).flatten()
    if len(painted):
        paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[facts.colour[painted, slot].long()]
        at = painted.to(device, non_blocking=True)
        tile[at] = _painted(tile[at], paint.to(device, non_blocking=True)[:, None, None])
    colours = (tile[..., :3] * tint.to(device, non_blocking=True)[:, None, None]).to(torch.uint8).int()
    target = torch.where(inside, row * SIDE * SIDE + y * SIDE + x, len(canvas) - 1)
    alpha = tile[..., 3:].int()
    mixed = colours * alpha + canvas[target].int() * (255 - alpha) + 128
    canvas[target] = (((mixed >> 8) + mixed) >> 8).to(torch.uint8)


def _grey(rgb: Tensor) -> Tensor:
    return rgb[..., :1] * GREY[0] + rgb[..., 1:2] * GREY[1] + rgb[..., 2:] * GREY[2]


def _painted(tile: Tensor, paint: Tensor) -> Tensor:
    """`sprites.recoloured` for tiles (B, S, S, 4) and colours (B, 1, 1, 3)."""
    bright = _grey(tile[..., :3].float()) / 255
    colours = paint * (0.34 + 0.9 * bright).clamp(0, 1)
    colours = colours + (255 - colours) * (0.55 * (bright - 0.72).clamp(min=0) / 0.28)
    return torch.cat([colours.clamp(0, 255).to(torch.uint8), tile[..., 3:]], dim=3)


def _sepia(rgb: Tensor) -> Tensor:
    return _grey(rgb) * rgb.new_tensor([1.0, 0.84, 0.62]) + rgb.new_tensor([18.0, 10.0, 2.0])


def _pixel_art(rgb: Tensor) -> Tensor:
    blocks = rgb.view(-1, SIDE // PIXEL, PIXEL, SIDE // PIXEL, PIXEL, 3).mean(dim=(2, 4))
    return (blocks / 32).round().clamp(0, 7).repeat_interleave(PIXEL, 1).repeat_interleave(PIXEL, 2) * 36


def _pencil(rgb: Tensor) -> Tensor:
    grey = _grey(rgb)[..., 0]
    edges = grey.diff(dim=1, append=grey[:, -1:]).abs() + grey.diff(dim=2, append=grey[:, :, -1:]).abs()
    k = torch.arange(SIDE, device=rgb.device)
    hatching = ((k[:, None] + k) % 8 < 3) * (150 - grey).clamp(0, 90) * 0.8
    paper = 250 - 0.22 * (255 - grey) - hatching - 1.6 * edges.clamp(0, 120)
    return paper[..., None] * rgb.new_tensor([1.0, 0.99, 0.95])


STYLES: dict[str, Callable[[Tensor], Tensor]] = {"grey": lambda rgb: _grey(rgb).expand_as(rgb), "pixel": _pixel_art, "pencil": _pencil, "sepia": _sepia}
