"""After the paper's split: UniTune's lead over the untuned model is larger where the edit changes much of the picture.

Command:  python run.py -m experiment=aligned && python experiments/aligned.py
Claim:    people preferred UniTune in 72 % of all pairs, 83 % of the unaligned and 60 % of the aligned ones. No people here: progress to the exact target.
          The paper calls local changes aligned: here those whose mask is under half of the picture.
Expected: more progress to the exact target inside the mask than the untuned model at the same start in both halves. SDEdit's own start is another one: see methods.py.
Minutes:  1 on two CPU cores once both images are tuned.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

NO, YES = (
    {method: f"local={local},method={method}" for method in ("unitune", "untuned")}
    for local in ("no", "yes")
)
CLAIMS = (
    Claim(
        "unaligned edits: more progress than untuned",
        Contrast("progress", {NO["unitune"]: 1, NO["untuned"]: -1}),
        "edit",
    ),
    Claim(
        "aligned edits: more progress than untuned",
        Contrast("progress", {YES["unitune"]: 1, YES["untuned"]: -1}),
        "edit",
    ),
    Claim(
        "the lead on unaligned edits is the larger",
        Contrast(
            "progress", {NO["unitune"]: 1, NO["untuned"]: -1, YES["unitune"]: -1, YES["untuned"]: 1}
        ),
        "edit",
    ),
)

if __name__ == "__main__":
    rows = {
        f"{half}, {method}": name
        for half, names in (("unaligned", NO), ("aligned", YES))
        for method, name in names.items()
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
