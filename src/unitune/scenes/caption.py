"""Scenes in words: several templates and synonyms, so that a model trained on captions meets free text."""

import numpy as np

from unitune.scenes.scene import Scene
from unitune.scenes.vocabulary import NOUNS, PLACES, STYLES, TIMES, article

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _pick(rng: np.random.Generator | None, options: tuple[str, ...]) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Describe a scene, e.g. "a pencil sketch of a cat and a dog in the snow at night"; without `rng` in the standard words."""
    words = [_pick(rng, (o.noun, o.noun, *NOUNS[o.noun][1])) for o in scene.objects]
    objects = [f"{article(w)} {w}" for w in words]
    if rng is not None and len(objects) > 1 and rng.random() < 0.25:
        objects.reverse()
    joined = " and ".join([", ".join(objects[:-1]), objects[-1]] if len(objects) > 1 else objects)
    place = _pick(rng, PLACES[scene.place])
    time = _pick(rng, TIMES[scene.time])
    before, after = STYLES[scene.style]
    style_last = rng is not None and rng.random() < 0.5
    text = f"{joined} {place} {time}".strip() if joined else f"{place} {time}".strip()
    if rng is not None and time and rng.random() < 0.2:
        text = f"{joined} {time} {place}".strip()
    return text + _pick(rng, after) if style_last else _pick(rng, before) + text


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
