"""The smaller scenes world that the next embedded models are trained on.

It replaces the words and shares of unitune.scenes when they ship.
"""

from unitune_lab.world.caption import caption
from unitune_lab.world.scene import Object, Scene, is_held_out, random_scene

__all__ = ["Object", "Scene", "caption", "is_held_out", "random_scene"]
