"""Text encoders: T5 and CLIP, frozen. A large one is read only when a text is not in the store, and freed again.

A prompt may hold learned words: each stands for vectors that are not in the token table and that gradients reach; the table itself never changes.
"""

import gc
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unitune.models import files
from unitune.models.libraries import AutoTokenizer, CLIPTextModel, T5EncoderModel
from unitune.storage.store import Store
from unitune.types import Refused

log = logging.getLogger(__name__)
TEXT_LENGTH = 77  # tokens; IF was trained so, and its UNet sees no mask; CLIP has no more places
FILE = "embedding.safetensors"
SPACE = "▁"  # a piece that is nothing but SentencePiece's mark of a word's beginning


@dataclass(frozen=True)
class EncoderStorage:
    """How an encoder is held: `keep` in memory, or read when it is needed, with texts kept in `store`; `variant` of the files, `dtype` of its arithmetic."""

    keep: bool = True
    dtype: torch.dtype = torch.float32
    variant: str = ""
    store: Store | None = None


@dataclass
class TextEncoder:
    """`read` brings the network into memory; `run` gives its embeddings; `table` finds its token table.

    `marks` counts the tokens that frame a prompt; `key` names encoder and arithmetic.
    """

    tokenizer: Any
    read: Callable[[], Any]
    run: Callable[[Any, Any], Tensor]
    table: Callable[[Any], nn.Embedding]
    prepared: Callable[[str], str]
    marks: int
    keeping: EncoderStorage
    key: dict[str, object]
    _network: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.keeping.keep:
            self._network = self.read()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed prompts: (B, 77, D) float32 on the CPU. What the store has needs no network."""
        store = self.keeping.store
        if self.keeping.keep or store is None:
            return self._embed([self.prepared(text) for text in texts])
        rows = []
        for text in map(self.prepared, texts):

            def build(folder: Path, text: str = text) -> None:
                save_file({"embedding": self._embed([text])[0].contiguous()}, folder / FILE)

            rows.append(
                load_file(store.get_or_make("embedding", self.key | {"text": text}, build) / FILE)[
                    "embedding"
                ]
            )
        return torch.stack(rows)

    def encode_with(self, texts: Sequence[str], learned: Mapping[str, Tensor]) -> Tensor:
        """Embed prompts in which words stand for vectors (n, D) in the place of the token table's: (B, 77, D) float32 on the CPU, with gradients to them."""
        network = self._in_memory()
        words = {self.prepared(word): vectors for word, vectors in learned.items()}
        spelled = [self._spelled(self.prepared(text), words) for text in texts]
        tokens = self.tokenizer.pad(
            {"input_ids": [ids for ids, _ in spelled]},
            padding="max_length",
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        )
        places = torch.tensor(
            [[*rows, *[-1] * (TEXT_LENGTH - len(rows))] for _, rows in spelled],
            device=network.device,
        )
        vectors = torch.cat(list(words.values())).to(network.device)

        def put(_table: Any, _inputs: Any, output: Tensor) -> Tensor:
            return torch.where(
                places[..., None] < 0, output, vectors[places.clamp(min=0)].to(output.dtype)
            )

        hook = self.table(network).register_forward_hook(put)
        try:
            return self.run(network, tokens.to(network.device)).float().cpu()
        finally:
            hook.remove()

    def vector(self, word: str) -> Tensor:
        """Return a word's vector in the token table, (1, D) float32 on the CPU; refused as `piece` refuses."""
        return self.table(self._in_memory()).weight[[self.piece(word)]].detach().float().cpu()

    def piece(self, word: str) -> int:
        """Return the id of a word that is one piece; a word that is unknown or several pieces has no vector of its own and is refused."""
        pieces = [piece for piece in self.tokenize(word) if piece != SPACE]
        ids = self.tokenizer.convert_tokens_to_ids(pieces)
        if len(pieces) > 1:
            cut = f"{len(pieces)} pieces of the text encoder's vocabulary ({' '.join(pieces)})"
            raise Refused(
                f"a learned word starts at the vector of one piece, but {word!r} is {cut}; give a simpler word: method.initializer=cat"
            )
        if not ids or ids[0] in (self.tokenizer.unk_token_id, None):
            raise Refused(
                f"a learned word starts at a known word's vector, but {word!r} is unknown to the text encoder; give another: method.initializer=cat"
            )
        return ids[0]

    @property
    def arithmetic(self) -> str:
        """What names the rounding of the embeddings."""
        return str(self.keeping.dtype)

    def release(self) -> None:
        """Free an encoder that is not kept: the networks need its memory."""
        if self._network is not None and not self.keeping.keep:
            self._network = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into pieces, without end marks."""
        return self.tokenizer.tokenize(self.prepared(text))

    @property
    def pieces(self) -> list[str]:
        """The pieces to make rare tokens of."""
        everything = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return (
            everything[5000:10000] or everything
        )  # DreamBooth draws from these ids of T5-XXL's vocabulary

    def _spelled(self, text: str, words: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
        """Return token ids, marks included, and of each token its row among all words' vectors, -1 where it is the table's own."""
        ids, rows = [], []
        first = dict(
            zip(words, itertools.accumulate(map(len, words.values()), initial=0), strict=False)
        )
        for part in re.split(f"({'|'.join(map(re.escape, words))})", text):
            if part in words:
                more = [0] * len(words[part])
                rows += range(first[part], first[part] + len(more))
            else:
                more = (
                    self.tokenizer(part.strip(), add_special_tokens=False).input_ids
                    if part.strip()
                    else []
                )
                rows += [-1] * len(more)
            ids += more
        begin, end = (
            (frame := self.tokenizer("").input_ids)[: self.marks - 1],
            frame[self.marks - 1 :],
        )
        room = TEXT_LENGTH - self.marks
        return [*begin, *ids[:room], *end], [*[-1] * len(begin), *rows[:room], *[-1] * len(end)]

    def _in_memory(self) -> Any:
        if self._network is None:
            log.info("reading the text encoder for texts that are not in the store")
            self._network = self.read()
        return self._network

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


def t5(
    folder: Path, device: torch.device, *, keeping: EncoderStorage, identity: str
) -> TextEncoder:
    """Return the T5 of an IF-shaped pipeline folder; the mask of the padding is T5's alone."""
    # Lower case is IF's own preprocessing.
    return _encoder(
        folder,
        device,
        T5EncoderModel,
        keeping,
        identity,
        _run_t5,
        lambda network: network.encoder.embed_tokens,
        _lower,
        marks=1,
    )


