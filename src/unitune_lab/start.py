"""Starts a training, with a fresh optimizer, from the mean weights of an earlier one."""

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import T5Tokenizer
from unitune.errors import Refused

from unitune_lab.networks import tokenizer, vocabulary

FILES = {
    "base": "config.json", "sr256": "config.json", "judge": "model.safetensors",
    "clip": "open_clip_model.safetensors", "clip2": "open_clip_model.safetensors",
}  # fmt: skip


def exported(folder: Path, part: str) -> Path | None:
    """Return where a folder of trained parts holds one, None where it does not.

    A training has PART/export, a start PART, and a stock pipeline PART/unet.
    """
    places = [folder / part / "export", folder / part / "unet", folder / part, folder]
    return next((place for place in places if (place / FILES[part]).exists()), None)


def required(folder: Path, part: str) -> Path:
    """Return where a folder holds a part; Refused where it does not."""
    found = exported(folder, part)
    if found is None:
        raise Refused(f"{folder} holds no {part}: {part}/{FILES[part]} is missing")
    return found


def text_folder(*folders: Path) -> Path:
    """Return where the first of these folders that has tokenizer and text encoder has them.

    That is FOLDER/text/export (of a training), FOLDER/text (of a start), FOLDER/base (of what
    ships) or FOLDER itself.
    """
    places = ("text/export", "text", "base", "")
    for found in (folder / place for folder in folders for place in places):
        if (found / "tokenizer").is_dir() and (found / "text_encoder").is_dir():
            return found
    raise Refused(
        f"{folders[0]} holds no text encoder: text/tokenizer and text/text_encoder are missing; "
        f"train it first (python -m unitune_lab text) or name a folder that has them"
    )


def check_tokenizer(folder: Path) -> T5Tokenizer:
    """Load a folder's tokenizer; Refused where a word of this world is not one of its pieces."""
    known = T5Tokenizer.from_pretrained(folder / "tokenizer")
    pieces = known.get_vocab()
    missing = [word for word in vocabulary() if len(word) > 1 and f"▁{word}" not in pieces]
    if missing:
        raise Refused(
            f"the tokenizer in {folder} belongs to another world: it lacks {', '.join(missing[:5])}"
        )
    return known


@torch.no_grad()
def start_text(network: nn.Module, folder: Path) -> None:
    """Copy a trained encoder, its embeddings piece by piece into this world's tokenizer."""
    found = text_folder(folder)
    before, now = check_tokenizer(found).get_vocab(), tokenizer().get_vocab()
    weights = load_file(found / "text_encoder" / "model.safetensors")
    own = network["encoder"].state_dict()  # type: ignore[index]
    rows = [(index, before[piece]) for piece, index in now.items() if piece in before]
    mine, theirs = (list(side) for side in zip(*rows, strict=True))
    for name, value in own.items():
        if name == "shared.weight" or name.endswith("embed_tokens.weight"):
            table = weights.get(name, weights.get("shared.weight"))
            if table is None or table.shape[1:] != value.shape[1:]:
                raise Refused(f"the text encoder in {found} is of another architecture: {name}")
            value[mine] = table[theirs].to(value)
        else:
            value.copy_(_same(weights, name, value, found))


@torch.no_grad()
def start_stage(network: nn.Module, part: str, folder: Path) -> None:
    """Copy a trained UNet; a head that is thrown away after training starts fresh."""
    found = required(folder, part)
    given: Any = UNet2DConditionModel.from_pretrained(found)
    unet: Any = network["unet"]  # type: ignore[index]
    shape = ("block_out_channels", "down_block_types", "cross_attention_dim", "in_channels")
    differs = [key for key in shape if _plain(given.config[key]) != _plain(unet.config[key])]
    if differs:
        odd = differs[0]
        raise Refused(
            f"the network in {found} is another architecture: its {odd} is {given.config[odd]}, "
            f"this training's is {unet.config[odd]}"
        )
    weights, own = given.state_dict(), unet.state_dict()
    if unknown := sorted(weights.keys() - own.keys()):
        raise Refused(f"the network in {found} is another architecture: it has {unknown[0]}")
    for name, value in own.items():
        value.copy_(_same(weights, name, value, found))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@torch.no_grad()
def start_scoring(network: nn.Module, part: str, folder: Path) -> None:
    """Copy a trained judge or CLIP; Refused where it was trained for other words."""
    found = required(folder, part)
    weights, own = load_file(found / FILES[part]), network.state_dict()
    for name, value in own.items():
        value.copy_(_same(weights, name, value, found))


def _same(weights: dict[str, Tensor], name: str, like: Tensor, where: Path) -> Tensor:
    value = weights.get(name)
    if value is None or value.shape != like.shape:
        shape = "missing" if value is None else f"of shape {tuple(value.shape)}"
        raise Refused(
            f"{where} is of another architecture or world: {name} is {shape}, "
            f"and {tuple(like.shape)} is needed"
        )
    return value.to(like)
