"""Paper Fig. 2: local edits leave the rest of the picture as it is, global edits keep what it means.

Command:  python run.py -m experiment=local_global && python experiments/local_global.py
Claim:    local edits keep faces in the background, global edits (style, place, time) keep the objects; shown on pairs of photographs.
Expected: less error outside the mask than the untuned model at the same sampler for local edits, more progress to the exact target for global ones.
Minutes:  1 on two CPU cores once both images are tuned.
"""

from pathlib import Path

from claims import Claim, Contrast, answer

LOCAL, GLOBAL = (
    {method: f"method={method},local={local}" for method in ("unitune", "untuned")}
    for local in ("yes", "no")
)
CLAIMS = (
    Claim(
        "local edits: less error outside the mask than untuned",
        Contrast("mse_outside", {LOCAL["unitune"]: -1, LOCAL["untuned"]: 1}),
        "fidelity",
    ),
    Claim(
        "global edits: more progress than untuned",
        Contrast("progress", {GLOBAL["unitune"]: 1, GLOBAL["untuned"]: -1}),
        "edit",
    ),
)

if __name__ == "__main__":
    rows = {
        f"{scope}, {method}": name
        for scope, names in (("local", LOCAL), ("global", GLOBAL))
        for method, name in names.items()
    }
    answer(__doc__, name=Path(__file__).stem, rows=rows, claims=CLAIMS)
