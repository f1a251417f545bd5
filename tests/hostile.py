"""A tiny model, settings that make a run short, and a pickle that shows whether it was read."""

import json
import os
from pathlib import Path

from unitune.models import tiny

SMALL = [
    "model.resolution=32",
    "method.tune.sr256.crop=16",
    "steps=2",
    "sampler.steps=2",
    "sampler.sr.steps=2",
    "metrics=none",
    "seeds=1",
    "machine=cpu",
]
BASE = [*SMALL, "stage=base", "edit=a dog"]


class Payload:
    """Its pickle touches `hacked` when it is read carelessly."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hacked",)


def tiny_model(folder: Path) -> str:
    """The setting that chooses a tiny random model with a small vocabulary, made in a folder."""
    made = tiny.floyd(folder / "tiny")
    (made / "words.json").write_text(json.dumps(["a", "cat", "dog", "in", "the"]))
    return f"model.path={made}"
