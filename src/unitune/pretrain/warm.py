"""Going on from weights that ship: their mean weights become the start of a training with a fresh optimiser, also when the world has grown since."""

import json
import logging
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import T5Tokenizer

from unitune.types import Refused

log = logging.getLogger(__name__)
TOKENS = ("encoder.shared.weight", "encoder.encoder.embed_tokens.weight", "token_embedding.weight")  # one row per piece of the tokenizer


def shipped_weights(part: str, pocket: Path) -> tuple[dict[str, Tensor], Path]:
    """Return the shipped weights of a part under the names that its task uses, and the folder of the tokenizer they were trained with."""
    tokenizer = pocket / "base" / "tokenizer"
    if part == "text":
        return {f"encoder.{name}": value for name, value in load_file(pocket / "base" / "text_encoder" / "model.safetensors").items()}, tokenizer
    if part in ("base", "sr256"):
        return UNet2DConditionModel.from_pretrained(pocket / part / "unet").state_dict(), tokenizer  # type: ignore[return-value]
    if part == "judge":
        return load_file(pocket / part / "model.safetensors"), tokenizer
    return load_file(pocket / part / "open_clip_model.safetensors"), pocket / part


def warm_start(network: nn.Module, part: str, pocket: Path, tokenizer: T5Tokenizer | None) -> dict:
    """Copy every shipped weight of the same name and shape, embeddings piece by piece; return what `training.json` says of their training."""
    if not (pocket / "training.json").exists():
        raise Refused(f"no weights to go on from in {pocket}; use start=fresh")
    weights, old_tokenizer = shipped_weights(part, pocket)
    own, fresh = network.state_dict(), []
    rows = _rows(T5Tokenizer.from_pretrained(old_tokenizer), tokenizer) if tokenizer else {}
    with torch.no_grad():
        for name, value in own.items():
            if name in TOKENS and name in weights:
                value[list(rows)] = weights[name][list(rows.values())].to(value)
            elif name in weights and weights[name].shape == value.shape:
                value.copy_(weights[name])
            else:
                fresh.append(name)
    log.info("%s: goes on from the shipped weights; %d of %d tensors start fresh", part, len(fresh), len(own))
    return json.loads((pocket / "training.json").read_text()).get(part, {})


def _rows(old: T5Tokenizer, new: T5Tokenizer) -> dict[int, int]:
    """Map the id of each piece of the new tokenizer to its id in the old one, where it is known there."""
    before = old.get_vocab()
    return {index: before[piece] for piece, index in new.get_vocab().items() if piece in before}
