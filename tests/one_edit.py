"""The record of one edit, for what reads records."""

import dataclasses

from unitune.storage.records import Record

ONE = Record(
    run="a", method="unitune", sampler="cfg", model="tiny", example="cat", kind="", local=None,
    composed_alike=None, prompt="a dog", text="a dog", seed=0, weight=4.0, start=0.9, steps=8,
    image="x.png", scores={"up": 1.0}, cost={}, environment={},
)  # fmt: skip


def record(**changes: object) -> Record:
    """Return the record with some of its fields changed."""
    return dataclasses.replace(ONE, **changes)
