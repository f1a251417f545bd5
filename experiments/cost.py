"""Cost against quality: how many tuning and sampling steps an edit needs.

Command:  python run.py -m experiment=cost && python experiments/cost.py
Claim:    the paper spends 128 tuning steps (3 minutes of a TPUv4) and 30 s an edit; ours: half of either loses little.
Expected: 16 sampling steps make as much progress to the exact target as 32, less 0.05, and 64 tuning steps as much as 128.
Minutes:  1 on two CPU cores once both images are tuned. Tuning costs are those of all 128 steps: the cells are snapshots of one tuning.
"""

from pathlib import Path

from claims import COSTS, Claim, Contrast, answer


def cell(tuning: int, sampling: int) -> str:
    return f"sampler.steps={sampling},snapshot={tuning}"


CLAIMS = (
    Claim(
        "16 sampling steps make as much progress as 32, less 0.05",
        Contrast("progress", {cell(128, 16): 1, cell(128, 32): -1}),
        "edit",
        above=-0.05,
    ),
    Claim(
        "64 tuning steps make as much progress as 128, less 0.05",
        Contrast("progress", {cell(64, 32): 1, cell(128, 32): -1}),
        "edit",
        above=-0.05,
    ),
)

if __name__ == "__main__":
    rows = {
        f"{tuning} tuning, {sampling} sampling steps": cell(tuning, sampling)
        for tuning in (64, 128)
        for sampling in (8, 16, 32)
    }
    answer(
        __doc__,
        name=Path(__file__).stem,
        rows=rows,
        claims=CLAIMS,
        costs={name: COSTS[name] for name in ("sampling s", "sampling evaluations")},
    )
