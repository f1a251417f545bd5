"""What follows from an edit of a scene: prompt, instruction, exact target, exact mask, facts.

Two labels are read off the pictures. An edit is `local` where less than half of the picture may
change (the split of the paper). Base and result are `composed_alike` where every object of the base
has a partner in the result with nearly the same outline, so that the two can be blended:
interpolation reads this one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from unitune.scenes.caption import caption
from unitune.scenes.instructions import instruction
from unitune.scenes.render import PIXEL, SIDE, SUPPORT, render
from unitune.scenes.scene import Object, Scene, is_pair, left_of, row
from unitune.scenes.vocabulary import STYLES, TIMES

LOOKS = ("recolour", "restyle", "background", "time")
KINDS = ("replace", "add", "remove", *LOOKS, "move", "count", "two")
SAME_OUTLINE = 0.5  # intersection over union of two outlines that count as one
Facts = dict[str, Any]
Area = Bool[np.ndarray, "256 256"]


@dataclass(frozen=True)
class SceneEdit:
    """An edit of `before` into `after`; `kind` is one of KINDS."""

    kind: str
    before: Scene
    after: Scene

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of edit {self.kind!r}; allowed: {', '.join(KINDS)}")

    @property
    def local(self) -> bool:
        """Whether less than half of the picture may change."""
        return float(self.mask().mean()) < 0.5

    @property
    def instruction(self) -> str:
        """What to do with the picture, e.g. "replace the cat with a dog and make it night"."""
        return instruction(self.before, self.after)

    @property
    def composed_alike(self) -> bool:
        """Whether the base's objects have partners of nearly the same outline in the result.

        Objects of one noun are partners first, then the others in their order.
        """
        before, after = list(self.before.objects), list(self.after.objects)
        if len(before) != len(after):
            return False
        kept = sorted((Counter(o.noun for o in before) & Counter(o.noun for o in after)).elements())
        pairs = [(_take(before, noun), _take(after, noun)) for noun in kept]
        pairs += zip(before, after, strict=True)
        return all(_overlap(a, b) >= SAME_OUTLINE for a, b in pairs)

    @property
    def prompt(self) -> str:
        """A description of the result, not an instruction.

        It says the time, the style and who stands where as far as they change.
        """
        text = caption(self.after, related="order" in self.appear)
        if self.after.time == "day" != self.before.time:
            text = f"{text} {TIMES['day'][-1]}"
        if self.after.style == "plain" != self.before.style:
            text = f"{STYLES['plain'][0][-1]}{text}"
        return text

    @property
    def appear(self) -> Facts:
        """The facts of the result that the base image lacks; a copy of the base fails on each."""
        return self._facts()[0]

    @property
    def stay(self) -> Facts:
        """The facts of the base image that the edit keeps."""
        return self._facts()[1]

    @property
    def facts(self) -> Facts:
        """What a judge must find in the result: what appears and what stays."""
        appear, stay = self._facts()
        found = {**appear, **stay}
        for name in appear.keys() & stay.keys() & {"nouns", "colours"}:
            found[name] = sorted({*appear[name], *stay[name]})
        return found

    def _facts(self) -> tuple[Facts, Facts]:
        was, now = facts(self.before), facts(self.after)
        appear, stay = {}, {}
        order = now.pop("order", None)
        if order is not None and order == was.get("order"):
            stay["order"] = order
        elif order is not None and order == _from_left(self.before)[::-1]:
            appear["order"] = order
        for name, value in now.items():
            if isinstance(value, list):
                old = was.get(name, [])
                appear[name] = [word for word in value if word not in old]
                stay[name] = [word for word in value if word in old]
            else:
                (stay if was[name] == value else appear)[name] = value
        filled = [{k: v for k, v in found.items() if v != []} for found in (appear, stay)]
        return filled[0], filled[1]

    def target(self) -> UInt8[np.ndarray, "256 256 3"]:
        """The exact answer."""
        return render(self.after)[0]

    def mask(self) -> Area:
        """What may change: outside it base and target are the same pixels.

        Every pixel may change where the time or the style changes. Else the pixels of objects that
        come, go or change may, in both pictures, and the whole background where the place changes;
        that area is grown by what the style's filter reaches.
        """
        before, after = self.before, self.after
        if (before.time, before.style) != (after.time, after.style):
            return np.ones((SIDE, SIDE), bool)
        x, seen = render(replace(before, style="plain"))
        y, seen_after = render(replace(after, style="plain"))
        area = (x != y).any(axis=2)
        for scene, other, masks in ((before, after, seen), (after, before, seen_after)):
            shown = zip(scene.objects, masks, strict=True)
            area |= _union([mask for thing, mask in shown if thing not in other.objects])
            if before.place != after.place:
                area |= ~_union(masks)
        return _grown(area, after.style)


def facts(scene: Scene) -> Facts:
    """List what a judge can find in a picture of the scene.

    There are `colours` where something is painted, and the `order` from left to right of a pair
    that stands side by side.
    """
    found: Facts = {"nouns": sorted({o.noun for o in scene.objects})}
    found |= {"place": scene.place, "time": scene.time, "style": scene.style}
    found["count"] = len(scene.objects)
    if colours := sorted({o.colour for o in scene.objects} - {""}):
        found["colours"] = colours
    if is_pair(scene) and left_of(*scene.objects):
        found["order"] = _from_left(scene)
    return found


def _from_left(scene: Scene) -> list[str]:
    return [o.noun for o in row(scene)]


def _take(objects: list[Object], noun: str) -> Object:
    return objects.pop(next(k for k, o in enumerate(objects) if o.noun == noun))


@lru_cache(maxsize=1024)
def outline(thing: Object) -> Area:
    """Return the pixels of an object that stands alone."""
    return render(Scene("meadow", "day", (thing,)))[1][0]


def _overlap(a: Object, b: Object) -> float:
    x, y = outline(replace(a, colour="")), outline(replace(b, colour=""))
    return float((x & y).sum() / max(1, (x | y).sum()))


def _union(masks: Sequence[Area]) -> Area:
    return np.any([np.zeros((SIDE, SIDE), bool), *masks], axis=0)


def _grown(area: Area, style: str) -> Area:
    """Add what a style's filter reaches from an area of the plain picture."""
    if style == "pixel":  # a block changes as a whole
        blocks = area.reshape(SIDE // PIXEL, PIXEL, SIDE // PIXEL, PIXEL).any(axis=(1, 3))
        return blocks.repeat(PIXEL, 0).repeat(PIXEL, 1)
    for _ in range(SUPPORT[style]):
        padded = np.pad(area, 1)
        area = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | area
    return area
