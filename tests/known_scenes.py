"""Scenes by hand, an edit of each kind, and the shipped benchmark, drawn once for all tests."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from unitune.benchmarks import scenes as benchmark
from unitune.scenes import Object, Scene
from unitune.scenes.changes import (
    add_object,
    both,
    change_count,
    change_place,
    change_time,
    move_left,
    recolour,
    remove_object,
    replace_object,
    restyle,
)
from unitune.scenes.edits import SceneEdit

SHIPPED = Path(benchmark.__file__).parent.parent / "assets" / "scenes"
ABOUT = json.loads((SHIPPED / "benchmark.json").read_text())

CAT, DOG = Object("cat", 0.27, 0.9, 0.4), Object("dog", 0.74, 0.85, 0.42, flip=True)
PAIR = Scene("beach", "day", (CAT, DOG), seed=3)
ONE = replace(PAIR, objects=(CAT,))


@cache
def shipped_edits() -> list[SceneEdit]:
    return benchmark.draw(seed=ABOUT["seed"], per_type=ABOUT["per_type"])[0]


def each(kind: str) -> SceneEdit:
    return {
        "replace": replace_object(PAIR, 1, "rocket"),
        "add": add_object(ONE, DOG),
        "remove": remove_object(PAIR, 1),
        "recolour": recolour(PAIR, "dog", "green"),
        "restyle": restyle(PAIR, "sepia"),
        "background": change_place(PAIR, "moon"),
        "time": change_time(PAIR, "night"),
        "move": move_left(PAIR, 1),
        "count": change_count(ONE, 3),
        "two": both(first := replace_object(PAIR, 0, "tree"), change_place(first.after, "snow")),
    }[kind]
