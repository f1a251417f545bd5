"""Files of weights: what tuning wrote as safetensors, networks as their libraries read them.

Their headers alone tell the sizes, which is enough to refuse a setting before any weight is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitune.errors import Refused
from unitune.models import structure, weight_files
from unitune.models.families import family
from unitune.models.files import Model
from unitune.storage.disk import shown

Sizes = dict[str, dict[str, int]]  # stage -> parameter -> number of values


def sizes(model: Model) -> Sizes:
    """Count the values of every parameter of each stage's network.

    A stage whose files are not at hand or cannot be read is left out.
    """
    found: Sizes = {}
    for stage in model.stages:
        if (folder := model.folder(stage)) is None:
            continue
        try:
            counts = weight_files.counts(folder / family(model.family).network, model.variant)
        except Refused:
            continue
        if counts:
            found[stage] = counts
    return found


def load(file: Path) -> dict[str, Tensor]:
    """Read a file of weights; raises Refused for a pickle, say, which could run code.

    The tensors lie in the file: whoever changes or loses it while they are used copies them.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise Refused(
            f"the weights {shown(file)} cannot be read ({shown(error)}); "
            "only safetensors are read: remove or replace the file"
        ) from error


def pretrained(kind: Any, part: Path, dtype: torch.dtype, variant: str) -> Any:
    """Read a folder's network, frozen, as a class of diffusers or transformers.

    Raises Refused where a tensor of the class would be left random.
    """
    weights = weight_files.find(part, variant)
    return structure.load(
        kind,
        part,
        torch_dtype=dtype,
        variant=weights.variant or None,
        use_safetensors=not weights.pickled,
        local_files_only=True,
    )


def fill(network: torch.nn.Module, values: Mapping[str, Tensor], *, file: Path, what: str) -> None:
    """Give a network all its weights; raises Refused where they are not its own."""
    try:
        network.load_state_dict(values)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise Refused(f"{file} does not hold the weights of {what}: {said[:200]}") from error
