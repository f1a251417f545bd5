"""Which of the facts that a caption asks for the judge finds in its samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from unitune.scenes import Scene


def nouns_of(scene: Scene) -> set[str]:
    """Return the nouns of a scene."""
    return {thing.noun for thing in scene.objects}


def colours_of(scene: Scene) -> set[str]:
    """Return the colours that its objects are painted in."""
    return {thing.colour for thing in scene.objects} - {""}


def obeyed(scenes: Sequence[Scene], facts: Sequence[Mapping[str, Any]]) -> dict[str, list[bool]]:
    """Say for each kind of fact in which samples of these scenes the judge finds what was asked.

    `single`, `single_alone` and `pair` go over scenes of one and of two objects, `colours` over
    those with a painted object, the others over all; a kind that no scene asks for is left out.
    """
    both = list(zip(scenes, facts, strict=True))
    one = [(s, f) for s, f in both if len(s.objects) == 1]
    two = [(s, f) for s, f in both if len(s.objects) == 2]
    found = {
        "single": [nouns_of(s) <= f["nouns"] for s, f in one],
        "single_alone": [nouns_of(s) == f["nouns"] for s, f in one],
        "pair": [nouns_of(s) <= f["nouns"] for s, f in two],
        "place": [s.place == f["place"] for s, f in both],
        "time": [s.time == f["time"] for s, f in both],
        "style": [s.style == f["style"] for s, f in both],
        "colours": [colours_of(s) <= f["colours"] for s, f in both if colours_of(s)],
        "count": [len(s.objects) == f["count"] for s, f in both],
    }
    return {name: hits for name, hits in found.items() if hits}
