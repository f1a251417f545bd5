"""Methods compared image by image, where they were given the same images, seeds and settings."""

from collections.abc import Mapping, Sequence

from unitune.metrics.statistics import FEWEST, bounds, by_image, group_by, paired
from unitune.report.groups import Cards, Group, edit_of, higher_is_better, made_by
from unitune.report.table_formats import Table
from unitune.report.tables import with_arrow
from unitune.storage.records import Record
from unitune.types import Refused

DIFFERENCES = (
    f"mean [95 % interval, from {FEWEST} images on]; two-sided p of a sign-flip and of Wilcoxon's "
    "test, not corrected for their number; share of images where the method is the better one "
    "(a tie is half)."
)


def differences(groups: Sequence[Group], *, cards: Cards) -> Table:
    """Compare each group of edits with the first one, image by image.

    Methods with unequal budgets are refused.
    """
    made = [group for group in groups if group.row == "edit"]
    if len(made) < 2:
        raise Refused("a comparison needs the edits of two methods, samplers or settings")
    first, *others = made
    every = [record for group in made for record in group.records]
    # As a whole first: of a method with more settings each group alone has an equal budget.
    check_budgets(group_by(every, made_by))
    budget = check_budgets({group.label: group.records for group in made})
    rows = tuple(
        (group.label, *(_difference(group, first, metric, cards) for metric in first.scores))
        for group in others
    )
    head = ("method", *(with_arrow(name, cards) for name in first.scores))
    notes = f"Differences to {first.label} on the same images: {DIFFERENCES}"
    return Table(head, rows, (notes, f"Equal budgets: {budget} each."))


def differences_or_why(groups: Sequence[Group], *, cards: Cards) -> tuple[Table | None, str]:
    """Return the differences, or None and the sentence that says why there are none."""
    try:
        return differences(groups, cards=cards), ""
    except Refused as why:
        return None, f"No differences are shown: {why}."


def _difference(group: Group, first: Group, metric: str, cards: Cards) -> str:
    if group.counts.get(metric) != first.counts[metric]:
        return "-"
    found = paired(
        by_image(group.records, metric),
        by_image(first.records, metric),
        higher_is_better=higher_is_better(metric, cards),
        within=bounds(metric, (1, -1)),
    )
    chance = f"p {found.sign_flip:.2g}, {found.wilcoxon:.2g}"
    return f"{found.difference}; {chance}; wins {100 * found.wins.mean:.0f} %"


def check_budgets(groups: Mapping[str, Sequence[Record]]) -> str:
    """Say what each method was given, "24 edits of 8 images, 4 seeds at 1 setting".

    Unequal amounts are refused.
    """
    (first, has), *others = ((name, _budget(records)) for name, records in groups.items())
    for name, budget in others:
        for what, ours in has.items():
            theirs = budget[what]
            if theirs != ours:
                same = " (not the same ones)" if len(ours) == len(theirs) else ""
                unequal = f"{_counted(ours, what)} against {_counted(theirs, what)}{same}"
                raise Refused(
                    f"{first} and {name} have unequal budgets: {unequal}; "
                    "run them with the same images, seeds and settings"
                )
    said = {what: _counted(value, what) for what, value in has.items()}
    return f"{said['edits']} of {said['images']}, {said['seeds']} at {said['settings']}"


def _budget(records: Sequence[Record]) -> dict[str, frozenset]:
    """A method's images and edits, and how many seeds and settings of the dials its edits had."""
    edits = group_by(records, edit_of)
    seeds = [{r.seed for r in edit} for edit in edits.values()]
    settings = [{(r.run, r.weight, r.start, r.steps) for r in edit} for edit in edits.values()]
    return {
        "images": frozenset(image for image, _ in edits),
        "edits": frozenset(edits),
        "seeds": frozenset(map(len, seeds)),
        "settings": frozenset(map(len, settings)),
    }


def _counted(value: frozenset, what: str) -> str:
    sizes = [len(value)] if what in ("images", "edits") else sorted(value)
    number = " or ".join(map(str, sizes))
    return f"{number} {what.removesuffix('s') if number == '1' else what}"
