"""Files of weights: safetensors and nothing else, and what their headers alone tell, which is enough to refuse a setting before any weight is loaded."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitune.errors import Refused
from unitune.models import files
from unitune.models.files import Model
from unitune.storage.disk import shown

Sizes = dict[str, dict[str, int]]  # stage -> parameter -> number of values


def sizes(model: Model) -> Sizes:
    """Count the values of every parameter of each stage's `unet`; a stage whose files are not at hand or cannot be read is left out."""
    found = {
        stage: _sizes(folder / "unet", model.variant)
        for stage, folder in files.at_hand(model).items()
    }
    return {stage: parameters for stage, parameters in found.items() if parameters}


def load(file: Path) -> dict[str, Tensor]:
    """Read a file of weights; raises Refused for what is not safetensors, such as a pickle, which could run code."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise Refused(
            f"the weights {shown(file)} cannot be read ({shown(error)}); only safetensors are read: remove or replace the file"
        ) from error


def _sizes(part: Path, variant: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for file in files.weights_files(part, variant):
        try:
            counts |= files.header(file)
        except Refused:
            return {}
    return counts
