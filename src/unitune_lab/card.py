"""Measures trained parts on unseen compositions: python -m unitune_lab.card FOLDER.

FOLDER holds what the trainer wrote (PART/export) or the embedded models as they ship.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from unitune.errors import Refused  # noqa: E402
from unitune.metrics.judge import Judge, found, load_judge, read_facts  # noqa: E402
from unitune.scenes import caption  # noqa: E402
from unitune.scenes.suite import generate  # noqa: E402
from unitune.scenes.vocabulary import LEFT, RIGHT  # noqa: E402
from unitune.storage.files import write_whole  # noqa: E402

from unitune_lab import start  # noqa: E402
from unitune_lab.card_pictures import draw_curve, draw_samples  # noqa: E402
from unitune_lab.card_scenes import SEED, distinct, draw, leftward, picture  # noqa: E402
from unitune_lab.card_sr import sr_rows  # noqa: E402
from unitune_lab.card_text import Row, share, write  # noqa: E402
from unitune_lab.make import build, go_on  # noqa: E402
from unitune_lab.networks import tokenizer  # noqa: E402
from unitune_lab.obeyed import nouns_of, obeyed  # noqa: E402
from unitune_lab.options import read  # noqa: E402
from unitune_lab.parts.judge import answers  # noqa: E402
from unitune_lab.parts.stage import StagePart  # noqa: E402
from unitune_lab.parts.text import TextPart  # noqa: E402
from unitune_lab.records import looks  # noqa: E402
from unitune_lab.watch import sample  # noqa: E402

COUNT = 512  # prompts of one and of two objects; a quarter of groups and of pairs
BATCH = 64
SHOWN = 16  # captions whose samples the card shows
SCORING = ("judge", "clip", "clip2")  # parts whose accuracies every score names


def read_samples(stage: StagePart, judge: Judge, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Sample prompts at 64 px and let the judge read the samples."""
    stage.network.eval()
    seen: list[dict[str, Any]] = []
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        pictures = sample(stage, stage.network, part, resolution=64, seed=SEED + first)
        seen += read_facts(judge, pictures)
    return seen


def base_rows(stage: StagePart, judge: Judge, count: int) -> tuple[list[Row], dict[str, list[int]]]:
    """Measure what the judge finds in samples; also return [found, asked] by noun."""
    one = draw(count, counts=(1.0,), seed=1, wanted=distinct)
    two = draw(count, counts=(0.0, 1.0), seed=2, wanted=distinct)
    many = draw(count // 4, counts=(0.0, 1.0, 1.0), seed=3, wanted=lambda s: len(nouns_of(s)) == 1)
    seen = {
        name: read_samples(stage, judge, list(map(caption, scenes)))
        for name, scenes in {"one": one, "two": two, "many": many}.items()
    }
    told = obeyed((*one, *two), seen["one"] + seen["two"]) | {
        "count": obeyed(many, seen["many"])["count"]
    }
    rows = [share(name, hits) for name, hits in told.items()]
    nouns: dict[str, list[int]] = {}
    for scene, facts in zip(one, seen["one"], strict=True):
        entry = nouns.setdefault(scene.objects[0].noun, [0, 0])
        entry[0] += scene.objects[0].noun in facts["nouns"]
        entry[1] += 1
    return [*rows, relations(stage, judge, count // 4)], nouns


def relations(stage: StagePart, judge: Judge, count: int) -> Row:
    """Sample pairs "left of" and "right of"; count those placed as asked, of those found."""
    right: list[bool] = []
    for k, words in enumerate((LEFT[0], RIGHT[0])):
        scenes = draw(count, counts=(0.0, 1.0), seed=10 + k, wanted=leftward)
        prompts = [caption(s, related=True).replace(f" {LEFT[0]} ", f" {words} ") for s in scenes]
        for scene, facts in zip(scenes, read_samples(stage, judge, prompts), strict=True):
            first, second = (o.noun for o in scene.objects)
            if {first, second} <= facts["nouns"]:
                leads = facts["right"][second] > facts["right"][first]
                right.append(leads == (words == LEFT[0]))
    return share("relation", right)


def judge_rows(judge: Judge) -> list[Row]:
    """Let the judge read clean renders, and the exact targets of edits as they are drawn."""
    told = answers(judge, count=4 * COUNT, seed=SEED)
    edits = generate(seed=SEED, per_type=30)
    pictures = torch.cat([picture(edit.after, 64) for edit in edits])
    seen = read_facts(judge, pictures)
    hits = [found(edit.facts, facts) for edit, facts in zip(edits, seen, strict=True)]
    names = ("colours", "nouns", "place", "time", "style", "count", "side")
    rows = [share(f"judge_{name}", told[name]) for name in names]
    return [share("judge_targets", hits), *rows]


def main(arguments: Sequence[str]) -> int:
    """Measure what a folder holds and write its model card into it; return the exit code.

    Arguments: the folder and, for a trial, another number of prompts than COUNT. A part that the
    folder lacks is named and left out; judge and text encoder are needed.
    """
    try:
        if not arguments:
            raise Refused("name the folder that holds the trained parts")
        asked = arguments[1] if len(arguments) > 1 else str(COUNT)
        if not (asked.isascii() and asked.isdigit() and int(asked) > 0):
            raise Refused(f"the number of prompts must be a whole number above 0; got {asked!r}")
        measure(Path(arguments[0]), int(asked))
    except Refused as refused:
        print(f"unitune_lab.card: {refused}", file=sys.stderr)
        return 2
    return 0


def write_accuracies(folder: Path, part: str, rows: Sequence[Row]) -> None:
    """Write a part's accuracies as card.json beside its weights, which every score then names."""
    beside, prefix = start.exported(folder, part), f"{part}_"
    if beside is not None:
        mine = {r.name.removeprefix(prefix): r.value for r in rows if r.name.startswith(prefix)}
        text = json.dumps({name: round(value, 4) for name, value in mine.items()}, indent=1)
        write_whole(text + "\n", beside / "card.json")


def measure(folder: Path, count: int) -> None:
    """Measure the parts of a folder, with so many prompts of one and of two objects."""
    began = time.monotonic()
    nouns: dict[str, list[int]] = {}
    judge = load_judge(start.required(folder, "judge"))
    rows = judge_rows(judge)
    text = TextPart(tokenizer(), torch.device("cpu"))
    start.start_text(text.network, folder)
    told = text.look(text.network.eval(), 64)
    rows += [Row(name, told[name]) for name in ("rare_to_empty", "rare_to_rare")]
    for part in ("base", "sr256", "clip", "clip2"):
        if start.exported(folder, part) is None:
            print(f"{folder} holds no {part}: it is not measured", file=sys.stderr)
            continue
        trained: Any = build(part, read(part, [f"folder={folder}"]))
        go_on(part, trained, folder)
        if part == "base":
            found_rows, nouns = base_rows(trained, judge, count)
            rows += found_rows
            shown = draw(SHOWN, counts=(0.5, 0.4, 0.1), seed=30, wanted=lambda _: True)
            draw_samples(trained, shown, folder / "samples.png", seed=SEED)
        elif part == "sr256":
            rows += sr_rows(trained, max(8, count // 8))
        else:
            told = trained.answers(trained.network.eval())
            rows += [share(f"{part}_{name}", hits) for name, hits in told.items()]
    for part in SCORING:
        write_accuracies(folder, part, rows)
    if learned := looks(folder):
        draw_curve(learned, folder / "curve.png")
    minutes = (time.monotonic() - began) / 60
    write(folder, rows, nouns, count=count, minutes=minutes)
    print(json.dumps({row.name: round(row.value, 4) for row in rows}, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
