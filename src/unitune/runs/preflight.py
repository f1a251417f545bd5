"""What is asked of a run before a model is loaded: everything that can be refused by then is."""

from collections.abc import Sequence
from pathlib import Path

from unitune.diffusion.sampler import Sampler
from unitune.methods import Method
from unitune.models.parameters import Sizes
from unitune.runs.plans import Plan
from unitune.runs.selection import Selection
from unitune.storage import disk
from unitune.storage.store import contents
from unitune.tuning import make
from unitune.types import Example, Refused


def check_parts(
    method: Method,
    sampler: Sampler,
    plan: Plan,
    selection: Selection | None,
    examples: Sequence[Example],
) -> None:
    """Refuse before a model is loaded parts that do not fit, masks that cannot be had, and selections among samples that are not drawn."""
    if sampler.control is not None and any(
        method.recipe(example).learns_text for example in examples
    ):
        raise Refused(
            f"prompt-to-prompt aligns the words of prompts, and method={method.name} samples learned ones; use another sampler, or method=unitune or untuned"
        )
    if sampler.mask is not None:
        sampler.mask.check(examples)
    if selection is not None:
        for example in examples:
            selection.check(plan.draws(example, 0))


def check(
    method: Method,
    plan: Plan,
    examples: Sequence[Example],
    *,
    at: int | None,
    sizes: Sizes,
    folder: Path,
    store: Path,
    budget_gib: float,
    oracle: int = 0,
) -> None:
    """Refuse before a model of these sizes is loaded what could not be tuned, and a disk that could not be written or has too little room.

    The estimate of room is an upper one: pictures uncompressed, the grid as large as all of them; every kept tuning, unless the store has some of that image
    and stages, up to the store's budget.
    """
    recipes = {example.id: method.recipe(example) for example in examples}
    if bare := next((e for e in examples if not e.noun.strip() and recipes[e.id].needs_noun), None):
        raise Refused(
            f"method={method.name} needs the class noun of every image, and none is known of {bare.id!r}: give noun=cat beside image=, or in edits.jsonl"
        )
    kept, working = (
        max(sides)
        for sides in zip(
            (0, 0), *(make.room(recipe, sizes, at=at) for recipe in recipes.values()), strict=True
        )
    )
    disk.check_writable(folder, "hydra.run.dir")
    shown = sum(
        (len(plan.draws(example, 0)) + (4 + oracle) * len(example.requests)) * example.image.numel()
        for example in examples
    )
    stored, used = contents(store)
    new = sum(
        len(example.requests) if recipes[example.id].per_request else 1
        for example in examples
        if not recipes[example.id].makes <= stored.get(example.digest, set())
    )
    tuned = min(new * kept, max(0, int(budget_gib * 2**30) - used)) + working if new else 0
    disk.check_space({folder: ("pictures", 2 * shown), store: ("tuned weights", tuned)})
