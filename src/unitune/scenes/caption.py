"""Says scenes in words.

There are several templates, synonyms and word orders, so that a model that learns from captions
meets free text.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from unitune.scenes import scene as world
from unitune.scenes.scene import Scene, left_of
from unitune.scenes.vocabulary import (
    COUNTS,
    LEFT,
    NOUNS,
    PLACES,
    RIGHT,
    STYLES,
    TIMES,
    article,
    plural,
)


def caption(scene: Scene, rng: np.random.Generator | None = None, *, related: bool = False) -> str:
    """Describe a scene, e.g. "a pencil sketch of a cat and a dog in the snow at night".

    Without `rng` it is described in the standard words. `related` says where the two of a pair
    stand.
    """
    said = related or (rng is not None and rng.random() < 0.35)
    objects = _objects(scene, rng, related=said)
    place, time = _pick(rng, PLACES[scene.place]), _pick(rng, TIMES[scene.time])
    before, after = STYLES[scene.style]
    if rng is None:
        return f"{before[0]}{objects} {place} {time}".strip()
    first = rng.random() < 0.5
    head, tail = ("", _pick(rng, after)) if first else (_pick(rng, before), "")
    text = _ordered(objects, place, time, bool(head), rng)
    return " ".join(f"{head}{text}".split()).replace(" ,", ",") + tail


def _pick(rng: np.random.Generator | None, options: Sequence[str]) -> str:
    return options[0] if rng is None else world.pick(rng, options)


def _group(noun: str, colour: str, count: int, rng: np.random.Generator | None) -> str:
    """Name so many objects of one kind and colour: "a red car", "three cats"."""
    noun = _pick(rng, (noun, noun, *NOUNS[noun][1]))
    words = f"{colour} {noun if count == 1 else plural(noun)}".strip()
    return f"{article(words) if count == 1 else COUNTS[count]} {words}"


def _objects(scene: Scene, rng: np.random.Generator | None, *, related: bool) -> str:
    """Name all objects in their order, with `rng` sometimes in the reverse one.

    `related` names the two of a pair by how they stand.
    """
    kinds = groupby(scene.objects, key=lambda o: (o.noun, o.colour))
    names = [_group(*kind, len([*same]), rng) for kind, same in kinds]
    if related and len(names) == len(scene.objects) == 2 and left_of(*scene.objects):
        if rng is None or rng.random() < 0.5:
            return f"{names[0]} {_pick(rng, LEFT)} {names[1]}"
        return f"{names[1]} {_pick(rng, RIGHT)} {names[0]}"
    if rng is not None and rng.random() < 0.25:
        names.reverse()
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _ordered(objects: str, place: str, time: str, led: bool, rng: np.random.Generator) -> str:
    """Put objects, place and time into one of several orders; `led` by words of a style."""
    u = rng.random()
    if u < 0.55:
        return f"{objects} {place} {time}"
    if u < 0.67:
        return f"{objects} {time} {place}"
    if u < 0.79:
        return f"{objects} {place} {time}" if led else f"{place} {time}, {objects}"
    if u < 0.89:
        return f"a scene {place} {time} with {objects}"
    if u < 0.95:
        return objects  # the place is left to the model
    words = f"{objects} {place} {time}".split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
