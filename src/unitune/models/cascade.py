"""A cascade: stages and a text encoder that are loaded once.

Tuned weights are swapped in for a while and always out again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unitune.models import files, hub, text
from unitune.models.families import family
from unitune.models.families.interface import Placement
from unitune.models.files import Model
from unitune.models.stage import UNetStage
from unitune.storage.store import Store
from unitune.types import Refused, Tuned

log = logging.getLogger(__name__)
READ = (".safetensors", ".bin", ".json", ".model")  # endings of files that change a result
VOCABULARY = ("merges.txt", "vocab.txt")
CARD = "card.json"  # accuracies that were measured, beside weights


@dataclass
class Cascade:
    """Stages in the order of sampling, and the text encoder of all."""

    name: str
    stages: Sequence[UNetStage]
    text_encoder: text.TextEncoder
    encoder: Callable[[Sequence[str]], Tensor]  # embeds prompts; inside `using` with learned words
    release: Callable[[], None]  # frees an encoder that is not kept in memory
    digest: str  # names the base weights
    known: frozenset[str] | None = None  # the words of a model with a small vocabulary
    embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def stage(self, name: str) -> UNetStage:
        """Return a stage by name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise Refused(f"no stage {name!r} in {self.name}; it has: {names}")

    @property
    def resolution(self) -> int:
        """Side of the finished picture, px."""
        return self.stages[-1].resolution

    @property
    def evaluations(self) -> int:
        """Pictures that have passed through the networks."""
        return sum(stage.evaluations for stage in self.stages)

    @property
    def max_tokens(self) -> int:
        """Places for a prompt's tokens with one end mark."""
        return text.TEXT_LENGTH + 1 - self.text_encoder.marks

    @property
    def tokenize(self) -> Callable[[str], list[str]]:
        """Cuts a text into pieces, without end marks."""
        return self.text_encoder.tokenize

    @property
    def unseen(self) -> Callable[[str], list[str]]:
        """Lists the words of a text that the text encoder cannot read."""
        return self.text_encoder.unseen

    @property
    def pieces(self) -> Sequence[str]:
        """The tokenizer's vocabulary, as far as rare tokens are drawn from it."""
        return self.text_encoder.pieces

    def embed(self, texts: Sequence[str]) -> None:
        """Make sure of the texts' embeddings.

        All texts of a run in one call read a large encoder at most once.
        """
        missing = [line for line in dict.fromkeys(texts) if line not in self.embeddings]
        for line in missing:
            self.embeddings[line] = self.encoder([line])[0]
        if missing:
            self.release()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed prompts, (B, L, D) float32; each alone, so that a batch does not change it."""
        self.embed(texts)
        return torch.stack([self.embeddings[line] for line in texts])

    @contextmanager
    def using(self, tuned: Tuned) -> Iterator["Cascade"]:
        """Predict with tuned weights and know learned words inside the context.

        Afterwards all is as before, also when the body raises.
        """
        with ExitStack() as stack:
            for name, weights in tuned.weights.items():
                stack.enter_context(self.stage(name).using(weights))
            if tuned.tokens:
                stack.enter_context(self._knowing(tuned.tokens))
            yield self

    @contextmanager
    def _knowing(self, learned: Mapping[str, Tensor]) -> Iterator[None]:
        """Embed prompts with these words; they mean one image's, so none is kept afterwards."""
        embeddings, encoder = self.embeddings, self.encoder

        def holds(line: str) -> bool:
            return any(word in line for word in learned)

        def encode(lines: Sequence[str]) -> Tensor:
            with_words = any(map(holds, lines))
            return self.text_encoder.encode_with(lines, learned) if with_words else encoder(lines)

        self.embeddings = {line: row for line, row in embeddings.items() if not holds(line)}
        self.encoder = encode
        try:
            yield
        finally:
            self.embeddings, self.encoder = embeddings, encoder


def load(
    name: str, folder: Path, *, stages: Sequence[str], device: torch.device, dtype: torch.dtype
) -> Cascade:
    """Load an IF-shaped cascade from a local folder, all in float32 and kept in memory."""
    return build(Model(name, tuple(stages), path=str(folder)), device=device, dtype=dtype)


def build(
    model: Model, *, device: torch.device, dtype: torch.dtype, store: Store | None = None
) -> Cascade:
    """Load a model.

    `dtype` is the machine's arithmetic; `store` keeps the embeddings of an encoder that is not kept
    in memory.
    """
    kind, folders = family(model.family), files.folders(model)
    log.info("loading %s on %s (%s)", model.name, device, dtype)
    held = {"fp32": torch.float32, "machine": dtype}
    first = folders[model.stages[0]]
    # Without a store nothing asks for the encoder's name, and hashing gigabytes takes a while.
    identity = ""
    if store is not None and not model.keep_text_encoder:
        parts = [part for part in kind.first if part.startswith(("text_encoder", "tokenizer"))]
        identity = _identity([first / part for part in parts], [hub.commit(first)])
    storage = text.EncoderStorage(
        model.keep_text_encoder, held[model.text_precision], model.variant, store
    )
    text_encoder = kind.read_encoder(first, device, storage=storage, identity=identity)
    placement = Placement(
        device, dtype, held[model.weights], model.variant, model.gradient_checkpointing
    )
    stages: list[UNetStage] = []
    for name, folder in folders.items():
        low = stages[-1].resolution if stages else 0
        stages.append(kind.load_stage(folder, name, low, placement))
    weights = _identity(list(folders.values()), [hub.commit(f) for f in folders.values()])
    return Cascade(
        name=model.name,
        stages=stages,
        text_encoder=text_encoder,
        encoder=text_encoder.encode,
        release=text_encoder.release,
        digest=f"{weights} {model.variant}".strip(),
        known=None if model.path is None else _known_words(Path(model.path)),
    )


def _identity(folders: Sequence[Path], commits: Sequence[str | None]) -> str:
    """Name weights by their commits where all come from the hub, else by their bytes."""
    named = [commit for commit in commits if commit is not None]
    if len(named) < len(commits):
        return files_digest(folders)
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def files_digest(folders: Sequence[Path]) -> str:
    """Sha256 over the names and bytes of weights and settings in these folders, without cards."""
    digest = hashlib.sha256()
    for folder in folders:
        every = (p for p in folder.rglob("*") if p.suffix in READ or p.name in VOCABULARY)
        for file in sorted(p for p in every if p.name != CARD):
            digest.update(f"{folder.name}/{file.relative_to(folder)}".encode())
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def weights_digest(network: torch.nn.Module) -> str:
    """Sha256 over names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _known_words(folder: Path) -> frozenset[str] | None:
    """Return the words that a small model was trained on, or None where it has no such list."""
    file = folder / "words.json"
    return frozenset(json.loads(file.read_text())) if file.is_file() else None
