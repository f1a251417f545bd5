"""Says what changes between two scenes as an instruction, for editors that follow instructions."""

from collections import Counter

from unitune.scenes.scene import Object, Scene
from unitune.scenes.vocabulary import COUNTS, PLACES, article, plural

TIMES = {"day": "make it day", "sunset": "make it sunset", "night": "make it night"}
STYLES = {
    "plain": "make it a photo",
    "pencil": "make it a pencil sketch",
    "pixel": "make it pixel art",
    "sepia": "make it sepia",
}


def instruction(before: Scene, after: Scene) -> str:
    """Say what turns the first scene into the second, objects first; "" where nothing changes."""
    parts = _objects(before, after)
    if before.place != after.place:
        several = len(after.objects) > 1
        parts.append(f"put {'them' if several else 'it'} {PLACES[after.place][0]}")
    if before.time != after.time:
        parts.append(TIMES[after.time])
    if before.style != after.style:
        parts.append(STYLES[after.style])
    return " and ".join(parts)


def _objects(before: Scene, after: Scene) -> list[str]:
    was, now = _kinds(before), _kinds(after)
    if len(was) == len(now) == 1 and was.keys() == now.keys() and was != now:
        (noun, count), old, thing = *now.items(), before.objects[0], after.objects[0]
        colour = thing.colour if thing.colour != old.colour else ""
        what = f"{colour} {plural(noun) if count > 1 else noun}".strip()
        return [f"show {COUNTS[count]} {what}" if count > 1 else f"show one {what} only"]
    gone, new = list((was - now).elements()), list((now - was).elements())
    parts = []
    for noun in new:
        thing = next(o for o in after.objects if o.noun == noun)
        if gone:
            old = next(o for o in before.objects if o.noun == gone[0])
            parts.append(f"replace the {_named(old)} with {_one(thing)}")
            gone.pop(0)
        else:
            parts.append(f"add {_one(thing)}")
    parts += [f"remove the {noun}" for noun in gone]
    stood = [(o.noun, o.x) for o in _row(before)]
    if not parts and len(after.objects) == 2 and stood != [(o.noun, o.x) for o in _row(after)]:
        first, second = _row(after)
        parts.append(f"put the {first.noun} left of the {second.noun}")
    for noun in was.keys() & now.keys():
        old, thing = (next(o for o in s.objects if o.noun == noun) for s in (before, after))
        if thing.colour and thing.colour != old.colour:
            many = now[noun] > 1
            parts.append(f"make the {plural(noun) if many else noun} {thing.colour}")
    return parts


def _kinds(scene: Scene) -> Counter[str]:
    return Counter(o.noun for o in scene.objects)


def _row(scene: Scene) -> list[Object]:
    return sorted(scene.objects, key=lambda o: o.x)


def _named(thing: Object) -> str:
    return f"{thing.colour} {thing.noun}".strip()


def _one(thing: Object) -> str:
    words = _named(thing)
    return f"{article(words)} {words}"
