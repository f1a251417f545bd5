"""A cascade: stages and a text encoder that are loaded once; tuned weights are swapped in for a while and always out again."""

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
from unitune.models.families import floyd, stable_diffusion
from unitune.models.files import Model
from unitune.models.stage import Storage, UNetStage
from unitune.storage.store import Store
from unitune.types import Refused, Tuned

log = logging.getLogger(__name__)
CARD = "card.json"  # accuracies that were measured, beside weights


@dataclass
class Cascade:
    """Stages in the order of sampling. `encoder` embeds prompts; `digest` names the base weights; `known` the words of a model with a small vocabulary.

    `words` embeds prompts with learned words; `release` frees an encoder that is not kept in memory; `max_tokens` are the places for a prompt's tokens with
    one end mark.
    """

    name: str
    stages: Sequence[UNetStage]
    encoder: Callable[[Sequence[str]], Tensor]
    tokenize: Callable[[str], list[str]]
    pieces: Sequence[str]  # the tokenizer's vocabulary, as far as rare tokens are drawn from it
    digest: str
    words: text.TextEncoder
    known: frozenset[str] | None = None
    release: Callable[[], None] = lambda: None
    max_tokens: int = text.TEXT_LENGTH
    embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def stage(self, name: str) -> UNetStage:
        """Return a stage by name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Refused(
            f"no stage {name!r} in {self.name}; it has: {', '.join(s.name for s in self.stages)}"
        )

    @property
    def resolution(self) -> int:
        """Side of the finished picture, px."""
        return self.stages[-1].resolution

    @property
    def evaluations(self) -> int:
        """Pictures that have passed through the networks."""
        return sum(stage.evaluations for stage in self.stages)

    def embed(self, texts: Sequence[str]) -> None:
        """Make sure of the texts' embeddings: all texts of a run in one call read a large encoder at most once."""
        missing = [line for line in dict.fromkeys(texts) if line not in self.embeddings]
        for line in missing:
            self.embeddings[line] = self.encoder([line])[0]
        if missing:
            self.release()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed prompts, (B, L, D) float32; each text is encoded once, alone, so that a batch does not change it."""
        self.embed(texts)
        return torch.stack([self.embeddings[line] for line in texts])

    @contextmanager
    def using(self, tuned: Tuned) -> Iterator["Cascade"]:
        """Predict with tuned weights and know learned words inside the context; afterwards all is as before, also when the body raises."""
        with ExitStack() as stack:
            for name, weights in tuned.weights.items():
                stack.enter_context(self.stage(name).using(weights))
            if tuned.tokens:
                stack.enter_context(self._knowing(tuned.tokens))
            yield self

    @contextmanager
    def _knowing(self, learned: Mapping[str, Tensor]) -> Iterator[None]:
        """Embed prompts with these words; what they mean belongs to one image, so embeddings made meanwhile are forgotten."""
        embeddings, encoder = self.embeddings, self.encoder

        def holds(line: str) -> bool:
            return any(word in line for word in learned)

        self.embeddings = {
            line: embedding for line, embedding in embeddings.items() if not holds(line)
        }
        self.encoder = lambda lines: (
            self.words.encode_with(lines, learned) if any(map(holds, lines)) else encoder(lines)
        )
        try:
            yield
        finally:
            self.embeddings, self.encoder = embeddings, encoder


def weights_digest(network: torch.nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.numel()
            else b""
        )
    return digest.hexdigest()


def load(
    name: str, folder: Path, *, stages: Sequence[str], device: torch.device, dtype: torch.dtype
) -> Cascade:
    """Load an IF-shaped cascade from a local folder, everything in float32 and kept in memory."""
    return build(Model(name, tuple(stages), path=str(folder)), device=device, dtype=dtype)


def build(
    model: Model, *, device: torch.device, dtype: torch.dtype, store: Store | None = None
) -> Cascade:
    """Load a model; `dtype` is the machine's arithmetic, `store` keeps the embeddings of an encoder that is not kept in memory."""
    places = files.folders(model)
    log.info("loading %s on %s (%s)", model.name, device, dtype)
    held = {"fp32": torch.float32, "machine": dtype}
    first = places[model.stages[0]]
    keeping = text.EncoderStorage(
        model.keep_text_encoder, held[model.text_precision], model.variant, store
    )
    # Without a store nothing asks for the encoder's name, and hashing gigabytes takes a while.
    identity = (
        ""
        if model.keep_text_encoder or store is None
        else _identity([first / part for part in ("text_encoder", "tokenizer")], hub.commit(first))
    )
    kind = text.t5 if model.family == "floyd" else text.clip
    encoder = kind(first, device, keeping=keeping, identity=identity)
    storage = Storage(held[model.weights], model.variant, model.gradient_checkpointing)
    stages: list[UNetStage] = []
    for name, folder in places.items():
        low = stages[-1].resolution if stages else 0
        if model.family == "floyd":
            stages.append(
                floyd.load_stage(
                    folder, name, low_resolution=low, device=device, dtype=dtype, storage=storage
                )
            )
        else:
            stages.append(
                stable_diffusion.load_stage(
                    folder, name, device=device, dtype=dtype, storage=storage
                )
            )
    commits = [hub.commit(folder) for folder in places.values()]
    digest = _identity(list(places.values()), *commits, variant=model.variant)
    known = known_words(Path(model.path)) if model.path is not None else None
    max_tokens = text.TEXT_LENGTH + 1 - encoder.marks
    return Cascade(
        model.name,
        stages,
        encoder.encode,
        encoder.tokenize,
        encoder.pieces,
        digest,
        encoder,
        known,
        encoder.release,
        max_tokens,
    )


def _identity(folders: Sequence[Path], *commits: str | None, variant: str = "") -> str:
    """Name weights by their commits where all come from the hub, else by their bytes."""
    named = [commit for commit in commits if commit is not None]
    weights = (
        hashlib.sha256("\n".join(named).encode()).hexdigest()
        if len(named) == len(commits)
        else files_digest(folders)
    )
    return f"{weights} {variant}".strip()


def files_digest(folders: Sequence[Path]) -> str:
    """sha256 over the names and bytes of weights and settings in these folders; cards and notes beside them do not count."""
    digest = hashlib.sha256()
    for folder in folders:
        every = (p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json"))
        for file in sorted(p for p in every if p.name != CARD):
            digest.update(f"{folder.name}/{file.relative_to(folder)}".encode())
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def known_words(folder: Path) -> frozenset[str] | None:
    """Return the words that a small model was trained on, or None where the model has no such list."""
    file = folder / "words.json"
    return frozenset(json.loads(file.read_text())) if file.is_file() else None
