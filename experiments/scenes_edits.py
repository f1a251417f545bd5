"""Tuned against untuned on edits whose right answer is known: what tuning on the image buys at the same sampler, prompts and seeds.

Command:  python run.py -m experiment=scenes_edits && python experiments/scenes_edits.py --images 8
          (the kept records have sampler.guidance.weight=6, the default of their time)
Claim:    none of the paper's; ours: tuned edits keep what must stay and lose little edit success and alignment.
Expected: lower error outside the mask, nearer to the exact target and to the base image.
Minutes:  about 12 on two CPU cores with AMX: eight tunings of both stages, then 24 edits with one seed for both methods.
"""

from pathlib import Path

from claims import SCORES, Claim, answer, contrast

from unitune.scenes.edits import KINDS

SAID = {
    "success": "edits succeed more often", "alignment": "edits follow the prompt better", "mse_outside": "more error outside the mask",
    "psnr_target": "nearer to the exact target, dB", "psnr": "nearer to the base image, dB", "stlpips": "farther from the base image, ST-LPIPS",
}  # fmt: skip
TUNED, UNTUNED = "method=unitune", "method=untuned"
CLAIMS = [Claim(f"tuned less untuned: {SAID[metric]}", contrast(metric, {TUNED: 1, UNTUNED: -1})) for metric in SCORES]

if __name__ == "__main__":
    rows = {"tuned": TUNED, "untuned": UNTUNED}
    rows |= {f"{label}, {kind}": f"{name},kind={kind}" for kind in KINDS for label, name in (("tuned", TUNED), ("untuned", UNTUNED))}
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
