"""Endless streams of batches of pictures, captions, facts and maps of objects.

Worker processes draw them. Batch k depends on (seed, k) alone, so a training resumes where it
stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from unitune.scenes.caption import caption
from unitune.scenes.render import SIDE, reduced, render
from unitune.scenes.scene import Object, Scene, is_held_out, random_scene
from unitune.scenes.vocabulary import COLOURFUL, COLOURS, NOUNS, PLACES, STYLES, TIMES

from unitune_lab.names import named_scene, rare_word

NOUN = {word: k for k, word in enumerate(NOUNS)}
PLACE = {word: k for k, word in enumerate(PLACES)}
TIME = {word: k for k, word in enumerate(TIMES)}
STYLE = {word: k for k, word in enumerate(STYLES)}
COLOUR = {word: k for k, word in enumerate(COLOURS)}
MIDDLE = 0.08  # share of the width from the middle within which an object stands on neither side
MAP = 64  # px of the map of objects
EMPTY, NAMED, MEANINGLESS = 0.10, 0.10, 0.03  # shares of the captions that a diffusion stage learns
RARE_ALONE, RARE_BEFORE = 0.07, 0.18  # shares of the captions that the text encoder learns
GROUP = 8  # scenes of one place, time and style among which a CLIP must tell the objects


@dataclass(frozen=True)
class Batch:
    """B scenes as a part learns them.

    `image` is (B, 3, S, S) uint8. `objects` is (B, 64, 64) uint8: at each position the number of
    the noun plus one, and 0 where there is no object. Both are None where a part reads text alone.
    """

    image: Tensor | None
    objects: Tensor | None
    captions: tuple[str, ...]
    nouns: Tensor  # (B, nouns) float, 1 where present
    place: Tensor  # (B,) int
    time: Tensor
    style: Tensor
    count: Tensor  # (B,) int, objects less one
    colours: Tensor  # (B, nouns, colours) float, 1 where an object is painted
    side: Tensor  # (B, nouns) float: 0 left of the middle, 1 right of it, else -1

    def pictures(self, device: torch.device) -> Tensor:
        """Return the pictures as float32 in [-1, 1]."""
        assert self.image is not None
        return pixels(self.image, device)


def pixels(image: Tensor, device: torch.device) -> Tensor:
    """Turn uint8 pictures into float32 in [-1, 1]."""
    return image.to(device).float().div_(127.5).sub_(1)


def facts(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Turn scenes into the tensors of a Batch."""
    nouns = torch.zeros(len(scenes), len(NOUN))
    colours = torch.zeros(len(scenes), len(NOUN), len(COLOUR))
    side = torch.full((len(scenes), len(NOUN)), -1.0)
    for row, scene in enumerate(scenes):
        for thing in scene.objects:
            nouns[row, NOUN[thing.noun]] = 1
            if thing.colour:
                colours[row, NOUN[thing.noun], COLOUR[thing.colour]] = 1
            if sided(thing, scene):
                side[row, NOUN[thing.noun]] = float(thing.x > 0.5)
    words = {"place": PLACE, "time": TIME, "style": STYLE}
    labels = {
        name: torch.tensor([index[getattr(scene, name)] for scene in scenes])
        for name, index in words.items()
    }
    count = torch.tensor([len(scene.objects) - 1 for scene in scenes])
    return {"nouns": nouns, **labels, "count": count, "colours": colours, "side": side}


def sided(thing: Object, scene: Scene) -> bool:
    """Say whether the object is the only one of its kind and clearly left or right."""
    alone = sum(other.noun == thing.noun for other in scene.objects) == 1
    return alone and abs(thing.x - 0.5) > MIDDLE


