"""Areas under the fronts of methods while their dials are turned: the trade-off's claims."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unitune.metrics.statistics import Interval, by_image
from unitune.report.fronts import Sweep, area, area_difference, at_an_end, sweep
from unitune.storage.records import Record
from unitune.types import Refused

from .contrasts import Claim, group, matching, traits
from .labels import SCORES

METHODS = {
    "UniTune": "unitune",
    "SDEdit": "untuned",
    "DreamBooth": "dreambooth",
    "Textual Inversion": "textual_inversion",
    "Imagic": "imagic",
}
METRICS = {name: SCORES[name] for name in ("alignment", "direction")}
# Tuning steps cost nothing: they are snapshots of one tuning.
GUIDED = {"snapshot": (32, 64, 128), "weight": (1, 2, 4, 8)}
DIALS: Mapping[str, Mapping[str, Sequence[float]]] = {  # 12 settings of each method
    "unitune": GUIDED,
    "untuned": {"start": (0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1)},
    "dreambooth": GUIDED,
    "textual_inversion": GUIDED,
    "imagic": {"sampler.text.eta": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)},
}
# Of a dial itself: start 1 is pure noise, 128 steps are the budget.
LIMITS = {"start": (0.0, 1.0), "snapshot": (0.0, 128.0), "weight": (1.0, math.inf)}
CORNER = (0.0, -1.0)


def settings_of_dials() -> dict[str, str]:
    """List the rows of the table, every setting of every method."""
    rows = {}
    for name, method in METHODS.items():
        for values in itertools.product(*DIALS[method].values()):
            setting = dict(zip(DIALS[method], values, strict=True))
            label = [name, *(f"{_short(dial)} {value}" for dial, value in setting.items())]
            cell = [f"method={method}", *(f"{dial}={value}" for dial, value in setting.items())]
            rows[", ".join(label)] = ",".join(cell)
    return rows


def larger_areas() -> tuple[Claim, ...]:
    """Claim that UniTune's front covers more than any other one.

    An area is neither of the edit nor of fidelity alone: it has both, and begins at the corner of
    what a copy of the base has for nothing.
    """
    others = [(label, method) for label, method in METHODS.items() if method != "unitune"]
    return tuple(
        Claim(
            f"{metric}: UniTune's front covers more than {label}'s", lead(method, metric), "neither"
        )
        for metric in METRICS
        for label, method in others
    )


def front(found: Sequence[Record], method: str, metric: str) -> Sweep:
    """Collect what a method reaches.

    That is a score of the edit above that of the copied base image, and ST-LPIPS to it, which is
    better when lower.
    """
    swept = sweep(
        group(found, f"method={method}"),
        x=metric,
        y="stlpips",
        dial=lambda record: setting(record, method),
        signs=(1, -1),
    )
    if metric != "alignment":
        return swept
    # Image by image: one mean for all would make their difference look certain.
    copies = by_image(group(found, "reference=copy"), metric)
    if lacking := [image for image in swept.images if image not in copies]:
        raise Refused(f"no copy of {lacking[0]} has the score {metric}")
    return replace(swept, x=swept.x - np.array([copies[image] for image in swept.images]))


def setting(record: Record, method: str) -> tuple[float, ...]:
    """The values at which the method's dials stood."""
    known = traits(record)
    for dial in DIALS[method]:
        if not known.get(dial):
            raise Refused(f"{record.run} does not say its {dial}; run the sweep of `tradeoff`")
    return tuple(float(known[dial]) for dial in DIALS[method])


def lead(method: str, metric: str) -> Callable[[Sequence[Record]], tuple[Interval, int]]:
    """Make the area of UniTune less that of another method, over the same images."""

    def number(found: Sequence[Record]) -> tuple[Interval, int]:
        ours, theirs = front(found, "unitune", metric), front(found, method, metric)
        return area_difference(ours, theirs, corner=CORNER), len(ours.images)

    return number


def covered(found: Sequence[Record]) -> str:
    """Write the areas as a table, and which dials should be turned farther.

    No claim is asked of an area alone, as none is below 0.
    """
    lines = ["|area under the front|" + "|".join(METRICS) + "|", "|---" * (1 + len(METRICS)) + "|"]
    ends: list[str] = []
    for label, method in METHODS.items():
        if not matching(found, f"method={method}"):
            continue
        fronts = {metric: front(found, method, metric) for metric in METRICS}
        areas = (str(area(swept, corner=CORNER)) for swept in fronts.values())
        lines.append("|".join(["", label, *areas, ""]))
        for metric, swept in fronts.items():
            ends += (f"\n{label}, {metric}: {told}." for told in _ends(swept, method))
    return "\n".join([*lines, *ends])


def _ends(swept: Sweep, method: str) -> Iterator[str]:
    """Tell of each dial whose value at the best setting is an end of its own range."""
    for k, dial in enumerate(DIALS[method]):
        one = replace(swept, settings=tuple(values[k] for values in swept.settings))
        limits = LIMITS.get(dial, (-math.inf, math.inf))
        if told := at_an_end(one, corner=CORNER, dial=_short(dial), limits=limits):
            yield told


def _short(dial: str) -> str:
    return dial.rpartition(".")[2]
