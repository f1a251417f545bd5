"""Edits as operations on a scene: each knows its prompt, its exact target and the exact mask of what may change."""

from dataclasses import dataclass, replace

import numpy as np

from unitune.scenes.caption import caption
from unitune.scenes.render import SIDE, SUPPORT, render
from unitune.scenes.scene import Scene


@dataclass(frozen=True)
class SceneEdit:
    """An edit of `before` into `after`; `aligned`: before and after are composed alike (the paper's split)."""

    kind: str
    before: Scene
    after: Scene
    aligned: bool

    @property
    def prompt(self) -> str:
        """A description of the result, not an instruction."""
        return caption(self.after)

    def target(self) -> np.ndarray:
        """The exact answer, (256, 256, 3) uint8."""
        return render(self.after)[0]

    def mask(self) -> np.ndarray:
        """What may change, (256, 256) bool: the pixels where before and after differ, grown by the style filter's support."""
        differs = (render(self.before)[0] != self.target()).any(axis=2)
        reach = max(SUPPORT[self.before.style], SUPPORT[self.after.style])
        for _ in range(reach):
            padded = np.pad(differs, 1)
            differs = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | differs
        assert differs.shape == (SIDE, SIDE)
        return differs


def change_place(scene: Scene, place: str) -> SceneEdit:
    """Put the same objects somewhere else."""
    return SceneEdit("background", scene, replace(scene, place=place), aligned=True)


def change_time(scene: Scene, time: str) -> SceneEdit:
    """Show the same scene at another time of day."""
    return SceneEdit("time", scene, replace(scene, time=time), aligned=True)


def restyle(scene: Scene, style: str) -> SceneEdit:
    """Show the same scene in another style."""
    return SceneEdit("style", scene, replace(scene, style=style), aligned=True)


def replace_object(scene: Scene, index: int, noun: str) -> SceneEdit:
    """Put another object where one stands."""
    objects = list(scene.objects)
    objects[index] = replace(objects[index], noun=noun)
    return SceneEdit("replace", scene, replace(scene, objects=tuple(objects)), aligned=False)
