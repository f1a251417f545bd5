"""Trade-off of alignment against fidelity while each method's dial is turned, and the area under each front.

Command:  python run.py -m experiment=tradeoff_start (also tradeoff_weight, tradeoff_mix) && python experiments/tradeoff.py
Claim:    none of the paper's, which asks people; ours: UniTune's front covers more than SDEdit's and those of the other methods.
Expected: SDEdit reaches the alignment, UniTune the fidelity; DreamBooth and Textual Inversion keep little of the layout.
Minutes:  5 on two CPU cores after `methods`, whose tunings it shares: 20 cells.

Dials: guidance weight (UniTune, DreamBooth, Textual Inversion), start (SDEdit), mix of embeddings (Imagic), four settings each. An area lies between a method's
front and a corner that a copy of the base image reaches for nothing: its alignment, or a direction of 0 (a copy has none), and an ST-LPIPS of 1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from claims import SCORES, Claim, answer, contrast, group

from unitune.records import Record
from unitune.statistics import Interval, Sweep, area, area_difference, interval, sweep

METHODS = {"UniTune": "unitune", "SDEdit": "untuned", "DreamBooth": "dreambooth", "Textual Inversion": "textual_inversion", "Imagic": "imagic"}
METRICS = {"alignment": SCORES["alignment"], "direction": "direction of change (pocket CLIP)"}
STARTS, WEIGHTS, MIXES = ("start", (0.7, 0.8, 0.9, 1)), ("weight", (1, 2, 4, 8)), ("sampler.embedding_mix", (0.25, 0.5, 0.75, 1.0))
DIALS = {"unitune": WEIGHTS, "untuned": STARTS, "dreambooth": WEIGHTS, "textual_inversion": WEIGHTS, "imagic": MIXES}


def front(found: Sequence[Record], method: str, metric: str) -> Sweep:
    """Collect what a method reaches: a score of the edit, and ST-LPIPS to the base image, which is better when lower."""
    return sweep(group(found, f"method={method}"), x=metric, y="stlpips", dial=lambda record: record.run, signs=(1, -1))


def corner(found: Sequence[Record], metric: str) -> tuple[float, float]:
    return interval(contrast(metric, {"reference=copy of the base": 1})(found)).mean if metric == "alignment" else 0.0, -1.0


def lead(method: str, metric: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    """Make the area of UniTune less that of another method, over the same images."""

    def number(found: Sequence[Record]) -> tuple[Interval, int]:
        ours, theirs = front(found, "unitune", metric), front(found, method, metric)
        return area_difference(ours, theirs, corner=corner(found, metric)), len(ours.images)

    return number


def covered(method: str, metric: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    return lambda found: (area(own := front(found, method, metric), corner=corner(found, metric)), len(own.images))


CLAIMS = (
    *(Claim(f"{metric}: the area under {label}'s front is above 0", covered(method, metric)) for metric in METRICS for label, method in METHODS.items()),
    *(
        Claim(f"{metric}: UniTune's front covers more than {label}'s", lead(method, metric))
        for metric in METRICS
        for label, method in METHODS.items()
        if method != "unitune"
    ),
)

if __name__ == "__main__":
    rows = {
        f"{label}, {dial.rpartition('.')[2]} {value}": f"method={method},{dial}={value}"
        for label, method in METHODS.items()
        for dial, values in [DIALS[method]]
        for value in values
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS, scores=SCORES | METRICS, sweeps=("tradeoff_start", "tradeoff_weight", "tradeoff_mix"))
