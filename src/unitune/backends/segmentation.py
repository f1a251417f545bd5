"""Masks from words: CLIPSeg (Lueddecke & Ecker 2022, arXiv 2112.10003) finds in the base image what they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, CLIPSegForImageSegmentation

from unitune import hub, prompts
from unitune.diffusion.masks import Asked, grown
from unitune.types import Example, Mask, Picture, Refused, Request, number

SIDE = 352  # px, as its processor resizes; positions are interpolated to that
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on [0, 1]
FILES = ("*.json", "*.txt", "*.safetensors")
OTHERWISE = "give mask.model a local folder that holds it"


@dataclass(frozen=True)
class Words:
    """Lets change what `words` name: a template of them for each edit. Probabilities above `threshold` count, grown by a share of the side.

    The network is loaded when it is first asked, on the CPU: the check before a run asks it, so that a diffusion model is not loaded for nothing.
    """

    words: str
    model: str  # a local folder, or owner/name@revision
    name: str = "words"
    threshold: float = 0.5
    grow: float = 0.0

    def __post_init__(self) -> None:
        if not (number(self.threshold) and 0 < self.threshold < 1):
            raise Refused(f"mask.threshold must be in (0, 1), got {self.threshold}")
        if not (number(self.grow) and 0 <= self.grow < 1):
            raise Refused(f"mask.grow must be in [0, 1) (share of the picture's side), got {self.grow}")

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse words that find nothing, and a CLIPSeg that cannot be had."""
        for example in examples:
            for request in example.requests:
                self.mask(example, request)

    def texts(self, example: Example, *, about: str) -> list[str]:
        """Embed nothing: CLIPSeg has a text encoder of its own."""
        return []

    def __call__(self, asked: Asked) -> Tensor:
        """Segment the base image once for each edit prompt."""
        found = {draw.request.prompt: draw.request for draw in asked.draws}
        masks = {prompt: self.mask(asked.example, request) for prompt, request in found.items()}
        return torch.cat([masks[draw.request.prompt] for draw in asked.draws])

    def mask(self, example: Example, request: Request) -> Mask:
        """Return where the words of one edit are, at the picture's resolution."""
        words = prompts.fill(self.words, rare="", edit=request.prompt, caption=example.caption, noun=example.noun)
        p = probabilities(self.model, example.image, words)
        if float(p.max()) <= self.threshold:
            raise Refused(
                f"CLIPSeg finds no {words!r} in {example.id} (probability at most {float(p.max()):.2f}, mask.threshold is {self.threshold}); "
                "name with mask.words= what the picture shows"
            )
        return grown((p > self.threshold).float(), self.grow)


@torch.no_grad()
def probabilities(model: str, image: Picture, words: str) -> Mask:
    """Return the probability of the words at each pixel of a picture in [-1, 1]."""
    tokenizer, network = load(model)
    x = F.interpolate(image, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
    x = ((x + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tokens = tokenizer([words], truncation=True, return_tensors="pt")
    logits = network(pixel_values=x, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits
    return F.interpolate(logits.reshape(1, 1, *logits.shape[-2:]), tuple(image.shape[-2:]), mode="bilinear").sigmoid()


@lru_cache(maxsize=1)
def load(model: str) -> tuple[Any, Any]:
    """Return the tokenizer and the network of a folder, the hub's cache or the hub."""
    folder = Path(model) if Path(model).is_dir() else _fetched(hub.Repo.parse(model))
    try:
        network = CLIPSegForImageSegmentation.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True), network.eval().requires_grad_(False)
    except (OSError, ValueError) as error:
        raise Refused(f"no CLIPSeg can be read from {folder} ({str(error).strip().splitlines()[0][:120]}); {OTHERWISE}") from error


def _fetched(repo: hub.Repo) -> Path:
    from huggingface_hub import snapshot_download

    if (folder := hub.cached(repo)) is not None and (folder / "config.json").is_file():
        return folder
    hub.ask(repo, file="config.json", otherwise=OTHERWISE)
    try:
        return Path(snapshot_download(repo.id, revision=repo.revision, allow_patterns=list(FILES)))
    except Exception as error:  # the HTTP library under the hub's, and so its errors, differ by version
        raise hub.refusal(repo, error, otherwise=OTHERWISE) from error
