"""Every kind of edit as an operation on a scene."""

from dataclasses import replace
from typing import Any

from unitune.scenes.edits import SceneEdit
from unitune.scenes.scene import MAX_OBJECTS, SIZES, Object, Scene, is_pair


def _edit(kind: str, scene: Scene, **changes: Any) -> SceneEdit:
    return SceneEdit(kind, scene, replace(scene, **changes))


def replace_object(scene: Scene, index: int, noun: str) -> SceneEdit:
    """Put another object where one stands, of the same size and colour."""
    things = list(scene.objects)
    things[index] = replace(things[index], noun=noun)
    return _edit("replace", scene, objects=tuple(things))


def add_object(scene: Scene, thing: Object) -> SceneEdit:
    """Put one more object into the scene, in its place from left to right."""
    things = list(scene.objects)
    index = next((k for k, o in enumerate(things) if o.x > thing.x), len(things))
    things.insert(index, thing)
    return _edit("add", scene, objects=tuple(things))


def remove_object(scene: Scene, index: int) -> SceneEdit:
    """Take one of several objects away.

    Raises ValueError where it is the only one, for a caption needs one.
    """
    if len(scene.objects) < 2:
        raise ValueError("the only object of a scene cannot be removed")
    return _edit("remove", scene, objects=scene.objects[:index] + scene.objects[index + 1 :])


def recolour(scene: Scene, noun: str, colour: str) -> SceneEdit:
    """Paint all objects of a kind."""
    painted = tuple(replace(o, colour=colour) if o.noun == noun else o for o in scene.objects)
    return _edit("recolour", scene, objects=painted)


def restyle(scene: Scene, style: str) -> SceneEdit:
    """Show the same scene in another style."""
    return _edit("restyle", scene, style=style)


def change_place(scene: Scene, place: str) -> SceneEdit:
    """Put the same objects somewhere else."""
    return _edit("background", scene, place=place)


def change_time(scene: Scene, time: str) -> SceneEdit:
    """Show the same scene at another time of day."""
    return _edit("time", scene, time=time)


def move_left(scene: Scene, index: int) -> SceneEdit:
    """Let the two of a pair change places; ValueError where there is no pair."""
    if not is_pair(scene):
        raise ValueError("only one of two different objects can be moved")
    things = []
    for thing, x in zip(
        (scene.objects[index], scene.objects[1 - index]),
        sorted(o.x for o in scene.objects),
        strict=True,
    ):
        size = min(thing.size, SIZES[1][1])
        things.append(replace(thing, size=size, x=min(max(x, size / 2), 1 - size / 2)))
    return _edit("move", scene, objects=tuple(things))


def change_count(scene: Scene, count: int) -> SceneEdit:
    """Show so many of the one kind of object, in a row.

    Raises ValueError where there are several kinds, or for a count that no scene has.
    """
    if not 1 <= count <= MAX_OBJECTS:
        raise ValueError(f"a scene has 1 to {MAX_OBJECTS} objects, got {count}")
    kinds = {(o.noun, o.colour) for o in scene.objects}
    if len(kinds) != 1:
        raise ValueError(f"a change of count needs one kind of object, got {len(kinds)}")
    first, size = scene.objects[0], sum(SIZES[count - 1]) / 2
    things = [replace(first, x=(k + 0.5) / count, size=size) for k in range(count)]
    return _edit("count", scene, objects=tuple(things))


def both(first: SceneEdit, second: SceneEdit) -> SceneEdit:
    """Make one edit of two; ValueError where the second does not start where the first ends."""
    if first.after != second.before:
        raise ValueError("the second edit must start from the result of the first")
    return SceneEdit("two", first.before, second.after)
