"""The embedded CLIP learns which caption of a batch belongs to which picture.

The loss is InfoNCE both ways, from captions to pictures and back (arXiv 2103.00020).
"""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from transformers import T5Tokenizer
from unitune.scenes.vocabulary import NOUNS, PLACES, article

from unitune_lab.batches import Batch, SceneBatches
from unitune_lab.parts.judge import RECENT
from unitune_lab.parts.stage import pixels
from unitune_lab.towers import CONTEXT, build_towers, contrastive_loss, save_towers


class ClipPart:
    """The two towers of unitune_lab.towers."""

    size, captions, resolutions = 64, "clip", (64,)
    reads = ""

    def __init__(self, text: Path, device: torch.device) -> None:
        self.device = device
        self.tokenizer = T5Tokenizer.from_pretrained(text / "tokenizer")
        self.network: nn.Module = build_towers(self.tokenizer).to(device)
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def ids(self, captions: list[str]) -> Tensor:
        """Turn captions into token ids, (B, 32)."""
        lines = [text.lower().strip() for text in captions]
        length = {"padding": "max_length", "max_length": CONTEXT, "truncation": True}
        return self.tokenizer(lines, return_tensors="pt", **length).input_ids.to(self.device)

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the symmetric cross entropy of the cosines times the learned scale."""
        assert batch.image is not None
        x = pixels(batch.image, self.device)
        self.recent.append(x)
        return contrastive_loss(self.network, x, self.ids(list(batch.captions)))  # type: ignore

    @torch.no_grad()
    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Return how often it is right about unseen scenes.

        `noun`: it names the single object; `caption_of_16`: it finds a picture's caption among 16.
        """
        towers: Any = network
        if self.recent:
            update_bn(list(self.recent), towers.visual)
        towers.eval()
        unseen = {"size": 64, "captions": "plain", "held_out": True}
        one = SceneBatches(seed=3, batch_size=256, counts=(1.0,), **unseen)  # type: ignore
        batch = one.batch(0)
        assert batch.image is not None
        prompts = [f"{article(n)} {n} {p[0]}" for n in NOUNS for p in PLACES.values()]
        texts = towers.encode_text(self.ids(prompts)).unflatten(0, (len(NOUNS), -1))
        texts = F.normalize(F.normalize(texts, dim=-1).mean(dim=1), dim=-1)
        images = F.normalize(towers.encode_image(pixels(batch.image, self.device)), dim=-1)
        named = float(((images @ texts.T).argmax(1).cpu() == batch.nouns.argmax(1)).float().mean())
        batch = SceneBatches(seed=4, batch_size=256, **unseen).batch(0)  # type: ignore
        assert batch.image is not None
        images = F.normalize(towers.encode_image(pixels(batch.image, self.device)), dim=-1)
        texts = F.normalize(towers.encode_text(self.ids(list(batch.captions))), dim=-1)
        grouped = images.unflatten(0, (-1, 16)) @ texts.unflatten(0, (-1, 16)).mT
        right = np.mean((grouped.argmax(2).cpu() == torch.arange(16)).numpy())
        return {"noun": named, "caption_of_16": float(right)}

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the CLIP with its tokenizer."""
        towers: Any = network
        if self.recent:
            update_bn(list(self.recent), towers.visual)
        save_towers(towers, self.tokenizer, folder)
