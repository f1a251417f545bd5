"""Names of plain data: equal data have one name, in every process and version of Python."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from unitune.errors import number


def fingerprint(data: object) -> str:
    """Name plain data by 16 hex digits.

    1 and 1.0 agree, tuples and lists, dataclasses and their fields, keys in any order. Raises
    TypeError, naming the key, for what is no plain data.
    """
    canonical = json.dumps(
        plain(data, "data"), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def plain(value: object, where: str) -> object:
    """Return plain data in its one form; raises TypeError, naming the key below `where`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        odd = [name for name in value if not isinstance(name, str)]
        if odd:
            raise TypeError(f"{where} has the key {odd[0]!r}; keys must be strings")
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and number(value):
        return int(value) if value.is_integer() else float(value)
    raise TypeError(
        f"{where} is {value!r} ({type(value).__name__}), not plain data: "
        "use strings, finite numbers, booleans, None, lists and mappings"
    )
