"""The text encoder is a T5 that learns the facts of a scene from its caption.

It also learns to keep every token's letters. Afterwards it is frozen, as Imagen's is.
"""

import copy
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5Tokenizer
from unitune.scenes.caption import caption
from unitune.scenes.scene import left_of, random_scene
from unitune.scenes.vocabulary import NOUNS, article, plural

from unitune_lab import networks
from unitune_lab.batches import NOUN, Batch, SceneBatches, facts
from unitune_lab.parts.facts import FactHeads, fact_loss

PADDED = 24  # tokens to which a batch is padded; longer captions are padded to their own length
RARE = "beikkpic"


def nouns_of_pieces(tokenizer: T5Tokenizer) -> Tensor:
    """Return for every piece the number of the noun that it names, -1 for none; (pieces,) int."""
    found = torch.full((len(tokenizer),), -1)
    pieces = tokenizer.get_vocab()
    for noun, (_, others) in NOUNS.items():
        for word in (noun, *others):
            for said in (word, plural(word)):
                found[pieces[f"▁{said}"]] = NOUN[noun]
    return found


class TextPart:
    """T5 with four tasks, one for each thing that its states must keep.

    They are the facts from the mean of the states, the token from each token's state, the caption's
    tokens from a padded position's state, because the UNet reads padded positions too, and from a
    noun's state whether its object stands left or right: one direction for all nouns, which the
    UNet's attention can follow. The mean alone taught the states nothing of "left of".
    """

    size, captions, resolutions = None, "text", (64,)
    reads = ""

    def __init__(self, tokenizer: T5Tokenizer, device: torch.device) -> None:
        self.tokenizer, self.device = tokenizer, device
        pieces, width = len(tokenizer), networks.TEXT_WIDTH
        parts = {
            "encoder": networks.text_encoder(pieces),
            "heads": FactHeads(width),
            "identity": nn.Linear(width, pieces),
            "bag": nn.Linear(width, pieces),
            "side": nn.Linear(width, 1),
        }
        self.nouns = nouns_of_pieces(tokenizer).to(device)
        self.network: nn.Module = nn.ModuleDict(parts).to(device)

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the sum of the four tasks' losses."""
        texts, net = list(batch.captions), cast(Any, self.network)
        found = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        missing = max(1, PADDED - found.input_ids.shape[1])
        ids, mask = F.pad(found.input_ids, (0, missing)), F.pad(found.attention_mask, (0, missing))
        states = net["encoder"](ids, attention_mask=mask)[0]
        loss = fact_loss(net["heads"](_mean(states, mask)), batch)
        logits = net["identity"](states[mask > 0])
        loss = loss + F.cross_entropy(logits, ids[mask > 0])
        told, side = self.sides(states, ids, batch.side)
        if len(side):
            loss = loss + F.binary_cross_entropy_with_logits(told, side)
        length = mask.sum(1)
        u = torch.rand(len(ids), generator=torch.Generator().manual_seed(seed)).to(length.device)
        position = length + (u * (ids.shape[1] - length)).long()
        state = states[torch.arange(len(ids)), position]
        bag = torch.zeros(len(ids), len(self.tokenizer), device=ids.device)
        bag.scatter_add_(1, ids, mask.float())
        named = net["bag"](state)
        return loss + 20 * F.binary_cross_entropy_with_logits(named, (bag > 0).float())

    def sides(
        self, states: Tensor, ids: Tensor, side: Tensor, network: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what each noun's state says of its side (logits), and the side (0 left, 1 right).

        `side` is that of a Batch; nouns whose objects stand on neither side are left out.
        """
        row, column = (self.nouns[ids] >= 0).nonzero(as_tuple=True)
        known = side.to(ids.device)[row, self.nouns[ids[row, column]]]
        row, column, known = (value[known >= 0] for value in (row, column, known))
        head = cast(Any, network or self.network)["side"]
        return head(states[row, column])[:, 0], known

    @torch.no_grad()
    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Return the facts' loss on other captions, and how well rare words are told apart.

        The latter is how far a rare word is from the empty text and from another rare word, over
        how far two nouns are from each other. `side` is the share of nouns whose state says on
        which side they stand, over captions that tell it ("a cat left of a dog").
        """
        batch = SceneBatches(seed=1, batch_size=256, size=None, captions="plain").batch(0)
        encoder: Any = network["encoder"]  # type: ignore[index]
        tokens = self.tokenizer(list(batch.captions), padding=True, return_tensors="pt")
        tokens = tokens.to(self.device)
        states = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        mean = _mean(states, tokens.attention_mask)
        error = float(fact_loss(network["heads"](mean), batch))  # type: ignore[index]
        nouns = embed(self.tokenizer, encoder, [f"{article(n)} {n}" for n in NOUNS])
        words = embed(self.tokenizer, encoder, [RARE, "", "qwpz"])
        moved = rms(nouns[1:] - nouns[:-1])
        return {
            "error": error,
            "rare_to_empty": rms(words[0] - words[1]) / moved,
            "rare_to_rare": rms(words[0] - words[2]) / moved,
            "side": self._sides_told(network),
        }

    def _sides_told(self, network: Any) -> float:
        rng = np.random.default_rng(2)
        drawn = [random_scene(rng, counts=(0, 1, 0)) for _ in range(512)]
        scenes = [s for s in drawn if len(s.objects) == 2 and left_of(*s.objects)]
        tokens = self.tokenizer(
            [caption(scene, rng, related=True) for scene in scenes],
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        states = network["encoder"](tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        told, side = self.sides(states, tokens.input_ids, facts(scenes)["side"], network)
        return float(((told > 0) == (side > 0)).float().mean())

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write `tokenizer` and `text_encoder` (float16 files that load as float32)."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        encoder: Any = network["encoder"]  # type: ignore[index]
        copy.deepcopy(encoder).half().save_pretrained(folder / "text_encoder")
        file = folder / "text_encoder" / "config.json"
        config = json.loads(file.read_text()) | {"dtype": "float32"}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def embed(tokenizer: T5Tokenizer, encoder: Any, captions: list[str]) -> Tensor:
    """Encode captions as stock IF does: padded to 77 tokens, the mask inside T5 only."""
    lines = [text.lower().strip() for text in captions]
    length = {"padding": "max_length", "max_length": networks.TEXT_LENGTH, "truncation": True}
    tokens = tokenizer(lines, return_tensors="pt", **length).to(encoder.device)
    with torch.no_grad():
        return encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average the states of a text's own tokens."""
    kept = mask[..., None]
    return (states * kept).sum(1) / kept.sum(1)


def rms(x: Tensor) -> float:
    """Return the root of the mean square."""
    return float(x.square().mean().sqrt())
