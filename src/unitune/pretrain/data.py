"""Endless streams of (picture, caption, facts), drawn by worker processes; item k depends on (seed, k) only, so a run resumes where it stopped."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unitune.scenes import Object, Scene, random_scene, render
from unitune.scenes.caption import training_caption
from unitune.scenes.vocabulary import COLOURS, NOUNS, PLACES, STYLES, TIMES

NOUN, PLACE, TIME, STYLE, COLOUR = ({word: k for k, word in enumerate(words)} for words in (NOUNS, PLACES, TIMES, STYLES, COLOURS))
MIDDLE = 0.08  # share of the width from the middle within which an object stands neither left nor right


@dataclass(frozen=True)
class Batch:
    """B scenes: `image` (B, 3, S, S) uint8, or None where a task reads text only; facts as the judge and the text encoder learn them."""

    image: Tensor | None
    captions: tuple[str, ...]
    nouns: Tensor  # (B, nouns) float, 1 where present
    place: Tensor  # (B,) int
    time: Tensor
    style: Tensor
    count: Tensor  # (B,) int, objects less one
    colours: Tensor  # (B, nouns, colours) float, 1 where an object is painted
    side: Tensor  # (B, nouns) float: 0 left of the middle, 1 right of it, -1 absent, in the middle or several


def facts(scenes: list[Scene]) -> dict[str, Tensor]:
    """Turn scenes into the tensors of a Batch."""
    nouns, colours = torch.zeros(len(scenes), len(NOUN)), torch.zeros(len(scenes), len(NOUN), len(COLOUR))
    side = torch.full((len(scenes), len(NOUN)), -1.0)
    for row, scene in enumerate(scenes):
        nouns[row, [NOUN[o.noun] for o in scene.objects]] = 1
        for thing in scene.objects:
            if thing.colour:
                colours[row, NOUN[thing.noun], COLOUR[thing.colour]] = 1
            if sided(thing, scene):
                side[row, NOUN[thing.noun]] = float(thing.x > 0.5)
    pick = {"place": PLACE, "time": TIME, "style": STYLE}
    labels = {name: torch.tensor([index[getattr(s, name)] for s in scenes]) for name, index in pick.items()}
    return {"nouns": nouns, **labels, "count": torch.tensor([len(s.objects) - 1 for s in scenes]), "colours": colours, "side": side}


def sided(thing: Object, scene: Scene) -> bool:
    """Say whether the object is the only one of its kind and clearly left or right."""
    return abs(thing.x - 0.5) > MIDDLE and sum(o.noun == thing.noun for o in scene.objects) == 1


class SceneBatches(IterableDataset[Batch]):
    """Batch k of the run `seed`, starting at batch `first`; `size` None draws no pictures, `held_out` draws the unseen compositions."""

    def __init__(self, *, seed: int, batch_size: int, size: int | None, first: int = 0, held_out: bool = False) -> None:
        self.seed, self.batch_size, self.size, self.first, self.held_out = seed, batch_size, size, first, held_out

    def batch(self, k: int) -> Batch:
        """Draw batch `k`."""
        rng = np.random.default_rng([self.seed, k, int(self.held_out)])
        scenes = [random_scene(rng, held_out=self.held_out) for _ in range(self.batch_size)]
        image = None if self.size is None else torch.from_numpy(np.stack([render(s, self.size)[0] for s in scenes])).permute(0, 3, 1, 2)
        return Batch(image, tuple(training_caption(s, rng) for s in scenes), **facts(scenes))

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        k = self.first + worker
        while True:
            yield self.batch(k)
            k += workers


def loader(batches: SceneBatches, *, workers: int) -> DataLoader[Batch]:
    """Wrap a stream so that `workers` processes draw ahead; the order of batches does not depend on their number."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
