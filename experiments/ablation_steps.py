"""Paper Fig. 3: sampling from the tuning prompt alone approaches the base image as tuning goes on; about 64 steps are enough.

Command:  python run.py -m experiment=ablation_steps && python experiments/ablation_steps.py
Claim:    on Imagen about 64 tuning steps reproduce the base image from the rare token without guidance. Here from the description (token=beikkpic for the token).
Expected: PSNR to the base image rises with the steps; the first 64 bring more than the next 64.
Minutes:  3 on two CPU cores, 2.5 of them the tuning of both images; the curve comes from its snapshots.
"""

from pathlib import Path

from claims import SCORES, Claim, Contrast, answer

CLAIMS = (
    Claim(
        "64 steps bring the tuning prompt's pictures nearer to the base image, dB",
        Contrast("psnr", {"snapshot=64": 1, "snapshot=0": -1}),
        "neither",
    ),
    Claim(
        "the first 64 steps bring more than the next 64, dB",
        Contrast("psnr", {"snapshot=64": 2, "snapshot=0": -1, "snapshot=128": -1}),
        "neither",
    ),
)

if __name__ == "__main__":
    rows = {f"{steps} steps": f"snapshot={steps}" for steps in (0, 16, 32, 64, 128)}
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows=rows,
        claims=CLAIMS,
        scores={name: SCORES[name] for name in ("psnr", "stlpips")},
    )
