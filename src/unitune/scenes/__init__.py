"""A small synthetic world in which the right answer to every edit is known.

It has scenes, captions, and edits with exact targets and masks.
"""

from unitune.scenes.caption import caption
from unitune.scenes.render import render
from unitune.scenes.scene import Object, Scene, is_held_out, random_scene

__all__ = ["Object", "Scene", "caption", "is_held_out", "random_scene", "render"]
