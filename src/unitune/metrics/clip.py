"""CLIP models: the pocket CLIP and open_clip's stock models; their scores are in similarity.py.

The pocket CLIP is an open_clip model of 0.6 M parameters for the scenes world. Its folder is one
that open_clip itself loads (`open_clip.create_model("local-dir:...")`), with the tokenizer of the
pocket models beside the weights.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import T5Tokenizer

from unitune.metrics import weights
from unitune.metrics.batches import resized
from unitune.metrics.judge import CHUNK, read_card, reduced
from unitune.models import parameters
from unitune.types import Picture, Refused

SIZE = 64  # px
Colour = tuple[float, float, float]
CONTEXT = 32  # tokens; the longest caption of the scenes world has 23
WEIGHTS = "open_clip_model.safetensors"


@dataclass(frozen=True)
class Clip:
    """A model of pictures and texts, how it wants either, and what its numbers' cards say of it.

    `texts` and `pictures` keep features once computed; those of a picture go with its tensor. Make
    a new Clip when the weights change.
    """

    network: open_clip.CLIP
    tokenizer: Callable[[list[str]], Int[Tensor, "B L"]]
    prepare: Callable[[Tensor], Tensor]  # pictures in [-1, 1], (B, 3, H, W), for the network
    label: str = ""  # stands in the names of its scores; the pocket CLIP's have none
    card: Mapping[str, Any] = field(default_factory=dict)  # arguments of card.card
    texts: dict[str, Tensor] = field(default_factory=dict)
    pictures: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)


class ClipSource(Protocol):
    """Where a CLIP comes from. Metrics of equal sources share one Clip and its features."""

    def load(self) -> Clip: ...  # noqa: D102


@dataclass(frozen=True)
class PocketClip:
    """The pocket CLIP of a folder."""

    folder: str | Path

    def load(self) -> Clip:
        """Load it, once as long as the file of its weights stays the same."""
        return _pocket(Path(self.folder), weights.changed(Path(self.folder) / WEIGHTS))


@lru_cache(maxsize=4)
def _pocket(folder: Path, changed: int) -> Clip:
    return load_clip(folder)


def load_clip(folder: str | Path) -> Clip:
    """Load a saved pocket CLIP in float32; `card.json` holds its accuracy."""
    folder = Path(folder)
    file = folder / "open_clip_config.json"
    if not file.exists():
        raise Refused(
            f"no CLIP in {folder}: open_clip_config.json is missing; "
            f"name the folder that holds it and {WEIGHTS}"
        )
    network = open_clip.CLIP(**json.loads(file.read_text())["model_cfg"])
    file = folder / WEIGHTS
    parameters.fill(network, parameters.load(file), file=file, what="its open_clip_config.json")
    card = {
        "backbone": "pocket CLIP (open_clip, 64 px) trained on captioned scenes; "
        "knows the words of that world only",
        "preprocessing": "[-1, 1]; texts lower-cased and stripped",
        "resize": f"area-reduced to {SIZE} px",
        "version": f"open_clip {open_clip.__version__}",
        "more": {f"held-out {name}": value for name, value in read_card(folder).items()},
    }
    return Clip(
        network.eval().requires_grad_(False),
        partial(_padded_ids, T5Tokenizer.from_pretrained(folder)),
        partial(reduced, size=SIZE),
        card=card,
    )


def _padded_ids(pieces: T5Tokenizer, texts: Sequence[str]) -> Int[Tensor, "B L"]:
    """Return the ids of lower-cased texts; the network's causal mask hides the padding."""
    cleaned = [text.lower().strip() for text in texts]
    return pieces(
        cleaned, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    ).input_ids


@dataclass(frozen=True)
class StockClip:
    """An open_clip model by its id and pretrained tag.

    `file` gives the tag's weights as safetensors, else they come from the hub.
    """

    model: str
    pretrained: str
    file: str | None = None

    def load(self) -> Clip:
        """Load it once; weights that cannot be had are refused before a network is built."""
        return _stock(self.model, self.pretrained, self.file)


