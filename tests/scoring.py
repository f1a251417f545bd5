"""Scoring models of the real classes with random weights, small where the class allows it.

What the real ones need is a download.
"""

import json
from functools import lru_cache
from pathlib import Path

import open_clip
import torch
import torchvision
from safetensors.torch import save_file
from transformers import T5Tokenizer, ViTConfig, ViTModel

from unitune.metrics import judge
from unitune_lab.towers import build_towers, save_towers

MODEL = "tiny-ViT-for-tests"
LETTERS = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -2.0),
    *((c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz"),
]


def pocket(folder: Path) -> Path:
    """A pocket CLIP and a judge in folders `clip` and `judge`."""
    pieces = T5Tokenizer(vocab=LETTERS, extra_ids=0)
    save_towers(build_towers(pieces), pieces, folder / "clip")
    judge.save_judge(judge.Judge(), folder / "judge")
    return folder


def stock_clip(folder: Path) -> Path:
    """A CLIP with two small transformers, known to open_clip as MODEL; its weights."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    config = {
        "embed_dim": 32,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    (folder / f"{MODEL}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model(MODEL).state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"


@lru_cache
def convolutions(net: str) -> dict[str, torch.Tensor]:
    """Random weights of AlexNet ("alex") or SqueezeNet 1.1 ("squeeze"), each time the same."""
    build = {"alex": torchvision.models.alexnet, "squeeze": torchvision.models.squeezenet1_1}[net]
    torch.manual_seed(1)
    return build(weights=None).features.state_dict()


def backbone(folder: Path, net: str) -> Path:
    """The same in a file, under torchvision's names."""
    save_file(
        {f"features.{name}": value for name, value in convolutions(net).items()},
        folder / f"{net}.safetensors",
    )
    return folder / f"{net}.safetensors"


def dino(folder: Path) -> Path:
    """A ViT with two layers of two heads, 64 tokens and a class token, in transformers' format."""
    torch.manual_seed(2)
    shape = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=8,
    )
    ViTModel(shape, add_pooling_layer=False).save_pretrained(folder / "dino")
    return folder / "dino"
