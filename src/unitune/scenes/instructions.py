"""Says what changes between two scenes as an instruction, for editors that follow instructions."""

from collections import Counter

from unitune.scenes.scene import Object, Scene, row
from unitune.scenes.vocabulary import COUNTS, PLACES, article, plural

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
        parts.append(f"make it {after.time}")
    if before.style != after.style:
        parts.append(STYLES[after.style])
    return " and ".join(parts)


def _objects(before: Scene, after: Scene) -> list[str]:
    was, now = (Counter(o.noun for o in scene.objects) for scene in (before, after))
    if len(was) == len(now) == 1 and was.keys() == now.keys() and was != now:
        (noun, count), thing = *now.items(), after.objects[0]
        colour = thing.colour if thing.colour != before.objects[0].colour else ""
        what = f"{colour} {plural(noun) if count > 1 else noun}".strip()
        return [f"show {COUNTS[count]} {what}" if count > 1 else f"show one {what} only"]
    gone, parts = list((was - now).elements()), []
    for noun in (now - was).elements():
        words = _named(_first(after, noun))
        one = f"{article(words)} {words}"
        if gone:
            parts.append(f"replace the {_named(_first(before, gone.pop(0)))} with {one}")
        else:
            parts.append(f"add {one}")
    parts += [f"remove the {noun}" for noun in gone]
    stood, stand = ([(o.noun, o.x) for o in row(scene)] for scene in (before, after))
    if not parts and len(stand) == 2 and stood != stand:
        parts.append(f"put the {stand[0][0]} left of the {stand[1][0]}")
    for noun in was.keys() & now.keys():
        colour = _first(after, noun).colour
        if colour and colour != _first(before, noun).colour:
            parts.append(f"make the {plural(noun) if now[noun] > 1 else noun} {colour}")
    return parts


def _first(scene: Scene, noun: str) -> Object:
    return next(o for o in scene.objects if o.noun == noun)


def _named(thing: Object) -> str:
    return f"{thing.colour} {thing.noun}".strip()
