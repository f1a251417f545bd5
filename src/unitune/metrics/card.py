"""The card of a metric: everything that must be known to compare its number with another one."""

from collections.abc import Mapping

AVERAGING = (
    "one number per edit; means with an interval: edits and seeds of an image first, then images; "
    "others: over samples; left out where there is none"
)


def card(
    what: str,
    *,
    backbone: str = "none",
    preprocessing: str,
    resize: str = "none",
    nan: str = "never",
    version: str,
    more: Mapping[str, str] | None = None,
) -> Mapping[str, str]:
    """Write a card: `nan` says when there is no number, `more` holds further or other fields."""
    fields = {
        "what": what,
        "backbone": backbone,
        "preprocessing": preprocessing,
        "resize": resize,
        "nan": nan,
        "averaging": AVERAGING,
        "version": version,
    }
    return {**fields, **(more or {})}
