"""Paper v1: prompt guidance (away from the tuning prompt instead of the empty one) is rarely needed; plain guidance is usually enough.

Command:  python run.py -m experiment=prompt_guidance && python experiments/prompt_guidance.py
Claim:    prompt guidance helps to balance fidelity and expressiveness, but plain guidance does nearly as well.
          There the tuning prompt is a rare token, here the description; a test only where the two references differ (empty_db in tunings.jsonl).
Expected: at equal weights prompt guidance strays farther from the base image; alignment hardly differs.
Minutes:  1 on two CPU cores once both images are tuned.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

CELLS = {
    f"{sampler}, weight {w}": f"sampler={sampler},weight={w}"
    for w in (2, 4)
    for sampler in ("cfg", "prompt_guidance")
}
PLAIN, AWAY = CELLS["cfg, weight 4"], CELLS["prompt_guidance, weight 4"]
CLAIMS = (
    Claim(
        "plain guidance aligns as well, less 0.05",
        Contrast("alignment", {PLAIN: 1, AWAY: -1}),
        "edit",
        above=-0.05,
    ),
    Claim(
        "prompt guidance strays farther from the base image, dB",
        Contrast("psnr", {PLAIN: 1, AWAY: -1}),
        "fidelity",
    ),
)

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows=CELLS, claims=CLAIMS)
