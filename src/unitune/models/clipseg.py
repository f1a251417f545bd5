"""CLIPSeg (Lueddecke & Ecker 2022, arXiv 2112.10003) finds in a picture what words name."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError

from unitune.models import hub, structure, tokenizers, weight_files
from unitune.models.libraries import CLIPSegForImageSegmentation, CLIPTokenizer
from unitune.types import Mask, Picture, Refused

SIDE = 352  # px, as its processor resizes; positions are interpolated to that
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on [0, 1]
FILES = ("*.json", "*.txt", "*.safetensors")
OTHERWISE = "give mask.segmenter.model a local folder that holds it"


@dataclass(frozen=True)
class ClipSeg:
    """The network of `model`, a local folder or owner/name@revision; on the CPU, when asked."""

    model: str

    @torch.no_grad()
    def __call__(self, image: Picture, words: str) -> Mask:
        """Return the probability of the words at each pixel of a picture in [-1, 1]."""
        tokenizer, network = load(self.model)
        x = F.interpolate(image, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
        mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
        tokens = tokenizer([words], truncation=True, return_tensors="pt")
        logits = network(
            pixel_values=((x + 1) / 2 - mean) / std, input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
        ).logits  # fmt: skip
        logits = logits.reshape(1, 1, *logits.shape[-2:])
        return F.interpolate(logits, tuple(image.shape[-2:]), mode="bilinear").sigmoid()


@lru_cache(maxsize=1)
def load(model: str) -> tuple[Any, Any]:
    """Return the tokenizer and the network of a folder, the hub's cache or the hub."""
    folder: Path | None = Path(model)
    if not folder.is_dir():
        repo = hub.Repo.parse(model)
        folder = hub.cached(repo)
        if folder is None or not (folder / "config.json").is_file():
            folder = hub.fetch(repo, FILES, file="config.json", otherwise=OTHERWISE)
    try:
        structure.check(folder, CLIPSegForImageSegmentation, names=weight_files.TRANSFORMERS)
        safe = not weight_files.find(folder, names=weight_files.TRANSFORMERS).pickled
        network = structure.load(
            CLIPSegForImageSegmentation, folder, use_safetensors=safe, local_files_only=True
        )
        tokenizer = tokenizers.read(folder, CLIPTokenizer)
    except Refused as refused:
        raise Refused(f"no CLIPSeg can be read from {folder}: {refused}; or {OTHERWISE}") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise Refused(
            f"no CLIPSeg can be read from {folder} "
            f"({str(error).strip().splitlines()[0][:120]}); {OTHERWISE}"
        ) from error
    return tokenizer, network
