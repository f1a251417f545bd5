"""The paper's ablation: tuning keeps content when much changes, a late start holds the layout, and both are needed; 0 steps is SDEdit.

Command:  python run.py -m experiment=ablation_start && python experiments/ablation_start.py
Claim:    grid of tuning steps x start on Imagen: identity comes from tuning, layout from starts below 1. With token=beikkpic 0 steps is SDEdit but for that token.
Expected: distance to the base image falls with the steps and with an earlier picture (lower start); alignment falls with both.
Minutes:  2 on two CPU cores once both images are tuned: from the snapshots of one tuning, the first edit of each image, one seed.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

STEPS, STARTS = (0, 32, 64, 128), (0.8, 0.85, 0.9, 0.95, 1.0)


def cell(steps: int, start: float) -> str:
    return f"start={start:g},snapshot={steps}"


CLAIMS = (
    Claim(
        "128 steps keep the base image at start 1, dB",
        Contrast("psnr", {cell(128, 1.0): 1, cell(0, 1.0): -1}),
        "neither",
    ),
    Claim(
        "start 0.8 holds the layout without tuning, dB",
        Contrast("psnr", {cell(0, 0.8): 1, cell(0, 1.0): -1}),
        "neither",
    ),
    Claim(
        "both together keep more outside the mask than tuning alone",
        Contrast("mse_outside", {cell(128, 0.8): -1, cell(128, 1.0): 1}),
        "fidelity",
    ),
    Claim(
        "and more than the late start alone",
        Contrast("mse_outside", {cell(128, 0.8): -1, cell(0, 0.8): 1}),
        "fidelity",
    ),
)

if __name__ == "__main__":
    rows = {
        f"{steps} steps, start {start}": cell(steps, start) for steps in STEPS for start in STARTS
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
