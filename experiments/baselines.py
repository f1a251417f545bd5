"""The comparison of six images: UniTune, SDEdit, DreamBooth, Textual Inversion and Imagic, both stages tuned, four seeds, each with its published sampler.

Command:  python run.py -m experiment=baselines && python run.py -m experiment=baselines_late_start && python experiments/baselines.py --images 6
          (the first is budget=equal method=unitune,untuned,dreambooth,textual_inversion,imagic benchmark=scenes benchmark.limit=6 in a folder that is found again)
Claim:    as of methods.py, which tunes the 64 px stage alone and draws one sample of an edit.
Expected: as there.
Minutes:  60 planned on two CPU cores with AVX-512; without, 155: 110 of tuning with a process on each core, 46 of sampling with both. Imagic tunes for each of
          the 18 edits, DreamBooth's batches are twice as large.
"""

from pathlib import Path

from claims import COSTS, answer
from methods import CLAIMS, ROWS

if __name__ == "__main__":
    answer(__doc__, name=Path(__file__).stem, rows=ROWS, claims=CLAIMS, costs=COSTS)
