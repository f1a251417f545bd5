"""The model families: one module each, by conf/model's `family`.

A new one is its module and its name here, a small random folder in `models/tiny.py`, and a yaml.
"""

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitune.models.families.interface import Family

FAMILIES = ("floyd", "stable_diffusion")


@lru_cache
def family(name: str) -> "Family":
    """Return a family by name; imported when it is first asked for, as --help needs no torch."""
    return import_module(f"{__name__}.{name}").FAMILY
