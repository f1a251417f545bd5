"""Sets of images with edit prompts; a new one is one file with a class, and a yaml that names it.

Most are read through the one format of manifest.py.
"""

from typing import Protocol

from unitune.types import Example


class Benchmark(Protocol):
    """Examples to edit, of the size that a model makes."""

    @property
    def name(self) -> str:
        """What configs call it."""
        ...

    def examples(self, resolution: int) -> list[Example]:
        """Read or draw all examples at `resolution` px."""
        ...


__all__ = ["Benchmark"]
