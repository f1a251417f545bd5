"""Text encoders: T5 and CLIP, frozen.

A large one is read only when a text is not in the store, and freed again. A prompt may hold learned
words: each stands for vectors that are not in the token table and that gradients reach; the table
itself never changes.
"""

import gc
import itertools
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unitune.models import parameters, tokenizers
from unitune.models.libraries import (
    CLIPTextModel,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)
from unitune.storage.store import Store
from unitune.types import Refused

log = logging.getLogger(__name__)
TEXT_LENGTH = 77  # tokens; IF was trained so, and its UNet sees no mask; CLIP has no more places
FILE = "embedding.safetensors"
OWN = -1  # in place of a row among learned vectors: the token table's own vector


@dataclass(frozen=True)
class EncoderStorage:
    """How an encoder is held: in memory, or read when a text is not in `store`."""

    keep: bool = True
    dtype: torch.dtype = torch.float32  # of its arithmetic
    variant: str = ""  # of the files
    store: Store | None = None


class TextEncoder(ABC):
    """The text encoder of a pipeline folder; `identity` names its files in the store's keys."""

    kind: ClassVar[Any]  # transformers' class of the network
    spelling: ClassVar[Any]  # and of the tokenizer, where its files do not name one
    marks: ClassVar[int]  # tokens that frame a prompt

    def __init__(
        self, folder: Path, device: torch.device, *, storage: EncoderStorage, identity: str
    ) -> None:
        self.storage = storage
        self.tokenizer = tokenizers.read(folder / "tokenizer", self.spelling)
        self._key = {
            "encoder": identity, "dtype": str(storage.dtype), "variant": storage.variant,
            "device": device.type,
        }  # fmt: skip
        self._folder, self._device = folder / "text_encoder", device
        self._network = self._read() if storage.keep else None

    @abstractmethod
    def run(self, network: Any, tokens: Any) -> Tensor:
        """Return the embeddings of tokens."""

    @abstractmethod
    def table(self, network: Any) -> nn.Embedding:
        """Find the token table."""

    def prepared(self, text: str) -> str:
        """Return a text as the tokenizer is given it."""
        return text

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed prompts: (B, 77, D) float32 on the CPU. What the store has needs no network."""
        lines = [self.prepared(text) for text in texts]
        store = self.storage.store
        if self.storage.keep or store is None:
            return self._embed(lines)
        return torch.stack([self._stored(store, line) for line in lines])

    def encode_with(self, texts: Sequence[str], learned: Mapping[str, Tensor]) -> Tensor:
        """Embed prompts in which words stand for vectors (n, D) in the place of the token table's.

        (B, 77, D) float32 on the CPU, with gradients to the vectors.
        """
        network = self._in_memory()
        words = {self.prepared(word): vectors for word, vectors in learned.items()}
        spelled = [self._spelled(self.prepared(text), words) for text in texts]
        tokens = self.tokenizer.pad(
            {"input_ids": [[token for token, _ in line] for line in spelled]},
            padding="max_length",
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        )
        rows = torch.full((len(texts), TEXT_LENGTH, 1), OWN)
        for i, line in enumerate(spelled):
            rows[i, : len(line), 0] = torch.tensor([row for _, row in line])
        rows = rows.to(network.device)
        vectors = torch.cat(list(words.values())).to(network.device)

        def put(_table: Any, _inputs: Any, output: Tensor) -> Tensor:
            replaced = vectors[rows[..., 0].clamp(min=0)].to(output.dtype)
            return torch.where(rows == OWN, output, replaced)

        hook = self.table(network).register_forward_hook(put)
        try:
            return self.run(network, tokens.to(network.device)).float().cpu()
        finally:
            hook.remove()

    def vector(self, word: str) -> Tensor:
        """Return a word's vector in the token table, (1, D) float32 on the CPU."""
        return self.table(self._in_memory()).weight[[self.piece(word)]].detach().float().cpu()

    def piece(self, word: str) -> int:
        """Return the id of a word that is one piece.

        Raises Refused for a word that is unknown or several pieces: it has no vector of its own.
        """
        pieces = [piece for piece in self.tokenize(word) if piece != tokenizers.SPACE]
        ids = self.tokenizer.convert_tokens_to_ids(pieces)
        if len(pieces) > 1:
            cut = f"{len(pieces)} pieces of the text encoder's vocabulary ({' '.join(pieces)})"
            raise Refused(
                f"a learned word starts at the vector of one piece, but {word!r} is {cut}; "
                "give a simpler word: method.initializer=cat"
            )
        if not ids or ids[0] in (self.tokenizer.unk_token_id, None):
            raise Refused(
                f"a learned word starts at a known word's vector, but {word!r} is unknown to the "
                "text encoder; give another: method.initializer=cat"
            )
        return ids[0]

    @property
    def arithmetic(self) -> str:
        """What names the rounding of the embeddings."""
        return str(self.storage.dtype)

    def release(self) -> None:
        """Free an encoder that is not kept: the networks need its memory."""
        if self._network is not None and not self.storage.keep:
            self._network = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into pieces, without end marks."""
        return self.tokenizer.tokenize(self.prepared(text))

    def unseen(self, text: str) -> list[str]:
        """List the words of a text that the tokenizer has no pieces for, whole or in part."""
        return [word for word in text.split() if not self._readable(word)]

    def _readable(self, word: str) -> bool:
        return tokenizers.readable(self.tokenizer, self.prepared(word))

    @property
    def pieces(self) -> list[str]:
        """The pieces to make rare tokens of."""
        everything = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        # DreamBooth draws from these ids of T5-XXL's vocabulary.
        return everything[5000:10000] or everything

    def _spelled(self, text: str, words: Mapping[str, Tensor]) -> list[tuple[int, int]]:
        """Return token ids, marks included, each with its row among all words' vectors."""
        ends = itertools.accumulate(map(len, words.values()))
        rows = {
            word: range(end - len(vectors), end)
            for (word, vectors), end in zip(words.items(), ends, strict=True)
        }
        tokens: list[tuple[int, int]] = []
        for part in re.split(f"({'|'.join(map(re.escape, words))})", text):
            if part in rows:
                tokens += [(0, row) for row in rows[part]]
            elif part.strip():
                ids = self.tokenizer(part.strip(), add_special_tokens=False).input_ids
                tokens += [(token, OWN) for token in ids]
        frame, begin = [(token, OWN) for token in self.tokenizer("").input_ids], self.marks - 1
        return [*frame[:begin], *tokens[: TEXT_LENGTH - self.marks], *frame[begin:]]

    def _read(self) -> Any:
        dtype, variant = self.storage.dtype, self.storage.variant
        network = parameters.pretrained(self.kind, self._folder, dtype, variant)
        return network.to(self._device)

    def _in_memory(self) -> Any:
        if self._network is None:
            log.info("reading the text encoder for texts that are not in the store")
            self._network = self._read()
        return self._network

    def _stored(self, store: Store, line: str) -> Tensor:
        def build(folder: Path) -> None:
            save_file({"embedding": self._embed([line])[0].contiguous()}, folder / FILE)

        with store.get_or_make("embedding", self._key | {"text": line}, build) as entry:
            # A copy: what is loaded lies in the file, which may go once the entry is given back.
            return parameters.load(entry / FILE)["embedding"].clone()

    @torch.no_grad()
    def _embed(self, lines: list[str]) -> Tensor:
        network = self._in_memory()
        tokens = self.tokenizer(
            lines,
            padding="max_length",
            max_length=TEXT_LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        return self.run(network, tokens.to(network.device)).float().cpu()


class T5(TextEncoder):
    """IF's: the mask of the padding is the encoder's alone."""

    kind, spelling, marks = T5EncoderModel, T5Tokenizer, 1

    def prepared(self, text: str) -> str:
        """Return it in lower case, IF's own preprocessing."""
        return text.lower().strip()

    def run(self, network: Any, tokens: Any) -> Tensor:  # noqa: D102
        return network(tokens.input_ids, attention_mask=tokens.attention_mask)[0]

    def table(self, network: Any) -> nn.Embedding:  # noqa: D102
        return network.encoder.embed_tokens


class Clip(TextEncoder):
    """Stable Diffusion's: the last layer's states are the embedding."""

    kind, spelling, marks = CLIPTextModel, CLIPTokenizer, 2

    def run(self, network: Any, tokens: Any) -> Tensor:  # noqa: D102
        return network(tokens.input_ids)[0]

    def table(self, network: Any) -> nn.Embedding:  # noqa: D102
        return network.get_input_embeddings()
