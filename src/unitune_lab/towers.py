"""The embedded CLIP without open_clip, so that it trains where open_clip is not installed.

The two towers and all their weights have open_clip's names: what `save_towers` writes,
`unitune.metrics.clip.load_clip` and open_clip itself read.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import T5Tokenizer
from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import timm  # noqa: E402
from timm.layers import Mlp  # noqa: E402

SIZE, CONTEXT = 64, 32  # px of a picture, tokens of a text
# The shape of the text tower, as in unitune.metrics.clip.
WIDTH, HEADS, LAYERS, EMBEDDING = 96, 3, 2, 64
TRUNK = "test_resnet"  # timm's name
MAX_SCALE = 100.0  # of the cosines, as in arXiv 2103.00020


class _Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        trunk: Any = timm.create_model(TRUNK, pretrained=False, num_classes=0, global_pool="avg")
        self.trunk: nn.Module = trunk
        sizes = (int(trunk.num_features), 2 * EMBEDDING, EMBEDDING)
        self.head = nn.ModuleDict({"mlp": Mlp(*sizes, bias=(True, False))})

    def forward(self, image: Tensor) -> Tensor:
        return self.head["mlp"](self.trunk(image))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        wide, narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": wide, "c_proj": narrow})
        nn.init.normal_(self.attn.in_proj_weight, std=WIDTH**-0.5)
        nn.init.normal_(self.attn.out_proj.weight, std=(WIDTH * 2 * LAYERS) ** -0.5)
        nn.init.normal_(wide.weight, std=(2 * WIDTH) ** -0.5)
        nn.init.normal_(narrow.weight, std=(WIDTH * 2 * LAYERS) ** -0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Towers(nn.Module):
    """A tower for pictures (B, 3, 64, 64) in [-1, 1] and a tower for token ids (B, 32).

    The first is a residual network, the second a causal transformer that is read at the end token.
    Parameters and buffers have open_clip's names and shapes and first values drawn as it draws.
    """

    def __init__(self, *, vocab_size: int, eos_id: int) -> None:
        super().__init__()
        self.eos_id = eos_id
        self.visual = _Picture()
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(_Block() for _ in range(LAYERS))}
        )
        self.token_embedding = nn.Embedding(vocab_size, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.01)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, EMBEDDING) * WIDTH**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        mask = torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_image(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return features of pictures, not normalised."""
        return self.visual(image)

    def encode_text(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Return features of texts, not normalised."""
        x = self.token_embedding(ids) + self.positional_embedding
        blocks: Any = self.transformer["resblocks"]
        for block in blocks:
            x = block(x, self.get_buffer("mask").to(x))
        end = (ids == self.eos_id).int().argmax(dim=1)
        rows = torch.arange(len(ids), device=ids.device)
        return self.ln_final(x)[rows, end] @ self.text_projection


def build_towers(tokenizer: T5Tokenizer) -> Towers:
    """Build untrained towers for a tokenizer."""
    end: Any = tokenizer.convert_tokens_to_ids("</s>")
    return Towers(vocab_size=len(tokenizer), eos_id=end)


def contrastive_loss(
    towers: Towers, image: Float[Tensor, "B 3 H W"], ids: Int[Tensor, "B L"]
) -> Tensor:
    """Return the symmetric cross entropy of the cosines times the learned scale.

    This is the InfoNCE of arXiv 2103.00020. The towers run in bfloat16, the rest in float32.
    """
    with torch.autocast(image.device.type, torch.bfloat16):
        pictures = towers.encode_image(image.contiguous(memory_format=torch.channels_last))
        texts = towers.encode_text(ids)
    cosines = F.normalize(pictures.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    logits = cosines * towers.logit_scale.exp().clamp(max=MAX_SCALE)
    right = torch.arange(len(ids), device=ids.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def model_config(tokenizer: T5Tokenizer) -> dict:
    """Return the open_clip config of these towers."""
    vision = {
        "timm_model_name": TRUNK, "timm_model_pretrained": False, "timm_pool": "avg",
        "timm_proj": "mlp", "image_size": SIZE,
    }  # fmt: skip
    text = {
        "context_length": CONTEXT, "vocab_size": len(tokenizer), "width": WIDTH, "heads": HEADS,
        "layers": LAYERS, "hf_tokenizer_name": "tokenizer", "tokenizer_kwargs": {"clean": "lower"},
        "pad_id": tokenizer.pad_token_id, "eos_id": tokenizer.eos_token_id, "pool_type": "eos",
    }  # fmt: skip
    return {"embed_dim": EMBEDDING, "vision_cfg": vision, "text_cfg": text}


def save_towers(towers: Towers, tokenizer: T5Tokenizer, folder: Path) -> None:
    """Write weights (float16), config and tokenizer under the names that open_clip expects."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in towers.state_dict().items()
    }
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocessing = {
        "size": SIZE,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    config = {"model_cfg": model_config(tokenizer), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder)
