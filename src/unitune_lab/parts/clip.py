"""The embedded CLIP learns which caption of a batch belongs to which picture.

The loss is InfoNCE both ways, from captions to pictures and back (arXiv 2103.00020).
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5Tokenizer
from unitune.scenes.vocabulary import NOUNS, PLACES, article

from unitune_lab.batches import Batch, SceneBatches
from unitune_lab.parts.normalisation import Statistics
from unitune_lab.towers import CONTEXT, build_towers, contrastive_loss, save_towers


class ClipPart:
    """The two towers of unitune_lab.towers."""

    size, captions, resolutions = 64, "clip", (64,)
    reads = ""

    def __init__(self, text: Path, device: torch.device) -> None:
        self.device = device
        self.tokenizer = T5Tokenizer.from_pretrained(text / "tokenizer")
        self.network: nn.Module = build_towers(self.tokenizer).to(device)
        self.statistics = Statistics(device, lambda x: x)

    def ids(self, captions: list[str]) -> Tensor:
        """Turn captions into token ids, (B, 32)."""
        lines = [text.lower().strip() for text in captions]
        length = {"padding": "max_length", "max_length": CONTEXT, "truncation": True}
        return self.tokenizer(lines, return_tensors="pt", **length).input_ids.to(self.device)

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the symmetric cross entropy of the cosines times the learned scale."""
        x = batch.pictures(self.device)
        return contrastive_loss(self.network, x, self.ids(list(batch.captions)))  # type: ignore

    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Return how often mean weights are right about unseen scenes; see `answers`."""
        towers: Any = network
        self.statistics.renew(towers.visual)
        told = self.answers(towers.eval())
        return {name: sum(hits) / len(hits) for name, hits in told.items()}

    @torch.no_grad()
    def answers(self, towers: Any) -> dict[str, list[bool]]:
        """Say which answers of towers in eval mode are right on 256 unseen compositions.

        `noun`: they name the single object; `caption_of_16`: they find a picture's caption among
        16.
        """
        unseen = partial(SceneBatches, batch_size=256, size=64, captions="plain", held_out=True)
        batch = unseen(seed=3, counts=(1.0,)).batch(0)
        prompts = [f"{article(n)} {n} {p[0]}" for n in NOUNS for p in PLACES.values()]
        texts = towers.encode_text(self.ids(prompts)).unflatten(0, (len(NOUNS), -1))
        texts = F.normalize(F.normalize(texts, dim=-1).mean(dim=1), dim=-1)
        images = F.normalize(towers.encode_image(batch.pictures(self.device)), dim=-1)
        named = (images @ texts.T).argmax(1).cpu() == batch.nouns.argmax(1)
        batch = unseen(seed=4).batch(0)
        images = F.normalize(towers.encode_image(batch.pictures(self.device)), dim=-1)
        texts = F.normalize(towers.encode_text(self.ids(list(batch.captions))), dim=-1)
        grouped = images.unflatten(0, (-1, 16)) @ texts.unflatten(0, (-1, 16)).mT
        right = grouped.argmax(2).cpu() == torch.arange(16)
        return {"noun": named.tolist(), "caption_of_16": right.flatten().tolist()}

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the CLIP with its tokenizer."""
        towers: Any = network
        self.statistics.renew(towers.visual)
        save_towers(towers, self.tokenizer, folder)
