"""Which parameters of the 64 px stage are tuned; the paper reports no frozen part.

Command:  python run.py -m experiment=frozen && python experiments/frozen.py
Claim:    none of the paper's; ours: tuning every weight keeps the base image best.
Expected: cross-attention alone and norms alone move little in 128 steps; freezing half of the network loses less.
Minutes:  5 on two CPU cores: five tunings of the 64 px stage an image.
"""

from pathlib import Path

from claims import COSTS, Claim, Contrast, answer

PARTS = ("none", "encoder", "decoder", "cross_attention_only", "norm_bias_only")
CLAIMS = tuple(
    Claim(
        f"all weights keep more outside the mask than freeze={part}",
        Contrast("mse_outside", {"freeze=none": -1, f"freeze={part}": 1}),
        "fidelity",
    )
    for part in PARTS[1:]
)

if __name__ == "__main__":
    rows = {f"freeze={part}": f"freeze={part}" for part in PARTS}
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows=rows,
        claims=CLAIMS,
        costs={name: COSTS[name] for name in ("tuning s", "stored MiB")},
    )
