"""Which stages are tuned: the paper tunes the 64 px and the 64->256 px stage.

Command:  python run.py -m experiment=stages && python experiments/stages.py
Claim:    super-resolution must be tuned too, or the picture's details come back as another picture's.
Expected: tuning both keeps the base image best; super-resolution alone hardly moves what 64 px metrics see.
Minutes:  4 on two CPU cores: each choice of stages is a tuning of its own.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

CLAIMS = (
    Claim(
        "tuning both keeps more outside the mask than the 64 px stage alone",
        Contrast("mse_outside", {"stage=cascade": -1, "stage=base": 1}),
        "fidelity",
    ),
    Claim(
        "tuning both keeps more outside the mask than super-resolution alone",
        Contrast("mse_outside", {"stage=cascade": -1, "stage=sr256": 1}),
        "fidelity",
    ),
)

if __name__ == "__main__":
    rows = {"64 px stage": "stage=base", "64->256 px stage": "stage=sr256", "both": "stage=cascade"}
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
