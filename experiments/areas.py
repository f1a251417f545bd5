"""Areas under the fronts of methods while their dials are turned: what tradeoff.py asks about and figures.py draws."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from claims import SCORES, group, matching, traits

from unitune.metrics.statistics import Interval, by_image
from unitune.report.fronts import Sweep, area, area_difference, at_an_end, sweep
from unitune.storage.records import Record
from unitune.types import Refused

METHODS = {
    "UniTune": "unitune",
    "SDEdit": "untuned",
    "DreamBooth": "dreambooth",
    "Textual Inversion": "textual_inversion",
    "Imagic": "imagic",
}
METRICS = {"alignment": SCORES["alignment"], "direction": "direction of change (pocket CLIP)"}
GUIDED = {
    "snapshot": (32, 64, 128),
    "weight": (1, 2, 4, 8),
}  # tuning steps cost nothing: they are snapshots of one tuning
DIALS: Mapping[str, Mapping[str, Sequence[float]]] = {  # 12 settings of each method
    "unitune": GUIDED,
    "untuned": {"start": (0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1)},
    "dreambooth": GUIDED,
    "textual_inversion": GUIDED,
    "imagic": {"sampler.text.eta": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)},
}
LIMITS = {
    "start": (0.0, 1.0),
    "snapshot": (0.0, 128.0),
    "weight": (1.0, math.inf),
}  # of a dial itself: start 1 is pure noise, 128 steps are the budget
CORNER = (0.0, -1.0)


def front(found: Sequence[Record], method: str, metric: str) -> Sweep:
    """Collect what a method reaches: a score of the edit above that of the copied base image, and ST-LPIPS to it, which is better when lower."""
    swept = sweep(
        group(found, f"method={method}"),
        x=metric,
        y="stlpips",
        dial=lambda record: setting(record, method),
        signs=(1, -1),
    )
    if metric != "alignment":
        return swept
    copies = by_image(
        group(found, "reference=copy"), metric
    )  # image by image: one mean for all would make their difference look certain
    if lacking := [image for image in swept.images if image not in copies]:
        raise Refused(f"no copy of {lacking[0]} has the score {metric}")
    return replace(swept, x=swept.x - np.array([copies[image] for image in swept.images]))


def setting(record: Record, method: str) -> tuple[float, ...]:
    """The values at which the method's dials stood."""
    known = traits(record)
    if lacking := next((dial for dial in DIALS[method] if not known.get(dial)), None):
        raise Refused(
            f"{record.run} does not say its {lacking}; run the sweep of experiments/tradeoff.py"
        )
    return tuple(float(known[dial]) for dial in DIALS[method])


def lead(method: str, metric: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    """Make the area of UniTune less that of another method, over the same images."""

    def number(found: Sequence[Record]) -> tuple[Interval, int]:
        ours, theirs = front(found, "unitune", metric), front(found, method, metric)
        return area_difference(ours, theirs, corner=CORNER), len(ours.images)

    return number


def covered(found: Sequence[Record]) -> str:
    """Write the areas as a table, and which dials should be turned farther; no claim is asked of an area alone, as none is below 0."""
    ends, lines = (
        [],
        ["|area under the front|" + "|".join(METRICS) + "|", "|---" * (1 + len(METRICS)) + "|"],
    )
    for label, method in METHODS.items():
        if matching(found, f"method={method}"):
            fronts = {metric: front(found, method, metric) for metric in METRICS}
            lines.append(
                "|".join(
                    ["", label, *(str(area(swept, corner=CORNER)) for swept in fronts.values()), ""]
                )
            )
            for metric, swept in fronts.items():
                for k, dial in enumerate(DIALS[method]):
                    one = replace(
                        swept, settings=tuple(values[k] for values in swept.settings)
                    )  # the best setting's own value of this dial
                    if told := at_an_end(
                        one,
                        corner=CORNER,
                        dial=dial.rpartition(".")[2],
                        limits=LIMITS.get(dial, (-math.inf, math.inf)),
                    ):
                        ends.append(f"\n{label}, {metric}: {told}.")
    return "\n".join([*lines, *ends])
