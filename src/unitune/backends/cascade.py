"""A cascade: stages and a text encoder that are loaded once; tuned weights are swapped in for a while and always out again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unitune import machine
from unitune.backends import floyd
from unitune.backends.floyd import FloydStage
from unitune.types import Refused, Tuned


@dataclass
class Cascade:
    """Stages in the order of sampling. `encoder` embeds prompts; `digest` names the base weights; `known` the words of a model with a small vocabulary."""

    name: str
    stages: Sequence[FloydStage]
    encoder: Callable[[Sequence[str]], Tensor]
    tokenize: Callable[[str], list[str]]
    pieces: Sequence[str]  # the tokenizer's vocabulary, as far as rare tokens are drawn from it
    digest: str
    known: frozenset[str] | None = None
    embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def stage(self, name: str) -> FloydStage:
        """Return a stage by name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Refused(f"no stage {name!r} in {self.name}; it has: {', '.join(s.name for s in self.stages)}")

    @property
    def resolution(self) -> int:
        """Side of the finished picture, px."""
        return self.stages[-1].resolution

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed prompts, (B, L, D) float32; each text is encoded once, alone, so that a batch does not change it."""
        for text in dict.fromkeys(texts):
            if text not in self.embeddings:
                self.embeddings[text] = self.encoder([text])[0]
        return torch.stack([self.embeddings[text] for text in texts])

    @contextmanager
    def using(self, tuned: Tuned) -> Iterator["Cascade"]:
        """Predict with tuned weights inside the context; the base weights come back also when the body raises."""
        with ExitStack() as stack:
            for name, weights in tuned.weights.items():
                stack.enter_context(self.stage(name).using(weights))
            yield self


def weights_digest(network: torch.nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def pocket(*, device: str = "auto", precision: str = "auto") -> Cascade:
    """Load the embedded cascade of the package."""
    chosen = machine.device(device)
    folder = Path(__file__).parent.parent / "assets" / "pocket"
    return load("pocket", folder, stages=("base", "sr256"), device=chosen, dtype=machine.precision(precision, chosen))


def load(name: str, folder: Path, *, stages: Sequence[str], device: torch.device, dtype: torch.dtype) -> Cascade:
    """Load an IF-shaped cascade: one subfolder per stage in the diffusers format; the first holds the text encoder of all."""
    if not folder.is_dir():
        raise Refused(f"no model folder {folder}; give model.path the folder that holds {', '.join(stages)}")
    encode, tokenize, pieces = floyd.text_encoder(folder / stages[0], device)
    loaded: list[FloydStage] = []
    for stage in stages:
        low_resolution = loaded[-1].resolution if loaded else 0
        loaded.append(floyd.load_stage(folder / stage, stage, low_resolution=low_resolution, device=device, dtype=dtype))
    return Cascade(name, loaded, encode, tokenize, pieces, floyd.files_digest([folder / stage for stage in stages]), floyd.known_words(folder))
