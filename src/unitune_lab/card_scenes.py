"""The scenes of the card: unseen compositions, every noun alike, and their exact pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from unitune.scenes import Scene, random_scene
from unitune.scenes.render import render
from unitune.scenes.scene import NOUN_LIST, left_of

from unitune_lab.batches import pixels
from unitune_lab.obeyed import nouns_of

SEED = 6


def draw(count: int, *, counts: Sequence[float], seed: int, wanted: Callable) -> list[Scene]:
    """Draw scenes of unseen compositions that are wanted; `counts`: chances of 1, 2, 3 objects.

    The nouns are asked for in turn: of some of them far more compositions are held out.
    """
    rng = np.random.default_rng([SEED, seed])
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng, held_out=True, counts=counts)
        asked = NOUN_LIST[len(scenes) % len(NOUN_LIST)]
        if asked in nouns_of(scene) and wanted(scene):
            scenes.append(scene)
    return scenes


def distinct(scene: Scene) -> bool:
    """Say whether no two objects of the scene are of one kind."""
    return len(nouns_of(scene)) == len(scene.objects)


def leftward(scene: Scene) -> bool:
    """Say whether the scene is a pair of different objects, the first left of the second."""
    return distinct(scene) and left_of(*scene.objects)


def picture(scene: Scene, size: int) -> Tensor:
    """Render a scene as a picture in [-1, 1], (1, 3, S, S)."""
    drawn = torch.from_numpy(render(scene, size)[0].copy()).permute(2, 0, 1)[None]
    return pixels(drawn, torch.device("cpu"))
