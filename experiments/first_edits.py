"""The first 24 edits of the scenes benchmark at 64 px: every method with the dials that were chosen for it elsewhere, beside all reference rows.

Command:  python run.py -m experiment=first_edits && python run.py -m experiment=first_edits_ceiling && python experiments/first_edits.py --images 8
Claim:    none of the paper's, which asks people; ours: within the same bound on the error outside the mask UniTune's edits succeed more often than SDEdit's.
Expected: UniTune above SDEdit in success at an error outside the mask of about 0.01; the oracle above both, a copy at 0.
Minutes:  30 on two CPU cores: 8 images are tuned once by three methods, and each edit once by Imagic.

The dials are those of experiments/search_dials.py, in conf/model/pocket.yaml. The rows of super-resolution are of 256 px, all others of 64 px.
"""

from pathlib import Path

from claims import Claim, Contrast, answer
from methods import OTHERS

from unitune.storage.records import Record

OURS, THEIRS = "method=unitune", "method=untuned"
CEILING = "through super-resolution"
CLAIMS = (
    Claim(
        "UniTune's edits succeed more often than SDEdit's",
        Contrast("both", {OURS: 1, THEIRS: -1}),
        "edit",
    ),
    Claim(
        "UniTune's edits make more progress to the exact target than SDEdit's",
        Contrast("progress", {OURS: 1, THEIRS: -1}),
        "edit",
    ),
    Claim(
        "UniTune's edits have less error outside the mask than SDEdit's",
        Contrast("mse_outside", {OURS: -1, THEIRS: 1}),
        "fidelity",
    ),
)


def of_one_size(found: list[Record]) -> list[Record]:
    """Keep of the sweep at 256 px the rows of super-resolution alone."""
    return [
        record
        for record in found
        if ("first_edits_ceiling/" in record.run) == (CEILING in record.row)
    ]


if __name__ == "__main__":
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows={"UniTune": OURS} | OTHERS,
        claims=CLAIMS,
        add=of_one_size,
    )
