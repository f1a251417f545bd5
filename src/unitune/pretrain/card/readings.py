"""What the judge's readings of pictures say about a model: answers by fact, nouns that fail, pairs placed as asked.

Samples and real renders are read through one function, so a share on samples stands beside the same share on renders.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unitune.pretrain.card.estimates import Row, share
from unitune.pretrain.data import sided
from unitune.scenes import Scene
from unitune.scenes.vocabulary import COLOURFUL

ONE, TWO, ALIKE, JUDGE = "base, one object", "base, two objects", "base, two to four of a kind", "judge"
WORDS = {
    "nouns": "named objects present", "exactly": "named objects present and no others", "single": "the object of one-object pictures present",
    "place": "background right", "time": "time of day right", "style": "style right", "count": "count right", "colours": "named colours present",
    "palette": "named colours and no others, of coloured styles", "side": "side right, of objects clearly left or right",
}  # fmt: skip
TARGETS: Mapping[tuple[str, str], float] = {
    (ONE, "nouns"): 0.90, (ONE, "place"): 0.97, (ONE, "style"): 0.90, (TWO, "nouns"): 0.75, (TWO, "place"): 0.97, (TWO, "style"): 0.90,
    (JUDGE, "exactly"): 0.97, (JUDGE, "single"): 0.97, (JUDGE, "place"): 0.99, (JUDGE, "style"): 0.97, (JUDGE, "count"): 0.95,
}  # fmt: skip


def readings(seen: Sequence[Mapping[str, Any]], scenes: Sequence[Scene]) -> dict[str, list[bool]]:
    """Compare what the judge read off pictures with their scenes: {fact: an answer per picture}; `single`, `colours`, `palette` and `side` only where asked."""
    right: dict[str, list[bool]] = {name: [] for name in WORDS}
    for found, scene in zip(seen, scenes, strict=True):
        nouns, colours = {o.noun for o in scene.objects}, {o.colour for o in scene.objects if o.colour}
        right["nouns"].append(nouns <= found["nouns"])
        right["exactly"].append(nouns == found["nouns"])
        right["count"].append(found["count"] == len(scene.objects))
        for name in ("place", "time", "style"):
            right[name].append(found[name] == getattr(scene, name))
        right["palette"] += [colours == found["colours"]] if scene.style in COLOURFUL else []
        right["single"] += [nouns <= found["nouns"]] if len(scene.objects) == 1 else []
        right["colours"] += [colours <= found["colours"]] if colours else []
        right["side"] += [(found["right"][o.noun] > 0) == (o.x > 0.5) for o in scene.objects if sided(o, scene)]
    return right


def fact_rows(part: str, right: Mapping[str, list[bool]], names: Sequence[str]) -> list[Row]:
    """Make the card's rows of some facts, with their targets."""
    return [share(part, WORDS[name], right[name], at_least=TARGETS.get((part, name))) for name in names]


def by_noun(right: Mapping[str, list[bool]], scenes: Sequence[Scene]) -> dict[str, list[int]]:
    """Count for each noun of one-object scenes [pictures in which it is present, pictures]."""
    counts: dict[str, list[int]] = {}
    for hit, scene in zip(right["nouns"], scenes, strict=True):
        entry = counts.setdefault(scene.objects[0].noun, [0, 0])
        entry[0], entry[1] = entry[0] + hit, entry[1] + 1
    return dict(sorted(counts.items(), key=lambda item: (item[1][0] / item[1][1], item[0])))


def ordered(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]], *, words: str) -> list[Row]:
    """Count pairs of pictures ("a X left of a Y" and "a Y left of a X") placed as asked, where the judge finds both nouns in both.

    The judge's logits of "right of the middle" are compared, so an object in the middle counts too. Blind to the order, one picture is right by a chance of
    1/2 and both at most by 1/4.
    """
    sign = 1 if words == "left of" else -1
    found, right = [], []
    for one, other, (x, y) in zip(first, second, pairs, strict=True):
        found.append({x, y} <= one["nouns"] and {x, y} <= other["nouns"])
        if found[-1]:
            right.append((sign * (one["right"][y] - one["right"][x]) > 0, sign * (other["right"][x] - other["right"][y]) > 0))
    part = f'base, "{words}" and reverse'
    return [
        share(part, "pairs with both objects in both pictures", found),
        share(part, "pictures placed as asked, of those pairs", [hit for hits in right for hit in hits], chance=0.5),
        share(part, "pairs placed as asked both times", [all(hits) for hits in right], chance=0.25),
    ]
