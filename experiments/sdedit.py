"""Paper v1: UniTune against SDEdit at equal starts; a column of the figure shows the mask of interpolation.

Command:  python run.py -m experiment=sdedit && python experiments/sdedit.py
Claim:    rated 1 to 5 by people, UniTune's best outputs beat SDEdit's in fidelity (3.87 against 3.54) and alignment (4.21 against 3.89).
Expected: nearer to the base image than SDEdit at the same start, more progress to the exact target; alignment no better. outputs/figures/sdedit.png shows the masks.
Minutes:  1.5 on two CPU cores once both images are tuned.
"""

from pathlib import Path

import masks
from claims import Claim, Contrast, answer

CELLS = {
    f"{label}, start {start}": f"method={method},sampler.start={start}"
    for start in ("0.8", "0.9")
    for label, method in (("UniTune", "unitune"), ("SDEdit", "untuned"))
}
OURS, THEIRS = CELLS["UniTune, start 0.9"], CELLS["SDEdit, start 0.9"]
CLAIMS = (
    Claim(
        "at start 0.9 UniTune keeps more of the base image, ST-LPIPS",
        Contrast("stlpips", {OURS: -1, THEIRS: 1}),
        "fidelity",
    ),
    Claim(
        "at start 0.9 UniTune follows the edit better",
        Contrast("alignment", {OURS: 1, THEIRS: -1}),
        "edit",
    ),
    Claim(
        "at start 0.9 UniTune makes more progress to the exact target",
        Contrast("progress", {OURS: 1, THEIRS: -1}),
        "edit",
    ),
)

if __name__ == "__main__":
    answered = answer(__doc__, name=Path(__file__).stem, rows=CELLS, claims=CLAIMS)
    if answered.folders:
        print(
            f"\nmasks: {masks.grid('sdedit', answered.found, {'SDEdit': THEIRS, 'UniTune': OURS})}"
        )
