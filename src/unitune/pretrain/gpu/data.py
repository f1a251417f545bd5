"""Facts and token ids of millions of scenes, drawn once by all cores and kept as tensors, so that a GPU never waits for Python.

They come from `random_scene` and `training_caption` themselves, so their shares are the CPU training's and held-out compositions stay unseen. One busy core
draws 11,000 scenes a second (measured), so sixteen draw two millions in about 12 s (extrapolated).
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from transformers import T5Tokenizer

from unitune.pretrain import networks
from unitune.pretrain.data import COLOUR, NOUN, PLACE, STYLE, TIME, Batch, sided
from unitune.scenes import Object, Scene, random_scene
from unitune.scenes.caption import training_caption
from unitune.scenes.render import SIDE
from unitune.scenes.scene import MAX_OBJECTS
from unitune.scenes.vocabulary import COLOURS, NOUNS

CHUNK = 4096  # scenes that a process draws at a time
CLIP_TOKENS = 32  # what the pocket CLIP reads; the longest caption has 21


@dataclass(frozen=True)
class Facts:
    """N scenes as tensors, on any device; slots of objects that are absent hold zeros, `right` -1."""

    noun: Tensor  # (N, objects) uint8
    colour: Tensor  # (N, objects) int8, -1 for its own colours
    flip: Tensor  # (N, objects) bool
    left: Tensor  # (N, objects) int16, px at 256, as top and side
    top: Tensor
    side: Tensor
    right: Tensor  # (N, objects) int8: 0 left of the middle, 1 right of it, -1 neither or one of several
    count: Tensor  # (N,) uint8, objects
    place: Tensor  # (N,) uint8
    time: Tensor
    style: Tensor
    seed: Tensor  # (N,) int32, of the background
    ids: Tensor  # (N, 77) int16, the training caption
    words: Tensor  # (N, 32) int16, the same without its rare word, for the CLIP; the first is the end token where no word is left

    def __len__(self) -> int:
        return len(self.noun)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Facts":
        """Apply a function to every tensor."""
        return Facts(*(change(getattr(self, field.name)) for field in fields(self)))

    def rows(self, index: Tensor | slice) -> "Facts":
        """Pick scenes."""
        return self.map(lambda x: x[index])

    def to(self, device: torch.device) -> "Facts":
        """Copy to a device without waiting for it."""
        return self.map(lambda x: x.to(device, non_blocking=True))


@contextmanager
def mapping(workers: int) -> Iterator[Callable[..., Iterable]]:
    """Give a `map` that uses so many forked processes, or none for 0; enter before the GPU is first used."""
    if not workers:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map


@cache
def _words() -> frozenset[str]:
    return frozenset(networks.vocabulary())


@cache
def _tokenizer() -> T5Tokenizer:
    return networks.tokenizer()


@cache
def _known() -> dict[str, list[int]]:
    """Ids of every word of the world, with a comma and without: pieces never reach over a space, so a caption's ids are its words' ids."""
    words = [f"{word}{mark}" for word in _words() for mark in ("", ",")]
    return dict(zip(words, _tokenizer()(words, add_special_tokens=False).input_ids, strict=True))


def token_ids(captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return `ids` and `words` of Facts for captions; three times as fast as the tokenizer's own call."""
    known, end = _known(), [_tokenizer().convert_tokens_to_ids("</s>")]
    texts = [text.lower().split() for text in captions]
    others = sorted({word for text in texts for word in text} - known.keys())
    rare = dict(zip(others, _tokenizer()(others, add_special_tokens=False).input_ids, strict=True)) if others else {}
    both: tuple[list[list[int]], list[list[int]]] = ([], [])
    for text in texts:
        for ids, found in zip(both, (known | rare if rare.keys() & text else known, known), strict=True):
            ids.append(list(chain.from_iterable(found[word] for word in text if word in found)))
    ids, words = (
        torch.tensor([(row[: length - 1] + end + [0] * length)[:length] for row in rows], dtype=torch.int16)
        for rows, length in zip(both, (networks.TEXT_LENGTH, CLIP_TOKENS), strict=True)
    )
    return ids, words


def _slot(thing: Object, scene: Scene) -> tuple[int, ...]:
    side = max(1, round(thing.size * SIDE))
    place = round(thing.x * SIDE - side / 2), round(thing.y * SIDE - side), side
    return NOUN[thing.noun], COLOUR[thing.colour] if thing.colour else -1, thing.flip, *place, int(thing.x > 0.5) if sided(thing, scene) else -1


ABSENT = (0, 0, 0, 0, 0, 0, -1)
SLOTS = {"noun": torch.uint8, "colour": torch.int8, "flip": torch.bool, "left": torch.int16, "top": torch.int16, "side": torch.int16, "right": torch.int8}


def facts_of(scenes: list[Scene], captions: list[str]) -> Facts:
    """Turn scenes and their captions into tensors."""
    slots = np.array([[*(_slot(o, s) for o in s.objects), *[ABSENT] * (MAX_OBJECTS - len(s.objects))] for s in scenes])
    rows = np.array([(len(s.objects), PLACE[s.place], TIME[s.time], STYLE[s.style], s.seed) for s in scenes])
    ids, words = token_ids(captions)
    return Facts(
        **{name: torch.from_numpy(slots[..., k]).to(kind) for k, (name, kind) in enumerate(SLOTS.items())},
        **{name: torch.from_numpy(rows[:, k]).to(torch.uint8) for k, name in enumerate(("count", "place", "time", "style"))},
        seed=torch.from_numpy(rows[:, 4]).int(), ids=ids, words=words,
    )  # fmt: skip


def _drawn(k: int, *, count: int, seed: int, held_out: bool) -> list[np.ndarray]:
    rng = np.random.default_rng([seed, k, int(held_out), 7])  # 7: other scenes than those of the CPU's streams
    scenes = [random_scene(rng, held_out=held_out) for _ in range(min(CHUNK, count - k * CHUNK))]
    facts = facts_of(scenes, [training_caption(scene, rng) for scene in scenes])
    return [getattr(facts, field.name).numpy() for field in fields(facts)]


def draw(count: int, *, seed: int, held_out: bool, mapped: Callable[..., Iterable] = map) -> Facts:
    """Draw scenes with their training captions; the same for any number of processes."""
    chunks = list(mapped(partial(_drawn, count=count, seed=seed, held_out=held_out), range(-(-count // CHUNK))))
    return Facts(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*chunks, strict=True)))


def batch(facts: Facts, image: Tensor | None) -> Batch:
    """Return what the judge and the text encoder learn from, on the facts' device; captions stay out, as ids serve the networks."""
    n, nouns, colours = len(facts), len(NOUNS), len(COLOURS)
    slots = torch.arange(MAX_OBJECTS, device=facts.noun.device)
    noun = torch.where(slots < facts.count[:, None], facts.noun.long(), nouns)  # a column too many for those that are absent, cut below
    painted = noun * (colours + 1) + torch.where(facts.colour < 0, colours, facts.colour.long())
    new = partial(torch.zeros, device=noun.device)
    return Batch(
        image, (),
        nouns=new(n, nouns + 1).scatter_(1, noun, 1.0)[:, :-1],
        place=facts.place.long(), time=facts.time.long(), style=facts.style.long(), count=facts.count.long() - 1,
        colours=new(n, (nouns + 1) * (colours + 1)).scatter_(1, painted, 1.0).view(n, nouns + 1, -1)[:, :-1, :-1],
        side=(new(n, nouns + 1) - 1).scatter_(1, noun, facts.right.float())[:, :-1],
    )  # fmt: skip
