"""The main table: UniTune, SDEdit, DreamBooth, Textual Inversion and Imagic on equal budgets, each with its published sampler.

UniTune has two rows: its interpolation of edits that are composed as their base reads the benchmark's label, which no other method is given.

Command:  python run.py -m experiment=methods && python run.py -m experiment=methods_late_start && python experiments/methods.py
Claim:    people preferred UniTune to SDEdit in 72 % of 93 pairs; of the others the paper prints no number, and says that Textual Inversion loses or changes details.
Expected: UniTune keeps the most of the base image; what starts from pure noise (DreamBooth, Textual Inversion) follows the prompt and loses the layout.
Minutes:  12 on two CPU cores: 512 noise draws of the image for every method, and Imagic tunes for each of the six edits.
"""

from pathlib import Path

from claims import COSTS, Claim, Contrast, answer

UNITUNE = "method=unitune,sampler=late_start"  # the row of the claims: without interpolation, which is told what is composed alike
OTHERS = {
    "SDEdit": "method=untuned",
    "DreamBooth": "method=dreambooth",
    "Textual Inversion": "method=textual_inversion",
    "Imagic": "method=imagic",
}
ROWS = {
    "UniTune, told which edits are composed alike": "method=unitune,sampler=unitune",
    "UniTune": UNITUNE,
} | OTHERS
CLAIMS = tuple(
    Claim(
        f"UniTune makes more progress to the exact target than {label}",
        Contrast("progress", {UNITUNE: 1, name: -1}),
        "edit",
    )
    for label, name in OTHERS.items()
)

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows=ROWS, claims=CLAIMS, costs=COSTS)
