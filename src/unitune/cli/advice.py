"""What in a config will not work as hoped: learning rates, and a picture outside the model's world.

A rate counts as given where it is not the one of conf/.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

FAR_BELOW = 10  # times


def advice(settings: Any, assets: Path) -> list[str]:
    """List lines for the log; pictures in the folder `assets` belong to the model's world."""
    model, benchmark = settings["model"], settings["benchmark"]
    lines = [*_low_rates(settings), *_without_effect(settings)]
    own = benchmark["name"] in ("image", "photo")
    if own and model["note"] and not Path(benchmark["path"]).is_relative_to(assets):
        lines.append(model["note"])
    return lines


def _low_rates(settings: Any) -> Iterator[str]:
    model, optimizer = settings["model"], settings["optimizer"]["name"]
    for stage, tuning in _tuned(settings).items():
        lr, usual = tuning["lr"], _rate(settings, first=stage == model["stages"][0])
        if isinstance(lr, int | float) and 0 < lr < usual / FAR_BELOW:
            yield (
                f"lr {lr:g} of {stage} is far below the {usual:g} that conf gives {model['name']} "
                f"with {optimizer}: expect little of the tuning"
            )


def _without_effect(settings: Any) -> Iterator[str]:
    """Say of a given rate that nothing is tuned by it."""
    tuned, first = [*_tuned(settings)], settings["model"]["stages"][0]
    method = settings["method"]
    usual = {"lr": _rate(settings, first=True), "sr_lr": _rate(settings, first=False)}
    given = [name for name, rate in usual.items() if settings.get(name, rate) != rate]
    if not tuned and "embedding" in method:
        for name in given:
            yield (
                f"{name}= is the rate of weights, and method={method['name']} tunes none: "
                "set method.embedding.lr"
            )
    elif "lr" in given and tuned and first not in tuned:
        yield f"lr= is the rate of {first}, and {', '.join(tuned)} alone is tuned: set sr_lr"
    elif "sr_lr" in given and tuned == [first]:
        yield (
            f"sr_lr= is the rate of the stages above {first}, and {first} alone is tuned: set lr"
        )


def _tuned(settings: Any) -> dict[str, Any]:
    """Return how each tuned stage is tuned, of a method that says so."""
    tunings = settings["method"].get("tune", {})
    return {stage: one for stage, one in tunings.items() if stage in settings["stage"]["tuned"]}


def _rate(settings: Any, *, first: bool) -> float:
    """Return conf's rate of the first stage under this method, or of the later stages.

    Settings of earlier versions have one rate for all.
    """
    own = settings.get("dials") or {} if first else settings["model"].get("sr", {})
    rates = settings["model"]["lr"] | (own.get("lr") or {})
    return rates[settings["optimizer"]["name"]]
