"""The one list of what is asked of a run before its model is loaded: CHECKS, in this order.

A part refuses what it cannot do in its own `check`; what depends on several parts stands here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from unitune import metrics
from unitune.diffusion.sampler import Sampler
from unitune.methods import Method
from unitune.models.parameters import Sizes
from unitune.runs.plans import Plan
from unitune.runs.selection import Selection
from unitune.storage import disk
from unitune.storage.store import check_version, contents
from unitune.tuning import make
from unitune.tuning.recipe import Recipe
from unitune.types import Example, Metric, Refused


@dataclass(frozen=True)
class Inputs:
    """What a run is given, apart from its model, of which the `sizes` are known.

    `load_metrics` is called last, because a metric takes seconds to load.
    """

    method: Method
    sampler: Sampler
    plan: Plan
    examples: Sequence[Example]
    folder: Path
    store: Path
    budget_gib: float = 20.0
    selection: Selection | None = None
    load_metrics: Callable[[], Sequence[Metric]] = tuple
    sizes: Sizes = field(default_factory=dict)
    snapshot: int | None = None
    oracle: int = 0

    @cached_property
    def metrics(self) -> Sequence[Metric]:
        """The metrics, loaded once."""
        return self.load_metrics()

    @cached_property
    def recipes(self) -> Mapping[str, Recipe]:
        """What the method makes of each example, by the example's id."""
        return {example.id: self.method.recipe(example) for example in self.examples}


def check(inputs: Inputs) -> None:
    """Refuse before a model is loaded whatever can be refused by then."""
    for one in CHECKS:
        one(inputs)


def edits(inputs: Inputs) -> None:
    """Refuse a benchmark without any edit."""
    if not any(example.requests for example in inputs.examples):
        raise Refused("the benchmark holds no edit; give one at least, or choose another")


def nouns(inputs: Inputs) -> None:
    """Refuse an image whose class nobody named, where the method needs it."""
    for example in inputs.examples:
        if inputs.recipes[example.id].needs_noun and not example.noun.strip():
            raise Refused(
                f"method={inputs.method.name} needs the class noun of every image, and none is "
                f"known of {example.id!r}: give noun=cat beside image=, or in edits.jsonl"
            )


def room(inputs: Inputs) -> None:
    """Refuse a snapshot that is not kept, and disks that are closed or too full.

    The estimate is an upper one: pictures uncompressed, the grid as large as all of them; every
    kept tuning, unless the store has some of that image and stages, up to the store's budget.
    """
    rooms = [
        make.room(recipe, inputs.sizes, at=inputs.snapshot) for recipe in inputs.recipes.values()
    ]
    kept = max((stored for stored, _ in rooms), default=0)
    working = max((beside for _, beside in rooms), default=0)
    disk.check_writable(inputs.folder, "hydra.run.dir")
    check_version(inputs.store)
    shown = new = 0
    stored, used = contents(inputs.store)
    for example in inputs.examples:
        recipe, edits = inputs.recipes[example.id], len(example.requests)
        pictures = len(inputs.plan.draws(example, 0)) + (4 + inputs.oracle) * edits
        shown += pictures * example.image.numel()
        if not recipe.makes <= stored.get(example.digest, set()):
            new += edits if recipe.per_request else 1
    budget = max(0, int(inputs.budget_gib * 2**30) - used)
    tuned = min(new * kept, budget) + working if new else 0
    disk.check_space(
        {inputs.folder: ("pictures", 2 * shown), inputs.store: ("tuned weights", tuned)}
    )


def learned_words(inputs: Inputs) -> None:
    """Refuse prompt-to-prompt with a method whose prompts hold words without a text."""
    learns = any(recipe.learns_text for recipe in inputs.recipes.values())
    if inputs.sampler.control is not None and learns:
        raise Refused(
            "prompt-to-prompt aligns the words of prompts, and "
            f"method={inputs.method.name} samples learned ones; "
            "use another sampler, or method=unitune or untuned"
        )


def masks(inputs: Inputs) -> None:
    """Refuse masks that cannot be had."""
    if inputs.sampler.mask is not None:
        inputs.sampler.mask.check(inputs.examples)


def selection(inputs: Inputs) -> None:
    """Refuse a choice among samples that are not drawn."""
    if inputs.selection is not None:
        for example in inputs.examples:
            inputs.selection.check(inputs.plan.draws(example, 0))


def scores(inputs: Inputs) -> None:
    """Refuse metrics that cannot be loaded, and requests that they could not score."""
    metrics.check(inputs.metrics, inputs.examples)


CHECKS = (edits, nouns, room, learned_words, masks, selection, scores)
