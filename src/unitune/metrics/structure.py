"""Structure distance (Splice, arXiv 2201.00424; PIE-Bench, arXiv 2310.01506).

The self-similarity of a picture is the matrix of cosines between the keys of its tokens (class
token included, heads joined) in the last layer of DINO ViT-B/8 at 224 px; the distance of two
pictures is the mean squared difference of their matrices.
"""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from transformers import ViTModel

from unitune.metrics import weights
from unitune.metrics.batches import Features, paired, resized
from unitune.metrics.card import card
from unitune.models import structure
from unitune.types import Edit, Refused, number

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on [0, 1]


@lru_cache(maxsize=2)
def load(source: str) -> ViTModel:
    """Load a DINO ViT from a local folder, the hub's cache or the hub."""
    if not Path(source).is_dir():
        otherwise = "give source= a folder that holds it, or leave the metric out"
        weights.of_hub(source, "config.json", what=f"the DINO {source}", otherwise=otherwise)
    elif not (Path(source) / "config.json").is_file():
        raise Refused(
            f"no ViT in {source}: config.json is missing; "
            "name the folder that holds it and model.safetensors"
        )
    try:
        # Nothing reads the pooled token, and files with a layer for it are as good.
        return structure.load(ViTModel, source, spare="pooler.", add_pooling_layer=False)
    except Refused:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        said = str(error).strip().splitlines()[0]
        raise Refused(f"the ViT {source} cannot be loaded: {said}") from error


class StructureDistance:
    """Structure distance of edit and base image; 0 for equal pictures.

    `white` is the value of white where ImageNet's mean is taken off: 1 as the network was trained;
    255 in PIE-Bench's own code (its evaluation/matrics_calculator.py leaves bytes as they are here,
    and in this score alone), so that its published numbers need 255. It prints them times 1000.
    """

    name = "structure"
    higher_is_better = False

    def __init__(self, source: str = "facebook/dino-vitb8", white: float = 1.0) -> None:
        if not (number(white) and white > 0):
            raise Refused(
                "white must be a number above 0, 1 (as DINO was trained) or 255 "
                f"(as PIE-Bench has it), got {white!r}"
            )
        self.vit, self.white = load(source), white
        shape = self.vit.config
        self.card = card(
            "mean squared difference of the self-similarities of keys, last layer (not times 1000)",
            backbone=f"DINO ViT {source}: width {shape.hidden_size}, "
            f"{shape.num_hidden_layers} layers, patches of {shape.patch_size} px",
            preprocessing=f"[0, {white:g}], mean and standard deviation of ImageNet",
            resize=f"antialiased bilinear to {shape.image_size} px",
            version=f"own code, transformers {version('transformers')}",
        )

    @torch.no_grad()
    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        return paired(edits, self._self_similarity, _distance)

    def _self_similarity(self, image: Tensor) -> Features:
        """Return the cosines between the last layer's keys of pictures in [-1, 1], (B, T, T)."""
        size = int(self.vit.config.image_size)  # type: ignore[arg-type]  # square in every DINO
        x = self.white * resized((image + 1) / 2, size, mode="bilinear")
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        # transformers names the projection to keys `key` or `k_proj`, by version.
        named = self.vit.named_modules()
        last = [m for name, m in named if name.rpartition(".")[2] in ("key", "k_proj")][-1]
        caught: list[Any] = []
        hook = last.register_forward_hook(lambda _, __, keys: caught.append(keys))
        try:
            self.vit(x)
        finally:
            hook.remove()
        keys = F.normalize(caught[0], dim=-1)
        return [keys @ keys.mT]


def _distance(a: Features, b: Features) -> Tensor:
    return (a[0] - b[0]).square().mean(dim=(1, 2))
