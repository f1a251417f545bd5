"""Optimiser and learning rate: a rate that copies the base image for every prompt has failed, and so has one that forgets it.

Command:  python run.py -m experiment=ablation_lr && python experiments/ablation_lr.py
Claim:    the paper tunes with Adafactor at 1e-4, whose steps are relative to each tensor; ours: each optimiser needs a rate of its own.
Expected: AdamW at Adafactor's 3e-3 copies the base image and edits nothing; Adafactor at AdamW's 2.5e-4 hardly moves.
Minutes:  5 on two CPU cores: four tunings of the 64 px stage an image.
"""

from pathlib import Path

from claims import Claim, Contrast, answer


def cell(optimizer: str, lr: str) -> str:
    return f"lr={lr},optimizer={optimizer}"


CLAIMS = (
    Claim(
        "AdamW follows edits worse at 0.003 than at its own 0.00025",
        Contrast("alignment", {cell("adamw", "0.00025"): 1, cell("adamw", "0.003"): -1}),
        "edit",
    ),
    Claim(
        "Adafactor keeps the base image better at its own 0.003 than at 0.00025, dB",
        Contrast("psnr", {cell("adafactor", "0.003"): 1, cell("adafactor", "0.00025"): -1}),
        "fidelity",
    ),
)

if __name__ == "__main__":
    rows = {
        f"{optimizer} {lr}": cell(optimizer, lr)
        for optimizer in ("adamw", "adafactor")
        for lr in ("0.00025", "0.003")
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
