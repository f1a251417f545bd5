"""Paper Fig. 10: the best of many samples; chosen by a pocket CLIP, scored by another one and by the judge.

Command:  python run.py -m experiment=best_of_n seeds=64 && python experiments/best_of_n.py
Claim:    the comparison with Text2LIVE shows the best of 64 variations, chosen by hand.
Expected: alignment and edit success rise with N and flatten; what rises is what CLIP sees, progress to the exact target need not follow.
Minutes:  1.5 on two CPU cores with 8 seeds (quick), 9 with 64, once both images are tuned.
"""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from claims import Claim, Contrast, answer

from unitune.storage.records import REFERENCES, Record

CHOOSING = (
    Path(__file__).parent.parent / "src/unitune/assets/pocket/clip2"
)  # the scores' CLIP is another one
COUNTS = (1, 2, 4, 8, 16, 32, 64)
CLAIMS = (
    Claim(
        "the best of 8 follows the edit better than one sample",
        Contrast("alignment", {"N=8": 1, "N=1": -1}),
        "edit",
    ),
    Claim(
        "the best of 8 succeeds more often than one sample",
        Contrast("both", {"N=8": 1, "N=1": -1}),
        "edit",
    ),
)


def judged(found: list[Record]) -> list[Record]:
    """Add the choosing CLIP's alignment of every saved picture."""
    from masks import picture

    from unitune.metrics.clip import image_features, load_clip, text_features

    clip = load_clip(CHOOSING)
    return [
        replace(
            r,
            scores=r.scores
            | {
                "choosing": float(
                    (image_features(clip, picture(r)) * text_features(clip, [r.prompt])).sum()
                )
            },
        )
        for r in found
    ]


def chosen(found: list[Record]) -> list[Record]:
    """List the best of every N samples of an edit, their seeds in order, for each N that there are enough of; reference rows stay."""
    samples: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in found:
        if record.row == "edit":
            samples[record.example, record.prompt].append(record)
    best = [record for record in found if record.row in REFERENCES]
    for edits in samples.values():
        edits.sort(key=lambda record: record.seed)
        for n in COUNTS:
            blocks = [edits[k : k + n] for k in range(0, len(edits) - n + 1, n)]
            best += [_best(block) for block in blocks]
    return best


def _best(block: list[Record]) -> Record:
    """Choose one, which costs what all of them did."""
    one = max(block, key=lambda record: record.scores["choosing"] or 0.0)
    spent = {
        name: math.fsum(record.cost[name] for record in block)
        for name in ("seconds", "evaluations")
        if name in one.cost
    }
    return replace(one, run=f"best_of_n/N={len(block)}", cost=one.cost | spent)


if __name__ == "__main__":
    rows = {f"best of {n}": f"N={n}" for n in COUNTS}
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS, add=judged, view=chosen)
