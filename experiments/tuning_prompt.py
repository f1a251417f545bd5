"""Rare token against description as the tuning prompt; 64 px stage tuned.

Command:  python run.py -m experiment=tuning_prompt && python experiments/tuning_prompt.py
Claim:    tuning on a description works too; rare tokens are preferred because no description of the image is needed.
Expected: the rare token does as well as the description, within 0.5 dB to the exact target (token=random draws other letters).
Minutes:  3 on two CPU cores: a tuning of the 64 px stage for each prompt and image.
"""

from pathlib import Path

from claims import Claim, answer, contrast

CLAIMS = (
    Claim("the rare token does as well as the description, dB", contrast("psnr_target", {"token=beikkpic": 1, "token=description": -1}), above=-0.5),
    Claim("and keeps as much of the base image, less 0.05 of ST-LPIPS", contrast("stlpips", {"token=description": 1, "token=beikkpic": -1}), above=-0.05),
)

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows={f"token={token}": f"token={token}" for token in ("beikkpic", "description")}, claims=CLAIMS)
