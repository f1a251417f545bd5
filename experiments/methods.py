"""The main table: UniTune, SDEdit, DreamBooth, Textual Inversion and Imagic on equal budgets, each with its published sampler.

Command:  python run.py -m experiment=methods && python experiments/methods.py
Claim:    people preferred UniTune to SDEdit in 72 % of 93 pairs; of the others the paper prints no number, and says that Textual Inversion loses or changes details.
Expected: UniTune keeps the most of the base image; what starts from pure noise (DreamBooth, Textual Inversion) follows the prompt and loses the layout.
Minutes:  12 on two CPU cores: 512 noise draws of the image for every method, and Imagic tunes for each of the six edits.
"""

from pathlib import Path

from claims import COSTS, Claim, answer, contrast

METHODS = {"UniTune": "unitune", "SDEdit": "untuned", "DreamBooth": "dreambooth", "Textual Inversion": "textual_inversion", "Imagic": "imagic"}
CLAIMS = tuple(
    Claim(f"UniTune comes nearer to the exact target than {label}, dB", contrast("psnr_target", {"method=unitune": 1, f"method={name}": -1}))
    for label, name in METHODS.items()
    if name != "unitune"
)

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows={label: f"method={name}" for label, name in METHODS.items()}, claims=CLAIMS, costs=COSTS)
