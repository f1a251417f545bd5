"""The options of a training: a file for each part, `key=value` on the command line, checked."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from unitune.errors import Refused, number, whole

CONF = Path(__file__).parent / "conf"
PARTS = ("text", "base", "sr256", "judge", "clip", "clip2")
FOLDERS = ("start", "folder", "text", "judge")  # options that name places of one machine
KINDS = {float: "a number", int: "a whole number", str: "text", list: "a list"}


@dataclass(frozen=True)
class Phase:
    """So many samples at one resolution (px) and batch size."""

    resolution: int
    batch_size: int
    samples: int


def read(part: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Read the options of a part: its file over conf/common.yaml, then the overrides.

    Raises Refused for an unknown part, an option that the part does not have, or a value that is
    not of its kind.
    """
    if part not in PARTS:
        raise Refused(f"part must be one of {', '.join(PARTS)}; got {part!r}")
    options = _file("common") | _file(part)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise Refused(f"{override!r} is not an option; write NAME=VALUE")
        if name not in options:
            raise Refused(f"part {part} has no option {name!r}; it has: {', '.join(options)}")
        options[name] = _value(name, text, options[name])
    return options


def phases(options: Mapping[str, Any]) -> list[Phase]:
    """Return the phases of a training, in order."""
    found = []
    for phase in options["phases"]:
        names = ("resolution", "batch_size", "samples")
        given: Mapping = phase if isinstance(phase, Mapping) else {}
        values: list[Any] = [given.get(name) for name in names]
        if not all(whole(value) and value > 0 for value in values):
            raise Refused(
                f"a phase needs resolution, batch_size and samples, whole numbers above 0; "
                f"got {phase}"
            )
        found.append(Phase(*values))
    if not found:
        raise Refused("phases is empty: a training needs at least one")
    return found


def _file(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))


def _value(name: str, text: str, default: Any) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise Refused(f"{name}={text} cannot be read; write it as YAML, e.g. [1, 2]") from None
    if isinstance(value, str) and isinstance(default, float | int):
        with suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as text
    if isinstance(default, float) and whole(value):
        value = float(value)
    wanted = (str, type(None)) if default is None else (type(default),)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = KINDS[wanted[0]]
        raise Refused(f"{name} must be {kind} (its default is {default}); got {text!r}")
    most, span = (1.0, "from 0 to 1") if name in ("ema", "related") else (math.inf, "of 0 or more")
    if isinstance(value, int | float) and not (number(value) and 0 <= value <= most):
        raise Refused(f"{name} must be a finite number {span}; got {text!r}")
    return value
