"""The best of many samples: every sample is judged by a CLIP that no score uses."""

import math
from collections import defaultdict
from dataclasses import replace

from unitune.storage.records import REFERENCES, Record

from .sweeps import ROOT

CHOOSING = ROOT / "src/unitune/assets/pocket/clip2"  # the scores' CLIP is another one
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def judged(found: list[Record]) -> list[Record]:
    """Add the choosing CLIP's alignment of every saved picture."""
    from unitune.metrics.clip import image_features, load_clip, text_features

    from .masks import picture

    clip = load_clip(CHOOSING)

    def alignment(record: Record) -> float:
        features = image_features(clip, picture(record)) * text_features(clip, [record.prompt])
        return float(features.sum())

    return [replace(r, scores=r.scores | {"choosing": alignment(r)}) for r in found]


def chosen(found: list[Record]) -> list[Record]:
    """List the best of every N samples of an edit, their seeds in order; reference rows stay."""
    samples: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in found:
        if record.row == "edit":
            samples[record.example, record.prompt].append(record)
    best = [record for record in found if record.row in REFERENCES]
    for edits in samples.values():
        edits.sort(key=lambda record: record.seed)
        for n in COUNTS:
            best += [_best(edits[k : k + n]) for k in range(0, len(edits) - n + 1, n)]
    return best


def _best(block: list[Record]) -> Record:
    """Choose one, which costs what all of them did."""
    one = max(block, key=lambda record: record.scores["choosing"] or 0.0)
    names = [name for name in ("seconds", "evaluations") if name in one.cost]
    spent = {name: math.fsum(record.cost[name] for record in block) for name in names}
    return replace(one, run=f"best_of_n/N={len(block)}", cost=one.cost | spent)
