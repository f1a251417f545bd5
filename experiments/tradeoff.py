"""Trade-off of alignment against fidelity while each method's dial is turned, and the area under each front.

Command:  python run.py -m experiment=tradeoff_start (also tradeoff_weight, tradeoff_mix) && python experiments/tradeoff.py
Claim:    none of the paper's, which asks people; ours: UniTune's front covers more than SDEdit's and those of the other methods.
Expected: SDEdit reaches the alignment, UniTune the fidelity; DreamBooth and Textual Inversion keep little of the layout.
Minutes:  5 on two CPU cores after `methods`, whose tunings it shares: 20 cells.

Dials: guidance weight (UniTune, DreamBooth, Textual Inversion), start (SDEdit), mix of embeddings (Imagic), four settings each. An area lies between a method's
front and a corner: an ST-LPIPS of 1, and what a copy of the same base image has for nothing, its alignment, or a direction of 0 (a copy has none).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from claims import SCORES, Claim, answer, group, matching

from unitune.records import Record
from unitune.statistics import Interval, Sweep, area, area_difference, by_image, sweep
from unitune.types import Refused

METHODS = {"UniTune": "unitune", "SDEdit": "untuned", "DreamBooth": "dreambooth", "Textual Inversion": "textual_inversion", "Imagic": "imagic"}
METRICS = {"alignment": SCORES["alignment"], "direction": "direction of change (pocket CLIP)"}
STARTS, WEIGHTS, MIXES = ("start", (0.7, 0.8, 0.9, 1)), ("weight", (1, 2, 4, 8)), ("sampler.embedding_mix", (0.25, 0.5, 0.75, 1.0))
CORNER = (0.0, -1.0)
DIALS = {"unitune": WEIGHTS, "untuned": STARTS, "dreambooth": WEIGHTS, "textual_inversion": WEIGHTS, "imagic": MIXES}


def front(found: Sequence[Record], method: str, metric: str) -> Sweep:
    """Collect what a method reaches: a score of the edit above that of the copied base image, and ST-LPIPS to it, which is better when lower."""
    swept = sweep(group(found, f"method={method}"), x=metric, y="stlpips", dial=lambda record: record.run, signs=(1, -1))
    if metric != "alignment":
        return swept
    copies = by_image(group(found, "reference=copy of the base"), metric)  # image by image: one mean for all would make their difference look certain
    if lacking := [image for image in swept.images if image not in copies]:
        raise Refused(f"no copy of {lacking[0]} has the score {metric}")
    return replace(swept, x=swept.x - np.array([copies[image] for image in swept.images]))


def lead(method: str, metric: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    """Make the area of UniTune less that of another method, over the same images."""

    def number(found: Sequence[Record]) -> tuple[Interval, int]:
        ours, theirs = front(found, "unitune", metric), front(found, method, metric)
        return area_difference(ours, theirs, corner=CORNER), len(ours.images)

    return number


def covered(found: Sequence[Record]) -> str:
    """Write the areas as a table; no claim is asked of them alone, as no area is below 0."""
    lines = ["|area under the front|" + "|".join(METRICS) + "|", "|---" * (1 + len(METRICS)) + "|"]
    for label, method in METHODS.items():
        if matching(found, f"method={method}"):
            lines.append("|".join(["", label, *(str(area(front(found, method, metric), corner=CORNER)) for metric in METRICS), ""]))
    return "\n".join(lines)


OTHERS = [(label, method) for label, method in METHODS.items() if method != "unitune"]
CLAIMS = [Claim(f"{metric}: UniTune's front covers more than {label}'s", lead(method, metric)) for metric in METRICS for label, method in OTHERS]

if __name__ == "__main__":
    rows = {
        f"{label}, {dial.rpartition('.')[2]} {value}": f"method={method},{dial}={value}"
        for label, method in METHODS.items()
        for dial, values in [DIALS[method]]
        for value in values
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS, scores=SCORES | METRICS, more=covered)
