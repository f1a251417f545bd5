"""Paper Fig. 4: with weight 1 the picture stays with the base image whatever the edit says; strong guidance brings the edit out.

Command:  python run.py -m experiment=guidance && python experiments/guidance.py
Claim:    the edit stays in the tuned weights and appears under strong guidance (the figure grows the weight on the prompt "minion").
Expected: PSNR to the base image falls with the weight, alignment rises and then falls where the pocket model saturates.
Minutes:  1.5 on two CPU cores once both images are tuned.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

CLAIMS = (
    Claim(
        "weight 1 stays nearer to the base image than weight 8, dB",
        Contrast("psnr", {"weight=1": 1, "weight=8": -1}),
        "neither",
    ),
    Claim(
        "weight 8 follows the edit prompt better than weight 1",
        Contrast("alignment", {"weight=8": 1, "weight=1": -1}),
        "edit",
    ),
)

if __name__ == "__main__":
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows={f"weight {w}": f"weight={w}" for w in (1, 2, 4, 8, 16, 32)},
        claims=CLAIMS,
    )
