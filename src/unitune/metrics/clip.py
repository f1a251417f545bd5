"""The pocket CLIP: a stock open_clip model of 0.6 M parameters for the scenes world, and alignment, the cosine of picture and edit prompt.

Its folder is one that open_clip itself loads (`open_clip.create_model("local-dir:...")`), with the tokenizer of the pocket models beside the weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Tokenizer

from unitune import parameters
from unitune.metrics.judge import CHUNK, read_card, reduced
from unitune.types import Edit, Refused

SIZE = 64  # px
CONTEXT = 32  # tokens; the longest caption of the scenes world has 21


def model_config(tokenizer: T5Tokenizer) -> dict:
    """Return the open_clip config: a small residual network for pictures, two causal transformer layers for text, pooled at the end token.

    A convolutional tower learns from fewer pictures than patches do, and costs a third of a ViT's time per step on a CPU.
    """
    return {
        "embed_dim": 64,
        "vision_cfg": {"timm_model_name": "test_resnet", "timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": "mlp", "image_size": SIZE},
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": len(tokenizer), "width": 96, "heads": 3, "layers": 2, "hf_tokenizer_name": "tokenizer",
            "tokenizer_kwargs": {"clean": "lower"}, "pad_id": tokenizer.pad_token_id, "eos_id": tokenizer.eos_token_id, "pool_type": "eos",
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """An open_clip model with its tokenizer; `texts` caches features of texts, so make a new Clip when the weights change."""

    network: open_clip.CLIP
    tokenizer: T5Tokenizer
    card: Mapping[str, str] = field(default_factory=dict)
    texts: dict[str, Tensor] = field(default_factory=dict)


def build_clip(tokenizer: T5Tokenizer) -> Clip:
    """Build an untrained pocket CLIP."""
    return Clip(open_clip.CLIP(**model_config(tokenizer)), tokenizer)


def save_clip(clip: Clip, folder: Path) -> None:
    """Write weights (float16), config and tokenizer under the names that open_clip expects."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in clip.network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocessing = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": model_config(clip.tokenizer), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    clip.tokenizer.save_pretrained(folder)


def load_clip(folder: str | Path) -> Clip:
    """Load a saved pocket CLIP in float32, ready to score; its card holds the accuracies of `card.json` when there."""
    folder = Path(folder)
    file = folder / "open_clip_config.json"
    if not file.exists():
        raise Refused(f"no CLIP in {folder}: open_clip_config.json is missing; name the folder that holds it and open_clip_model.safetensors")
    network = open_clip.CLIP(**json.loads(file.read_text())["model_cfg"])
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in parameters.load(folder / "open_clip_model.safetensors").items()})
    return Clip(network.eval().requires_grad_(False), T5Tokenizer.from_pretrained(folder), read_card(folder))


def tokens(clip: Clip, texts: Sequence[str]) -> Int[Tensor, "B L"]:
    """Turn texts (lower-cased, stripped) into ids padded to the context length, cut there if longer; the causal mask hides the padding."""
    cleaned = [text.lower().strip() for text in texts]
    return clip.tokenizer(cleaned, padding="max_length", truncation=True, max_length=clip.network.context_length, return_tensors="pt").input_ids


@torch.no_grad()
def image_features(clip: Clip, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Return unit features of pictures in [-1, 1], area-reduced to 64 px."""
    device = clip.network.logit_scale.device
    return torch.cat([clip.network.encode_image(reduced(c.to(device).float(), SIZE), normalize=True).cpu() for c in image.split(CHUNK)])


@torch.no_grad()
def text_features(clip: Clip, texts: Sequence[str]) -> Float[Tensor, "B D"]:
    """Return unit features of texts; each text is encoded once."""
    new = [text for text in dict.fromkeys(texts) if text not in clip.texts]
    for first in range(0, len(new), CHUNK):
        part = new[first : first + CHUNK]
        ids = tokens(clip, part).to(clip.network.logit_scale.device)
        clip.texts.update(zip(part, clip.network.encode_text(ids, normalize=True).cpu(), strict=True))
    return torch.stack([clip.texts[text] for text in texts])


class Alignment:
    """Cosine of the picture's and the edit prompt's features, in [-1, 1]; the prompt without the rare token."""

    name = "alignment"
    higher_is_better = True

    def __init__(self, folder: str | Path) -> None:
        self.clip = load_clip(folder)
        self.card: Mapping[str, str] = {
            "what": "cosine of image and edit prompt (not multiplied by 100, not clamped)",
            "backbone": "pocket CLIP (open_clip, 64 px) trained on captioned scenes; knows the words of that world only",
            "preprocessing": f"area-reduced to {SIZE} px, [-1, 1]; prompt lower-cased and stripped",
            **{f"held-out {name}": value for name, value in self.clip.card.items()},
        }

    def __call__(self, edits: list[Edit]) -> list[float]:
        """Score edits."""
        if not edits:
            return []
        pictures = image_features(self.clip, torch.cat([reduced(e.image, SIZE) for e in edits]))
        return (pictures * text_features(self.clip, [e.request.prompt for e in edits])).sum(dim=1).clamp(-1, 1).tolist()
