"""Paper Fig. 5: interpolation with the base image makes edits better that are composed as their base; its mask is estimated from the difference.

Command:  python run.py -m experiment=interpolation && python experiments/interpolation.py
Claim:    edits that are composed as the base image is gain in quality, so much that the authors thought of it as the default.
Expected: less error outside the mask for edits that are composed as their base, alignment within 0.05; outputs/figures/interpolation.png shows the masks.
Minutes:  1 on two CPU cores once both images are tuned.
"""

from pathlib import Path

import masks
from claims import Claim, Contrast, answer

MODE = "sampler.interpolation.mode="
OFF, ON = f"composed_alike=yes,{MODE}off", f"composed_alike=yes,{MODE}on"
CLAIMS = (
    Claim(
        "edits composed as their base have less error outside the mask",
        Contrast("mse_outside", {ON: -1, OFF: 1}),
        "fidelity",
    ),
    Claim(
        "edits composed as their base make more progress to the exact target",
        Contrast("progress", {ON: 1, OFF: -1}),
        "edit",
    ),
    Claim(
        "edits composed as their base keep their alignment, less 0.05",
        Contrast("alignment", {ON: 1, OFF: -1}),
        "edit",
        above=-0.05,
    ),
)

if __name__ == "__main__":
    rows = {
        f"{half}, {mode}": f"composed_alike={alike},{MODE}{mode}"
        for half, alike in (("composed alike", "yes"), ("not composed alike", "no"))
        for mode in ("off", "on")
    }
    answered = answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
    if answered.folders:
        print(f"\nmasks: {masks.grid('interpolation', answered.found, {'without': OFF})}")
