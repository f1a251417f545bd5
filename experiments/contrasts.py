"""Claims: groups of records by what they have in common, contrasts of their scores, and what decides that something that is said of them holds.

A group is named as "method=unitune,local=yes": settings of the sweep's cell, the edit's `method`, `sampler`, `weight` and `start`, its `kind`, and
`local` and `composed_alike` (yes, no); "reference=copy" is one kind of reference.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from unitune.metrics.statistics import DERIVED, Interval, bounds, by_image, interval, verdict
from unitune.report.lines import asked, higher_is_better, of_edits
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

REFERENCE = "reference"
EDITING = (
    "both",
    "appear",
    "alignment",
    "direction",
    "progress",
)  # scores that say something of the edit; the others say what was kept
ABOUT = ("edit", "fidelity", "neither")


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of a metric's means in named groups, by image: {"snapshot=64": 1, "snapshot=0": -1} is what 64 steps have more than none.

    The first group is the one of which something is said, the others are its rivals. Images that a group lacks (not every image has every kind of edit)
    are left out of all.
    """

    metric: str
    terms: Mapping[str, float]

    def __call__(self, found: Sequence[Record]) -> dict[str, float]:
        """Return the sum of each image."""
        means = [by_image(group(found, name), self.metric) for name in self.terms]
        common = [image for image in means[0] if all(image in mean for mean in means)]
        return {
            image: sum(
                weight * mean[image]
                for weight, mean in zip(self.terms.values(), means, strict=True)
            )
            for image in common
        }

    @property
    def first(self) -> str:
        """The group of which something is said."""
        return next(iter(self.terms))

    def above_the_copy(self, found: Sequence[Record], images: Collection[str]) -> dict[str, float]:
        """By how much the first group is better than a copy of the base, on the same edits; a copy's direction of change is 0, as it has none."""
        own = group(found, self.first)
        ours = by_image(own, self.metric)
        copies = of_edits(group(found, "reference=copy"), set(map(asked, own)))
        theirs = (
            dict.fromkeys(ours, 0.0)
            if self.metric == "direction"
            else by_image(copies, self.metric)
        )
        return {
            image: ours[image] - theirs[image]
            for image in ours
            if image in theirs and image in images
        }

    def success(self, found: Sequence[Record]) -> dict[str, float]:
        """The edit success of each group that is no reference, over the images that all of them have."""
        means = {
            name: by_image(group(found, name), "both")
            for name in self.terms
            if REFERENCE not in name
        }
        common = set.intersection(*(set(mean) for mean in means.values()))
        if not common:
            raise Refused("no image has an edit success in all groups")
        return {
            name: math.fsum(mean[image] for image in common) / len(common)
            for name, mean in means.items()
        }


@dataclass(frozen=True)
class Claim:
    """Something that is said of the records, and the number, by image or as an interval over so many images, that it says is above `above`.

    `about` says what would make it empty. A claim about the edit must also beat a copy of the base, which edits nothing. A claim about fidelity is asked only
    where the first group succeeds as often as its rivals do: doing nothing keeps the most. "neither" is what a dial does, without praise for a setting.
    """

    says: str
    number: Contrast | Callable[[Sequence[Record]], Mapping[str, float] | tuple[Interval, int]]
    about: str
    above: float = 0.0

    def __post_init__(self) -> None:
        if self.about not in ABOUT:
            raise Refused(f"a claim is about {self.about!r}, not one of {', '.join(ABOUT)}")
        if not isinstance(self.number, Contrast):
            if self.about != "neither":
                raise Refused(
                    f"a claim about {self.about} needs a Contrast, whose first group can be held against a copy or its rivals"
                )
            return
        metric, weight = self.number.metric, self.number.terms[self.number.first]
        if metric == "psnr_target":
            raise Refused(
                "psnr_target is no evidence of editing, as a copy of the base is often the nearest; ask for progress"
            )
        if (metric in EDITING) != (self.about == "edit"):
            raise Refused(
                f"{metric} says something of {'the edit' if metric in EDITING else 'what was kept'}, and the claim is about {self.about!r}"
            )
        if (weight > 0) != higher_is_better(metric, {}):
            raise Refused(
                f"a claim's first group is the one that it praises, but {self.number.first} is named first and counts as the worse one"
            )

    def decided(self, found: Sequence[Record]) -> str:
        """Say whether it held, with the numbers behind that."""
        try:
            return f"- {self.says}: {self._decided(found)}"
        except (
            Refused
        ) as refused:  # a cell of the sweep failed, or has not run; or a rival succeeds more often
            return f"- {self.says}: **not asked** ({refused})"

    def _decided(self, found: Sequence[Record]) -> str:
        number = self.number(found)
        if not isinstance(self.number, Contrast):
            span, images = (
                (interval(number), len(number)) if isinstance(number, Mapping) else number
            )
            return (
                f"**{verdict(span, images=images, above=self.above)}** ({self._said(span, images)})"
            )
        assert isinstance(number, Mapping)
        if not number:
            raise Refused("no image is in all of its groups")
        span, images = (
            interval(number, within=bounds(self.number.metric, self.number.terms.values())),
            len(number),
        )
        result, said = verdict(span, images=images, above=self.above), self._said(span, images)
        if self.about == "fidelity":
            ours, *others = (success := self.number.success(found)).items()
            if more := next((name for name, theirs in others if theirs > ours[1] + 1e-9), None):
                raise Refused(
                    f"{ours[0]} succeeds less than {more}: {ours[1]:.3g} against {success[more]:.3g}"
                )
        if self.about == "edit":
            over = interval(
                margin := self.number.above_the_copy(found, number),
                within=bounds(self.number.metric, (1, -1)),
            )
            result = verdict(over, images=len(margin)) if result == "held" else result
            said += f"; above a copy of the base by {over}"
        if self.number.metric in DERIVED:
            said += "; edit success: " + ", ".join(
                f"{mean:.3g} of {name}" for name, mean in self.number.success(found).items()
            )
        return f"**{result}** ({said})"

    def _said(self, span: Interval, images: int) -> str:
        return f"{span}{f' against {self.above:g}' if self.above else ''}; {images} image{'s' * (images != 1)}"


def traits(record: Record) -> dict[str, str]:
    """What a record can be named by: its cell's settings and its edit's nature."""
    cell = record.run.partition("/")[2]
    said = {True: "yes", False: "no", None: ""}
    labels = {"local": said[record.local], "composed_alike": said[record.composed_alike]}
    dials = {
        "method": record.method,
        "sampler": record.sampler,
        "weight": f"{record.weight:g}",
        "start": f"{record.start:g}",
    }
    known = {REFERENCE: record.row} if record.row in REFERENCES else {}
    return {"kind": record.kind} | labels | dials | _pairs(cell) | known


def _pairs(text: str) -> dict[str, str]:
    return {
        name: value for name, _, value in (part.partition("=") for part in text.split(",") if part)
    }


def matching(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits; reference rows only by their own, "reference=copy": they have a weight and a start, too."""
    wanted = _pairs(name)
    return [
        record
        for record in found
        if wanted.items() <= traits(record).items()
        and (record.row in REFERENCES) == (REFERENCE in wanted)
    ]


def group(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits; refuse a name that no record answers to."""
    if not (taken := matching(found, name)):
        raise Refused(
            f"no record has {name}; run the sweep to its end, or look at what its cells are called"
        )
    return taken
