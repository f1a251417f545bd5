"""Trade-off of alignment against fidelity while each method's dial is turned, and the area under each front.

Command:  python run.py -m experiment=tradeoff_start (also tradeoff_weight, tradeoff_mix) && python experiments/tradeoff.py
Claim:    none of the paper's, which asks people; ours: UniTune's front covers more than SDEdit's and those of the other methods.
Expected: SDEdit reaches the alignment, UniTune the fidelity; DreamBooth and Textual Inversion keep little of the layout.
Minutes:  5 on two CPU cores after `methods`, whose tunings it shares: 20 cells.

Dials: guidance weight (UniTune, DreamBooth, Textual Inversion), start (SDEdit), mix of embeddings (Imagic), four settings each. An area lies between a method's
front and a corner: an ST-LPIPS of 1, and what a copy of the same base image has for nothing, its alignment, or a direction of 0 (a copy has none).
"""

from pathlib import Path

from areas import DIALS, METHODS, METRICS, covered, lead
from claims import SCORES, Claim, answer

OTHERS = [(label, method) for label, method in METHODS.items() if method != "unitune"]
# Neither of the edit nor of fidelity alone: an area has both, and begins at the corner of what a copy of the base has for nothing.
CLAIMS = [Claim(f"{metric}: UniTune's front covers more than {label}'s", lead(method, metric), "neither") for metric in METRICS for label, method in OTHERS]

if __name__ == "__main__":
    rows = {
        f"{label}, {dial.rpartition('.')[2]} {value}": f"method={method},{dial}={value}"
        for label, method in METHODS.items()
        for dial, values in [DIALS[method]]
        for value in values
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS, scores=SCORES | METRICS, more=covered)
