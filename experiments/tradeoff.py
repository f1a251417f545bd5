"""Trade-off of alignment against fidelity while each method's dials are turned, and the area under each front.

Command:  python run.py -m experiment=tradeoff_start (also tradeoff_weight, tradeoff_mix) && python experiments/tradeoff.py
Claim:    none of the paper's, which asks people; ours: UniTune's front covers more than SDEdit's and those of the other methods.
Expected: SDEdit reaches the alignment, UniTune the fidelity; DreamBooth and Textual Inversion keep little of the layout.
Minutes:  15 planned on two CPU cores after `methods`, whose tunings it shares: 60 cells.

Dials: guidance weight and tuning steps (UniTune, DreamBooth, Textual Inversion), start (SDEdit), mix of embeddings (Imagic), 12 settings of each method. A dial whose
best setting is an end of its range is named below the table, to be widened. An area lies between a method's front and a corner: an ST-LPIPS of 1, and what a copy of the same base image has for nothing, its alignment, or a direction of 0 (a copy has none).
"""

import itertools
from pathlib import Path

from areas import DIALS, METHODS, METRICS, covered, lead
from claims import SCORES, Claim, answer

OTHERS = [(label, method) for label, method in METHODS.items() if method != "unitune"]
# Neither of the edit nor of fidelity alone: an area has both, and begins at the corner of what a copy of the base has for nothing.
CLAIMS = [
    Claim(f"{metric}: UniTune's front covers more than {label}'s", lead(method, metric), "neither")
    for metric in METRICS
    for label, method in OTHERS
]

if __name__ == "__main__":
    rows = {
        ", ".join(
            [
                label,
                *(
                    f"{dial.rpartition('.')[2]} {value}"
                    for dial, value in zip(DIALS[method], values, strict=True)
                ),
            ]
        ): ",".join(
            [
                f"method={method}",
                *(f"{dial}={value}" for dial, value in zip(DIALS[method], values, strict=True)),
            ]
        )
        for label, method in METHODS.items()
        for values in itertools.product(*DIALS[method].values())
    }
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows=rows,
        claims=CLAIMS,
        scores=SCORES | METRICS,
        more=covered,
    )
