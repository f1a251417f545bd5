"""Rare token against description as the tuning prompt; 64 px stage tuned.

Command:  python run.py -m experiment=tuning_prompt && python experiments/tuning_prompt.py
Claim:    tuning on a description works too; rare tokens are preferred because no description of the image is needed.
Expected: the description does better: on the pocket cascade a tuning on a rare token gives the image to the empty prompt too (rare_token.py, tunings.jsonl).
          That says nothing of the paper's model; token=random draws other letters.
Minutes:  3 on two CPU cores: a tuning of the 64 px stage for each prompt and image.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

CLAIMS = (
    Claim(
        "the rare token makes as much progress as the description, less 0.05",
        Contrast("progress", {"token=beikkpic": 1, "token=description": -1}),
        "edit",
        above=-0.05,
    ),
    Claim(
        "and keeps as much of the base image, less 0.05 of ST-LPIPS",
        Contrast("stlpips", {"token=beikkpic": -1, "token=description": 1}),
        "fidelity",
        above=-0.05,
    ),
)

if __name__ == "__main__":
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows={f"token={token}": f"token={token}" for token in ("beikkpic", "description")},
        claims=CLAIMS,
    )