def clip(
    folder: Path, device: torch.device, *, keeping: EncoderStorage, identity: str
) -> TextEncoder:
    """Return the CLIP text encoder of a Stable Diffusion pipeline folder, whose last layer's states are the embedding."""
    return _encoder(
        folder,
        device,
        CLIPTextModel,
        keeping,
        identity,
        _run_clip,
        lambda network: network.get_input_embeddings(),
        _as_it_is,
        marks=2,
    )


def _lower(text: str) -> str:
    return text.lower().strip()


def _as_it_is(text: str) -> str:
    return text


def _run_clip(network: Any, tokens: Any) -> Tensor:
    return network(tokens.input_ids)[0]


def _run_t5(network: Any, tokens: Any) -> Tensor:
    return network(tokens.input_ids, attention_mask=tokens.attention_mask)[0]


def _encoder(
    folder: Path,
    device: torch.device,
    kind: Any,
    keeping: EncoderStorage,
    identity: str,
    run: Callable[[Any, Any], Tensor],
    table: Callable[[Any], nn.Embedding],
    prepared: Callable[[str], str],
    *,
    marks: int,
) -> TextEncoder:
    def read() -> Any:
        part = folder / "text_encoder"
        variant = files.held_variant(part, keeping.variant)
        network = kind.from_pretrained(
            part,
            torch_dtype=keeping.dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
        )
        return network.eval().requires_grad_(False).to(device)

    key: dict[str, object] = {
        "encoder": identity,
        "dtype": str(keeping.dtype),
        "variant": keeping.variant,
        "device": device.type,
    }
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return TextEncoder(tokenizer, read, run, table, prepared, marks, keeping, key)