@lru_cache(maxsize=4)
def _stock(model: str, pretrained: str, file: str | None) -> Clip:
    config = open_clip.get_model_config(model)
    if config is None or set(config) - {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}:
        raise Refused(
            f"{model!r} is no plain CLIP of open_clip; "
            "some are ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14"
        )
    published = open_clip.get_pretrained_cfg(model, pretrained)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not published and (file is None or tags):
        known = ", ".join(tags) or "none, so give file="
        raise Refused(f"{model} has no weights {pretrained!r}; open_clip knows: {known}")
    path = _file(f"the CLIP {model} ({pretrained})", file, published)
    values = parameters.load(path)
    quick_gelu = bool(config.get("quick_gelu") or published.get("quick_gelu"))
    network = open_clip.CLIP(**{**config, "quick_gelu": quick_gelu})
    parameters.fill(network, values, file=path, what=model)
    size = config["vision_cfg"]["image_size"]
    mean = tuple(published.get("mean", open_clip.OPENAI_DATASET_MEAN))
    std = tuple(published.get("std", open_clip.OPENAI_DATASET_STD))
    shown_mean, shown_std = (", ".join(f"{x:.4g}" for x in colour) for colour in (mean, std))
    card = {
        "backbone": f"open_clip {model}, weights {pretrained}",
        "preprocessing": f"mean {shown_mean}, std {shown_std}; texts by its own tokenizer",
        "resize": f"antialiased bicubic to {size} px on float tensors",
        "version": f"open_clip {open_clip.__version__}",
    }
    return Clip(
        network.eval().requires_grad_(False),
        open_clip.get_tokenizer(model),
        partial(_prepared, size=size, mean=mean, std=std),
        "_" + model.lower().replace("-quickgelu", "").replace("-", "_"),
        card,
    )


def _file(what: str, file: str | None, published: dict) -> Path:
    if file is None:
        otherwise = f"give file= its {WEIGHTS}, or use metrics=offline"
        repository = str(published["hf_hub"]).rstrip("/")
        return weights.of_hub(repository, WEIGHTS, what=what, otherwise=otherwise)
    if not Path(file).is_file():
        raise Refused(f"{file}: no such file; give the weights of {what} as safetensors")
    return Path(file)


def _prepared(
    image: Float[Tensor, "B 3 H W"], *, size: int, mean: Colour, std: Colour
) -> Float[Tensor, "B 3 size size"]:
    """Resize pictures in [-1, 1] to the centre's square, without rounding to bytes; normalise."""
    x = resized((image + 1) / 2, size, mode="bicubic").clamp(0, 1)
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


@torch.no_grad()
def image_features(clip: Clip, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Return unit features of pictures in [-1, 1]; nothing is kept."""
    device = clip.network.logit_scale.device
    prepared = (clip.prepare(part.to(device).float()) for part in image.split(CHUNK))
    return torch.cat([clip.network.encode_image(x, normalize=True).cpu() for x in prepared])


@torch.no_grad()
def features_of(clip: Clip, images: Sequence[Picture]) -> Float[Tensor, "B D"]:
    """Return unit features of pictures of any sizes; a tensor seen before is not encoded again."""
    each = {id(image): image for image in images}.values()
    new = [image for image in each if image not in clip.pictures]
    for first in range(0, len(new), CHUNK):
        part = new[first : first + CHUNK]
        x = torch.cat([clip.prepare(image.float()) for image in part])
        features = clip.network.encode_image(x.to(clip.network.logit_scale.device), normalize=True)
        clip.pictures.update(zip(part, features.cpu(), strict=True))
    return torch.stack([clip.pictures[image] for image in images])


@torch.no_grad()
def text_features(clip: Clip, texts: Sequence[str]) -> Float[Tensor, "B D"]:
    """Return unit features of texts; each text is encoded once."""
    new = [text for text in dict.fromkeys(texts) if text not in clip.texts]
    for first in range(0, len(new), CHUNK):
        part = new[first : first + CHUNK]
        ids = clip.tokenizer(part).to(clip.network.logit_scale.device)
        features = clip.network.encode_text(ids, normalize=True)
        clip.texts.update(zip(part, features.cpu(), strict=True))
    return torch.stack([clip.texts[text] for text in texts])
