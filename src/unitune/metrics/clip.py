"""CLIP models behind one seam, and the pocket CLIP: a stock open_clip model of 0.6 M parameters for the scenes world.

The pocket CLIP's folder is one that open_clip itself loads (`open_clip.create_model("local-dir:...")`), with the tokenizer of the pocket models beside the
weights. Stock models are made in stock_clip.py; the scores of either in similarity.py.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import T5Tokenizer

from unitune.metrics.judge import CHUNK, read_card, reduced
from unitune.models import parameters
from unitune.types import Picture, Refused

SIZE = 64  # px
CONTEXT = 32  # tokens; the longest caption of the scenes world has 23
WEIGHTS = "open_clip_model.safetensors"
PREPARE = partial(reduced, size=SIZE)


@dataclass(frozen=True)
class Words:
    """The pocket models' tokenizer as CLIP uses it: texts lower-cased and stripped, padded or cut to `length`; the causal mask hides the padding."""

    pieces: T5Tokenizer
    length: int = CONTEXT

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "B L"]:
        """Return ids."""
        cleaned = [text.lower().strip() for text in texts]
        return self.pieces(
            cleaned,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).input_ids


@dataclass(frozen=True)
class Clip:
    """A model of pictures and texts, how it wants either, and what its numbers' cards say of it.

    `texts` and `pictures` hold features that were computed before, of a picture as long as its tensor lives: make a new Clip when the weights change.
    """

    network: open_clip.CLIP
    tokenizer: Callable[[list[str]], Tensor]
    prepare: Callable[
        [Tensor], Tensor
    ]  # pictures in [-1, 1], (B, 3, H, W), as the network takes them
    label: str = ""  # stands in the names of its scores; the pocket CLIP's have none
    card: Mapping[str, str] = field(default_factory=dict)  # arguments of cards.card
    accuracy: Mapping[str, str] = field(default_factory=dict)
    texts: dict[str, Tensor] = field(default_factory=dict)
    pictures: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)


def load_clip(folder: str | Path) -> Clip:
    """Load a saved pocket CLIP in float32, ready to score; its accuracy is that of `card.json` when there."""
    folder = Path(folder)
    file = folder / "open_clip_config.json"
    if not file.exists():
        raise Refused(
            f"no CLIP in {folder}: open_clip_config.json is missing; name the folder that holds it and {WEIGHTS}"
        )
    network = open_clip.CLIP(**json.loads(file.read_text())["model_cfg"])
    network.load_state_dict(
        {
            k: v.float() if v.is_floating_point() else v
            for k, v in parameters.load(folder / WEIGHTS).items()
        }
    )
    card = {
        "backbone": "pocket CLIP (open_clip, 64 px) trained on captioned scenes; knows the words of that world only",
        "preprocessing": "[-1, 1]; texts lower-cased and stripped",
        "resize": f"area-reduced to {SIZE} px",
        "version": f"open_clip {open_clip.__version__}",
    }
    accuracy = {f"held-out {name}": value for name, value in read_card(folder).items()}
    return Clip(
        network.eval().requires_grad_(False),
        Words(T5Tokenizer.from_pretrained(folder)),
        PREPARE,
        card=card,
        accuracy=accuracy,
    )


class Source(Protocol):
    """Where a CLIP comes from: `Pocket`, or `Stock` of stock_clip.py. Metrics of equal sources share one Clip, and with it the features it has computed."""

    def load(self) -> Clip: ...  # noqa: D102


@dataclass(frozen=True)
class Pocket:
    """The pocket CLIP of a folder."""

    folder: str | Path

    def load(self) -> Clip:
        """Load it, once as long as the file of its weights stays the same."""
        file = Path(self.folder) / WEIGHTS
        return _loaded(Path(self.folder), file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=4)
def _loaded(folder: Path, changed: int) -> Clip:
    return load_clip(folder)


def tokens(clip: Clip, texts: Sequence[str]) -> Int[Tensor, "B L"]:
    """Turn texts into the ids that the network takes."""
    return clip.tokenizer(list(texts))


@torch.no_grad()
def image_features(clip: Clip, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Return unit features of pictures in [-1, 1]."""
    device = clip.network.logit_scale.device
    return torch.cat(
        [
            clip.network.encode_image(clip.prepare(part.to(device).float()), normalize=True).cpu()
            for part in image.split(CHUNK)
        ]
    )


def features_of(clip: Clip, images: Sequence[Picture]) -> Float[Tensor, "B D"]:
    """Return unit features of pictures of any sizes; a tensor that was seen before is not encoded again."""
    new = [
        image
        for image in {id(image): image for image in images}.values()
        if image not in clip.pictures
    ]
    for first in range(0, len(new), CHUNK):
        part = new[first : first + CHUNK]
        with torch.no_grad():
            x = torch.cat([clip.prepare(image.float()) for image in part]).to(
                clip.network.logit_scale.device
            )
            clip.pictures.update(
                zip(part, clip.network.encode_image(x, normalize=True).cpu(), strict=True)
            )
    return torch.stack([clip.pictures[image] for image in images])


@torch.no_grad()
def text_features(clip: Clip, texts: Sequence[str]) -> Float[Tensor, "B D"]:
    """Return unit features of texts; each text is encoded once."""
    new = [text for text in dict.fromkeys(texts) if text not in clip.texts]
    for first in range(0, len(new), CHUNK):
        part = new[first : first + CHUNK]
        ids = tokens(clip, part).to(clip.network.logit_scale.device)
        clip.texts.update(
            zip(part, clip.network.encode_text(ids, normalize=True).cpu(), strict=True)
        )
    return torch.stack([clip.texts[text] for text in texts])
