"""Text encoders: T5 and CLIP, frozen. A large one is read only when a text is not in the store, and freed again."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from unitune import models
from unitune.store import Store

log = logging.getLogger(__name__)
TEXT_LENGTH = 77  # tokens; IF was trained so, and its UNet sees no mask; CLIP has no more places
FILE = "embedding.safetensors"


@dataclass(frozen=True)
class Keeping:
    """How an encoder is held: `keep` in memory, or read when it is needed, with texts kept in `store`; `variant` of the files, `dtype` of its arithmetic."""

    keep: bool = True
    dtype: torch.dtype = torch.float32
    variant: str = ""
    store: Store | None = None


@dataclass
class TextEncoder:
    """`read` brings the network into memory; `run` gives its embeddings; `marks` counts the tokens that frame a prompt; `key` names encoder and arithmetic."""

    tokenizer: Any
    read: Callable[[], Any]
    run: Callable[[Any, Any], Tensor]
    prepared: Callable[[str], str]
    marks: int
    keeping: Keeping
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

            rows.append(load_file(store.get_or_make("embedding", self.key | {"text": text}, build) / FILE)["embedding"])
        return torch.stack(rows)

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
        return everything[5000:10000] or everything  # DreamBooth draws from these ids of T5-XXL's vocabulary

    @torch.no_grad()
    def _embed(self, lines: list[str]) -> Tensor:
        if self._network is None:
            log.info("reading the text encoder for texts that are not in the store")
            self._network = self.read()
        tokens = self.tokenizer(lines, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
        return self.run(self._network, tokens.to(self._network.device)).float().cpu()


def t5(folder: Path, device: torch.device, *, keeping: Keeping, identity: str) -> TextEncoder:
    """Return the T5 of an IF-shaped pipeline folder; the mask of the padding is T5's alone."""
    return _encoder(folder, device, T5EncoderModel, keeping, identity, _run_t5, lambda text: text.lower().strip(), marks=1)  # IF's own preprocessing


def clip(folder: Path, device: torch.device, *, keeping: Keeping, identity: str) -> TextEncoder:
    """Return the CLIP text encoder of a Stable Diffusion pipeline folder, whose last layer's states are the embedding."""
    return _encoder(folder, device, CLIPTextModel, keeping, identity, lambda network, tokens: network(tokens.input_ids)[0], lambda text: text, marks=2)


def _run_t5(network: Any, tokens: Any) -> Tensor:
    return network(tokens.input_ids, attention_mask=tokens.attention_mask)[0]


def _encoder(
    folder: Path,
    device: torch.device,
    kind: Any,
    keeping: Keeping,
    identity: str,
    run: Callable[[Any, Any], Tensor],
    prepared: Callable[[str], str],
    *,
    marks: int,
) -> TextEncoder:
    def read() -> Any:
        part = folder / "text_encoder"
        variant = models.held_variant(part, keeping.variant)
        network = kind.from_pretrained(part, torch_dtype=keeping.dtype, variant=variant, use_safetensors=True, local_files_only=True)
        return network.eval().requires_grad_(False).to(device)

    key: dict[str, object] = {"encoder": identity, "dtype": str(keeping.dtype), "variant": keeping.variant, "device": device.type}
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return TextEncoder(tokenizer, read, run, prepared, marks, keeping, key)
