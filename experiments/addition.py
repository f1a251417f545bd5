"""Paper Fig. 6: objects are added without a mask that says where.

Command:  python run.py -m experiment=addition && python experiments/addition.py
Claim:    UniTune adds objects where they fit, without a mask.
Expected: the judge finds the added object in some edits, fewer than the untuned model adds where the exact mask says; less error outside the mask than untuned.
Minutes:  1 on two CPU cores once both images are tuned. The 40 bundled images have 12 additions, too few for a verdict; a benchmark of one's own
          (python run.py --config-name scenes per_type=24 folder=DIR) has as many as are asked for.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

ADD = {
    f"{method}, mask {mask}": f"kind=add,mask={mask},method={method}"
    for method in ("unitune", "untuned")
    for mask in ("none", "file")
}
CLAIMS = (
    Claim(
        "additions without a mask succeed now and then",
        Contrast("both", {ADD["unitune, mask none"]: 1}),
        "edit",
    ),
    Claim(
        "they follow the prompt better than the base image does",
        Contrast("alignment", {ADD["unitune, mask none"]: 1, "kind=add,reference=copy": -1}),
        "edit",
    ),
    Claim(
        "and keep the rest better than untuned",
        Contrast("mse_outside", {ADD["unitune, mask none"]: -1, ADD["untuned, mask none"]: 1}),
        "fidelity",
    ),
)

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows=ADD, claims=CLAIMS)
