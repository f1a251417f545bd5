"""Files of weights: safetensors and nothing else.

Their headers alone tell the sizes, which is enough to refuse a setting before any weight is loaded.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitune.errors import Refused
from unitune.models import parts
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
        counts: dict[str, int] = {}
        try:
            for file in parts.weights_files(folder / family(model.family).network, model.variant):
                counts |= parts.header(file)
        except Refused:
            continue
        if counts:
            found[stage] = counts
    return found


def load(file: Path) -> dict[str, Tensor]:
    """Read a file of weights; raises Refused for a pickle, say, which could run code."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise Refused(
            f"the weights {shown(file)} cannot be read ({shown(error)}); "
            "only safetensors are read: remove or replace the file"
        ) from error


def pretrained(kind: Any, part: Path, dtype: torch.dtype, variant: str) -> Any:
    """Read a folder's network, frozen, as a class of diffusers or transformers."""
    network = kind.from_pretrained(
        part,
        torch_dtype=dtype,
        variant=parts.held_variant(part, variant),
        use_safetensors=True,
        local_files_only=True,
    )
    return network.eval().requires_grad_(False)
