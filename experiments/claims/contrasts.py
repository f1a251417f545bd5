"""Groups of records, contrasts of their scores, and what decides that something said holds.

A group is named by what its records have in common, as "method=unitune,local=yes": settings of the
sweep's cell, the edit's `method`, `sampler`, `weight` and `start`, its `kind`, and `local` and
`composed_alike` (yes, no). "reference=copy" is one kind of reference.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from unitune.metrics.statistics import DERIVED, Interval, bounds, by_image, interval, verdict
from unitune.report.groups import edit_of, higher_is_better, of_edits
from unitune.storage.records import REFERENCES, Record
from unitune.types import Refused

REFERENCE = "reference"
EDITING = ("both", "appear", "alignment", "direction", "progress")  # the others say what was kept
ABOUT = ("edit", "fidelity", "neither")
Means = dict[str, float]  # by image, or by group


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of a metric's means in named groups, by image.

    {"snapshot=64": 1, "snapshot=0": -1} is what 64 steps have more than none. The first group is
    the one that is praised, the others are its rivals. Images that a group lacks (not every image
    has every kind of edit) are left out of all.
    """

    metric: str
    terms: Mapping[str, float]

    def __call__(self, found: Sequence[Record]) -> Means:
        """Return the sum of each image."""
        means = [by_image(group(found, name), self.metric) for name in self.terms]
        weighted = list(zip(self.terms.values(), means, strict=True))
        return {
            image: sum(weight * mean[image] for weight, mean in weighted)
            for image in means[0]
            if all(image in mean for mean in means)
        }

    @property
    def first(self) -> str:
        """The group that is praised."""
        return next(iter(self.terms))

    def above_the_copy(self, found: Sequence[Record], images: Collection[str]) -> Means:
        """By how much the first group is better than a copy of the base, on the same edits."""
        own = group(found, self.first)
        ours = by_image(own, self.metric)
        copies = of_edits(group(found, "reference=copy"), set(map(edit_of, own)))
        if self.metric == "direction":  # a copy has none
            theirs = dict.fromkeys(ours, 0.0)
        else:
            theirs = by_image(copies, self.metric)
        both = [image for image in ours if image in theirs and image in images]
        return {image: ours[image] - theirs[image] for image in both}

    def success(self, found: Sequence[Record]) -> Means:
        """The edit success of each group that is no reference, over the images that all have."""
        names = [name for name in self.terms if REFERENCE not in name]
        means = {name: by_image(group(found, name), "both") for name in names}
        common = set.intersection(*(set(mean) for mean in means.values()))
        if not common:
            raise Refused("no image has an edit success in all groups")
        return {
            name: math.fsum(mean[image] for image in common) / len(common)
            for name, mean in means.items()
        }


@dataclass(frozen=True)
class Claim:
    """Something that is said of the records: that a number is above `above`.

    `number` gives it by image, or as an interval over so many images. `about` says what would make
    it empty. A claim about the edit must also beat a copy of the base, which edits nothing. One
    about fidelity is asked only where the first group succeeds as often as its rivals do: doing
    nothing keeps the most. "neither" is what a dial does, without praise for a setting.
    """

    says: str
    number: Contrast | Callable[[Sequence[Record]], Mapping[str, float] | tuple[Interval, int]]
    about: str
    above: float = 0.0

    def __post_init__(self) -> None:
        about = self.about
        if about not in ABOUT:
            raise Refused(f"a claim is about {about!r}, not one of {', '.join(ABOUT)}")
        if not isinstance(self.number, Contrast):
            if about != "neither":
                raise Refused(
                    f"a claim about {about} needs a Contrast, whose first group can be held "
                    "against a copy or its rivals"
                )
            return
        metric, first = self.number.metric, self.number.first
        if metric == "psnr_target":
            raise Refused(
                "psnr_target is no evidence of editing, as a copy of the base is often the "
                "nearest; ask for progress"
            )
        if (metric in EDITING) != (about == "edit"):
            of = "the edit" if metric in EDITING else "what was kept"
            raise Refused(f"{metric} says something of {of}, and the claim is about {about!r}")
        if (self.number.terms[first] > 0) != higher_is_better(metric, {}):
            raise Refused(
                "a claim's first group is the one that it praises, but "
                f"{first} is named first and counts as the worse one"
            )

    def decided(self, found: Sequence[Record]) -> str:
        """Say whether it held, with the numbers behind that."""
        try:
            if isinstance(self.number, Contrast):
                return f"- {self.says}: {self._contrasted(self.number, found)}"
            return f"- {self.says}: {self._measured(self.number(found))}"
        except Refused as why:  # a cell has failed or did not run, or a rival succeeds more often
            return f"- {self.says}: **not asked** ({why})"

    def _measured(self, number: Mapping[str, float] | tuple[Interval, int]) -> str:
        span, images = (interval(number), len(number)) if isinstance(number, Mapping) else number
        result = verdict(span, images=images, above=self.above)
        return f"**{result}** ({self._said(span, images)})"

    def _contrasted(self, contrast: Contrast, found: Sequence[Record]) -> str:
        number = contrast(found)
        if not number:
            raise Refused("no image is in all of its groups")
        span = interval(number, within=bounds(contrast.metric, contrast.terms.values()))
        result = verdict(span, images=len(number), above=self.above)
        said = self._said(span, len(number))
        if self.about == "fidelity":
            (name, ours), *others = contrast.success(found).items()
            for other, theirs in others:
                if theirs > ours + 1e-9:
                    raise Refused(
                        f"{name} succeeds less than {other}: {ours:.3g} against {theirs:.3g}"
                    )
        if self.about == "edit":
            margin = contrast.above_the_copy(found, number)
            over = interval(margin, within=bounds(contrast.metric, (1, -1)))
            if result == "held":
                result = verdict(over, images=len(margin))
            said += f"; above a copy of the base by {over}"
        if contrast.metric in DERIVED:
            rates = (f"{mean:.3g} of {name}" for name, mean in contrast.success(found).items())
            said += "; edit success: " + ", ".join(rates)
        return f"**{result}** ({said})"

    def _said(self, span: Interval, images: int) -> str:
        against = f" against {self.above:g}" if self.above else ""
        return f"{span}{against}; {images} image{'s' * (images != 1)}"


def traits(record: Record) -> dict[str, str]:
    """What a record can be named by: its cell's settings and its edit's nature."""
    said = {True: "yes", False: "no", None: ""}
    known = {
        "kind": record.kind,
        "local": said[record.local],
        "composed_alike": said[record.composed_alike],
        "method": record.method,
        "sampler": record.sampler,
        "weight": f"{record.weight:g}",
        "start": f"{record.start:g}",
    }
    reference = {REFERENCE: record.row} if record.row in REFERENCES else {}
    return known | _pairs(record.run.partition("/")[2]) | reference


def _pairs(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in parts}


def matching(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits.

    Reference rows only by their own, "reference=copy": they have a weight and a start, too.
    """
    wanted = _pairs(name)
    kind = [r for r in found if (r.row in REFERENCES) == (REFERENCE in wanted)]
    return [record for record in kind if wanted.items() <= traits(record).items()]


def group(found: Sequence[Record], name: str) -> list[Record]:
    """Take the records that have all of the named traits; none is refused."""
    if not (taken := matching(found, name)):
        raise Refused(
            f"no record has {name}; run the sweep to its end, or look at what its cells are called"
        )
    return taken