def object_map(scene: Scene, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the map of objects of a scene, (64, 64) uint8, from its masks of 256 px."""
    found = np.zeros((MAP, MAP), np.uint8)
    for thing, mask in zip(scene.objects, masks, strict=True):
        covered = reduced((mask * np.uint8(255))[..., None].repeat(3, 2), MAP)[..., 0] > 127
        found[covered] = NOUN[thing.noun] + 1
    return found


def at_cells(objects: Tensor, side: int) -> Tensor:
    """Read maps of objects, (B, S, S), at the middle of each of side x side cells."""
    k = objects.shape[-1] // side
    return objects[:, k // 2 :: k, k // 2 :: k] if k > 1 else objects


def grouped(
    pairs: Sequence[tuple[Scene, str]], rng: np.random.Generator
) -> list[tuple[Scene, str]]:
    """Give the scenes of each GROUP in the first half the place, time and style of its first.

    Of scenes at random places a CLIP learns the places alone, which tell most captions apart. A
    scene that would be held out, or have a caption of its group, stays as it is.
    """
    found: list[tuple[Scene, str]] = []
    for k, (scene, text) in enumerate(pairs):
        group = found[k - k % GROUP :]
        if group and 2 * k < len(pairs):
            first = group[0][0]
            painted = first.style in COLOURFUL
            things = tuple(o if painted else replace(o, colour="") for o in scene.objects)
            look = {"place": first.place, "time": first.time, "style": first.style}
            other = replace(scene, objects=things, **look)
            if not is_held_out(other):
                said = caption(other, rng)
                if said not in [told for _, told in group]:
                    scene, text = other, said
        found.append((scene, text))
    return found


class SceneBatches(IterableDataset[Batch]):
    """Batch k of the stream `seed`, from batch `first` on.

    `size` is the side of the pictures in px, None for none; `captions` says for whom they are
    ("stage": with names and empty ones, "text": with many rare words, "plain": none of these,
    "clip": half of the batch in groups that differ in their objects alone);
    `counts` are the chances of one, two and three objects. A share `related` of what a stage learns
    are pairs whose captions say who stands left of whom, which few of the others do.
    """

    def __init__(
        self,
        *,
        seed: int,
        batch_size: int,
        size: int | None,
        captions: str = "stage",
        first: int = 0,
        held_out: bool = False,
        counts: Sequence[float] | None = None,
        related: float = 0.0,
    ) -> None:
        self.related = related
        self.seed, self.batch_size, self.size, self.first = seed, batch_size, size, first
        self.captions, self.held_out, self.counts = captions, held_out, counts

    def pair(self, rng: np.random.Generator) -> tuple[Scene, str]:
        """Draw a scene and its caption."""
        u = rng.random()
        named = 0.0 if self.held_out else NAMED  # the scenes of names are known ones
        if self.captions == "stage" and u < named:
            text, scene = named_scene(rng)
            return scene, text
        if self.captions == "stage" and self.related and rng.random() < self.related:
            scene = random_scene(rng, held_out=self.held_out, counts=(0.0, 1.0, 0.0))
            return scene, caption(scene, rng, related=True)
        scene = random_scene(rng, held_out=self.held_out, counts=self.counts)
        text = caption(scene, rng)
        if self.captions == "stage":
            u -= named
            if u < EMPTY:
                return scene, ""
            return scene, f"{rare_word(rng)} {text}" if u < EMPTY + MEANINGLESS else text
        if self.captions == "text":
            if u < RARE_ALONE:
                return scene, rare_word(rng)
            return scene, f"{rare_word(rng)} {text}" if u < RARE_ALONE + RARE_BEFORE else text
        return scene, text

    def batch(self, k: int) -> Batch:
        """Draw batch `k`."""
        rng = np.random.default_rng([self.seed, k, int(self.held_out)])
        pairs = [self.pair(rng) for _ in range(self.batch_size)]
        if self.captions == "clip":
            pairs = grouped(pairs, rng)
        scenes = [scene for scene, _ in pairs]
        image = objects = None
        if self.size is not None:
            drawn = [render(scene, SIDE) for scene in scenes]
            pictures = np.stack([reduced(picture, self.size) for picture, _ in drawn])
            image = torch.from_numpy(pictures).permute(0, 3, 1, 2)
            maps = [object_map(s, masks) for s, (_, masks) in zip(scenes, drawn, strict=True)]
            objects = torch.from_numpy(np.stack(maps))
        return Batch(image, objects, tuple(text for _, text in pairs), **facts(scenes))

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        k = self.first + worker
        while True:
            yield self.batch(k)
            k += workers


def loader(batches: SceneBatches, *, workers: int) -> DataLoader[Batch]:
    """Wrap a stream so that `workers` processes draw ahead; their number changes no batch."""
    ahead = 4 if workers else None
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=ahead)
