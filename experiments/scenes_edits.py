"""Tuned against untuned on edits whose right answer is known: what tuning on the image buys at the same sampler, prompts and seeds.

Command:  python run.py -m experiment=scenes_edits && python experiments/scenes_edits.py --images 8
Claim:    none of the paper's; ours: tuned edits keep what must stay and lose little edit success and alignment.
Expected: lower error outside the mask, more progress to the exact target, nearer to the base image.
Minutes:  about 12 on two CPU cores with AMX: eight tunings of both stages, then 24 edits with one seed for both methods.
"""

from pathlib import Path

from claims import EDITING, Claim, Contrast, answer

from unitune.scenes.edits import KINDS

SAID = {  # and which sign says so
    "both": ("succeed more often", "", 1), "alignment": ("follow the prompt better", "", 1), "progress": ("make more progress to the exact target", "", 1),
    "psnr": ("stay nearer to the base image", ", dB", 1), "stlpips": ("stay nearer to the base image", ", ST-LPIPS", -1),
    "mse_outside": ("have less error outside the mask", "", -1),
}  # fmt: skip
TUNED, UNTUNED = "method=unitune", "method=untuned"
CLAIMS = [
    Claim(
        f"tuned edits {said} than untuned ones{unit}",
        Contrast(metric, {TUNED: sign, UNTUNED: -sign}),
        "edit" if metric in EDITING else "fidelity",
    )
    for metric, (said, unit, sign) in SAID.items()
]

if __name__ == "__main__":
    rows = {"tuned": TUNED, "untuned": UNTUNED}
    rows |= {
        f"{label}, {kind}": f"{name},kind={kind}"
        for kind in KINDS
        for label, name in (("tuned", TUNED), ("untuned", UNTUNED))
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
