"""Trade-off of alignment against fidelity while each method's dial is turned, and the area under each front.

Command:  python run.py -m experiment=tradeoff_start (also tradeoff_weight, tradeoff_mix) && python experiments/tradeoff.py
Claim:    none of the paper's, which asks people; ours: UniTune's front covers more than SDEdit's and those of the other methods.
Expected: SDEdit reaches the alignment, UniTune the fidelity; DreamBooth and Textual Inversion keep little of the layout.
Minutes:  5 on two CPU cores after `methods`, whose tunings it shares: 20 cells.

Dials: start (UniTune, SDEdit), guidance weight (DreamBooth, Textual Inversion), mix of embeddings (Imagic), four settings each. The area lies between a
method's front and a corner: the alignment that the untouched base image has, and an ST-LPIPS of 1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from claims import Claim, answer, contrast, group

from unitune.records import Record
from unitune.statistics import Interval, Sweep, area, area_difference, interval, sweep

METHODS = {"UniTune": "unitune", "SDEdit": "untuned", "DreamBooth": "dreambooth", "Textual Inversion": "textual_inversion", "Imagic": "imagic"}
STARTS, WEIGHTS, MIXES = ("start", (0.7, 0.8, 0.9, 1)), ("weight", (1, 2, 4, 8)), ("sampler.embedding_mix", (0.25, 0.5, 0.75, 1.0))
DIALS = {"unitune": STARTS, "untuned": STARTS, "dreambooth": WEIGHTS, "textual_inversion": WEIGHTS, "imagic": MIXES}


def front(found: Sequence[Record], method: str) -> Sweep:
    """Collect what a method reaches: alignment, and ST-LPIPS to the base image, which is better when lower."""
    return sweep(group(found, f"method={method}"), x="alignment", y="stlpips", dial=lambda record: record.run, signs=(1, -1))


def corner(found: Sequence[Record]) -> tuple[float, float]:
    return interval(contrast("alignment", {"reference=copy of the base": 1})(found)).mean, -1.0


def lead(method: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    """Make the area of UniTune less that of another method, over the same images."""

    def number(found: Sequence[Record]) -> tuple[Interval, int]:
        ours, theirs = front(found, "unitune"), front(found, method)
        return area_difference(ours, theirs, corner=corner(found)), len(ours.images)

    return number


def covered(method: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    return lambda found: (area(own := front(found, method), corner=corner(found)), len(own.images))


CLAIMS = (
    *(Claim(f"the area under {label}'s front is above 0", covered(method)) for label, method in METHODS.items()),
    *(Claim(f"UniTune's front covers more than {label}'s", lead(method)) for label, method in METHODS.items() if method != "unitune"),
)

if __name__ == "__main__":
    rows = {
        f"{label}, {dial.rpartition('.')[2]} {value}": f"method={method},{dial}={value}"
        for label, method in METHODS.items()
        for dial, values in [DIALS[method]]
        for value in values
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS, sweeps=("tradeoff_start", "tradeoff_weight", "tradeoff_mix"))
