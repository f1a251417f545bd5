"""Does a part hold exactly the tensors of its class? Asked before any weight is read.

The libraries fill what a file lacks with random numbers and drop what it has besides; here both
are refused, save the rest of a larger model around a complete text encoder. The class is built
without memory for weights, and the libraries' own rules for the names of older files are applied.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from unitune.errors import Refused
from unitune.models import weight_files
from unitune.models.weight_files import Shape, Weights

BELONG = "config.json and the weights do not belong together: copy or download that part again"
# Names of the rest of a larger model that a text encoder is a part of: of T5 and of CLIP. (Its own
# class leaves out T5's decoder.)
OF_LARGER = ("lm_head.", "text_projection.", "visual_projection.", "vision_model.", "logit_scale")


class Difference(NamedTuple):
    """What a file lacks of its class, has besides, and has in another shape."""

    missing: Collection[str]
    unexpected: Collection[str]
    mismatched: Collection[Any] = ()  # names, or tuples that begin with one

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)


def check(
    part: Path, kind: Any, *, variant: str = "", names: Mapping[str, str] | None = None
) -> None:
    """Refuse a part whose weights are not those of the class `kind`, in one line.

    Raises Refused also for a config.json that the class cannot be built from.
    """
    if found := _found(part, kind, weight_files.find(part, variant, names)):
        raise Refused(found)


def _found(part: Path, kind: Any, weights: Weights) -> str:
    """Say in one line what is wrong, "" where nothing is."""
    shapes = weight_files.tensors(weights)
    try:
        with _quiet():
            compare = _of_transformers if _is_of_transformers(kind) else _of_diffusers
            difference, own = compare(part, kind, shapes, weights.sharded)
    except Exception as error:  # whatever a class raises that is built from a damaged config
        said = " ".join(str(error).split())[:160]
        return (
            f"{part}/config.json does not describe the class {kind.__name__} "
            f"({type(error).__name__}: {said}); copy or download that part again"
        )
    if (part / weight_files.ADAPTER).is_file():
        beside = f"{part} holds an adapter beside its weights ({weight_files.ADAPTER})"
        return f"{beside}; {weight_files.MERGE}"
    prefix = f"{getattr(kind, 'base_model_prefix', '')}."
    if len(prefix) > 1 and _under(prefix, shapes) and not _under(prefix, own):
        # transformers would strip it; but these are a part of some larger model.
        difference = Difference(own, shapes)
    return f"{part}: {explain(difference, kind.__name__)}" if difference else ""


def _under(prefix: str, names: Collection[str]) -> bool:
    return all(name.startswith(prefix) for name in names)


def explain(difference: Difference, kind: str) -> str:
    """Say what differs from a class, by its first tensor, and what to do."""
    missing, unexpected = sorted(difference.missing), sorted(difference.unexpected)
    mismatched = sorted(map(str, difference.mismatched))
    if adapters := [name for name in unexpected if weight_files.of_adapter(name)]:
        return f"an adapter was left in the weights ({adapters[0]}); {weight_files.MERGE}"
    if missing:
        first = missing[0]
        for name in unexpected:
            longer, shorter = (name, first) if len(name) > len(first) else (first, name)
            if longer.endswith(f".{shorter}"):
                prefix = longer.removesuffix(shorter)
                has = "stand under the foreign prefix" if longer == name else "lack the prefix"
                return (
                    f"its tensors {has} {prefix!r} ({name} for {first} of {kind}); "
                    "save that part again by itself"
                )
        return f"the weights lack {first}{_more(missing)} of {kind}; {BELONG}"
    if mismatched:
        first = f"{mismatched[0]}{_more(mismatched)}"
        return f"the weights do not fit its config.json at {first}; {BELONG}"
    return (
        f"the weights hold {unexpected[0]}{_more(unexpected)}, for which {kind} has no place; "
        f"{BELONG}"
    )


def _more(names: Collection[object]) -> str:
    return f" and {len(names) - 1} more tensors" if len(names) > 1 else ""


def _of_diffusers(
    part: Path, kind: Any, shapes: Mapping[str, Shape], sharded: bool
) -> tuple[Difference, Collection[str]]:
    import torch

    with torch.device("meta"):
        network = kind.from_config(weight_files.json_object(part / "config.json"))
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    held: Any = dict(shapes)
    if not sharded:  # as its from_pretrained renames the attention of older files
        held = network._fix_state_dict_keys_on_load(held)
    mismatched = [
        f"{name}: {held[name]} for {own[name]}"
        for name in own.keys() & held.keys()
        if own[name] != held[name]
    ]
    return Difference(own.keys() - held.keys(), held.keys() - own.keys(), mismatched), own


def _of_transformers(
    part: Path, kind: Any, shapes: Mapping[str, Shape], _sharded: bool
) -> tuple[Difference, Collection[str]]:
    import torch

    network, said = kind.from_pretrained(
        None,
        config=kind.config_class.from_pretrained(part, local_files_only=True),
        state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
        device_map="meta",
        ignore_mismatched_sizes=True,  # they are said here
        output_loading_info=True,
    )
    return difference(said), network.state_dict()


def load(kind: Any, source: str | Path, *, spare: str = "", **how: Any) -> Any:
    """Read a network as a class of diffusers or transformers, frozen.

    Raises Refused where a tensor of the class would stay random, or one of the file is dropped
    whose name does not begin with `spare` and that is not of a larger model (`difference`).
    """
    if _is_of_transformers(kind):
        how["ignore_mismatched_sizes"] = True  # transformers says them too, instead of failing
    network, said = kind.from_pretrained(source, output_loading_info=True, **how)
    found = difference(said)
    if spare:
        left = [name for name in found.unexpected if not name.startswith(spare)]
        found = found._replace(unexpected=left)
    if found:
        raise Refused(f"{source}: {explain(found, kind.__name__)}")
    return network.eval().requires_grad_(False)


def difference(said: Mapping[str, Any]) -> Difference:
    """Return what a library says of a loading (`output_loading_info`).

    The rest of a larger model is nothing unexpected where the class has all that it needs.
    """
    mismatched = [
        entry if isinstance(entry, str) else f"{entry[0]}: {tuple(entry[1])} for {tuple(entry[2])}"
        for entry in said["mismatched_keys"]
    ]
    # Older files hold this buffer of counted places; the classes make it anew.
    unexpected = [name for name in said["unexpected_keys"] if not name.endswith("position_ids")]
    if not (said["missing_keys"] or mismatched):
        unexpected = [name for name in unexpected if not _of_larger(name)]
    return Difference(said["missing_keys"], unexpected, mismatched)


def _of_larger(name: str) -> bool:
    return name.startswith(OF_LARGER) and not weight_files.of_adapter(name)


def _is_of_transformers(kind: Any) -> bool:
    from unitune.models.libraries import PreTrainedModel

    return issubclass(kind, PreTrainedModel)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from reporting what is refused in one line here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    for library, _ in before:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in before:
            library.set_verbosity(level)
