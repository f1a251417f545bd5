"""Scenes in words: several templates, synonyms and word orders, so that a model trained on captions meets free text."""

from itertools import groupby

import numpy as np

from unitune.scenes.scene import Object, Scene, relation
from unitune.scenes.vocabulary import COUNTS, NOUNS, PLACES, RELATIONS, STYLES, TIMES, article, plural

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _pick(rng: np.random.Generator | None, options: tuple[str, ...]) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def _group(thing: Object, count: int, rng: np.random.Generator | None) -> str:
    """Name so many objects of one kind and colour: "a red car", "three cats"."""
    noun = _pick(rng, (thing.noun, thing.noun, *NOUNS[thing.noun][1]))
    words = f"{thing.colour} {noun if count == 1 else plural(noun)}".strip()
    return f"{article(words) if count == 1 else COUNTS[count]} {words}"


def _objects(scene: Scene, rng: np.random.Generator | None, *, related: bool) -> str:
    """Name all objects in their order (sometimes reversed, with `rng`), or the two of a pair by how they stand."""
    kinds = [list(things) for _, things in groupby(scene.objects, key=lambda o: (o.noun, o.colour))]
    names = [_group(things[0], len(things), rng) for things in kinds]
    how = relation(*scene.objects) if len(names) == len(scene.objects) == 2 else ""
    if how and (related or how == "behind"):
        forth, back = RELATIONS[how]
        if rng is None or rng.random() < 0.5:
            return f"{names[0]} {_pick(rng, forth)} {names[1]}"
        return f"{names[1]} {_pick(rng, back)} {names[0]}"
    if rng is not None and rng.random() < 0.25:
        names.reverse()
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def caption(scene: Scene, rng: np.random.Generator | None = None, *, related: bool = False) -> str:
    """Describe a scene, e.g. "a pencil sketch of a cat and a dog in the snow at night"; without `rng` in the standard words.

    `related` says where the two objects of a pair stand ("a cat left of a dog"), which is said by itself where one is behind the other.
    """
    objects = _objects(scene, rng, related=related or (rng is not None and rng.random() < 0.3))
    place, time = _pick(rng, PLACES[scene.place]), _pick(rng, TIMES[scene.time])
    before, after = STYLES[scene.style]
    if rng is None:
        return f"{before[0]}{objects} {place} {time}".strip()
    head, tail = ("", _pick(rng, after)) if rng.random() < 0.5 else (_pick(rng, before), "")
    u = rng.random()
    if u < 0.55:
        text = f"{objects} {place} {time}"
    elif u < 0.67:
        text = f"{objects} {time} {place}"
    elif u < 0.79:
        text = f"{place} {time}, {objects}" if not head else f"{objects} {place} {time}"
    elif u < 0.89:
        text = f"a scene {place} {time} with {objects}"
    elif u < 0.95:
        text = objects  # the place is left to the model
    else:
        text = " ".join(word for word in f"{objects} {place} {time}".split() if word not in ("a", "an", "the"))
    return " ".join(f"{head}{text}".split()).replace(" ,", ",") + tail


def rare_word(rng: np.random.Generator) -> str:
    """Return 4 to 9 random letters: such words stand in training captions so that a rare token means nothing before tuning."""
    return "".join(LETTERS[k] for k in rng.integers(len(LETTERS), size=int(rng.integers(4, 10))))


def training_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption as pretraining sees it: sometimes empty (for guidance), sometimes led by or only a rare word."""
    u = rng.random()
    if u < 0.10:
        return ""
    if u < 0.12:
        return rare_word(rng)
    text = caption(scene, rng)
    return f"{rare_word(rng)} {text}" if u < 0.24 else text
