"""The judge: a small network that reads the facts of a scene off a picture.

What is asked of it about edits is in success.py.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from unitune.metrics.weights import changed
from unitune.models import parameters
from unitune.scenes.scene import MAX_OBJECTS
from unitune.scenes.vocabulary import COLOURS, NOUNS, PLACES, STYLES, TIMES
from unitune.types import Refused

SIZE = 64  # px
CHUNK = 64  # pictures per forward pass
SETS = ("nouns", "colours")  # facts of several words in any order
LISTS = (*SETS, "order")
ONE_OF_MANY = ("place", "time", "style")
VOCABULARY: Mapping[str, Sequence[str]] = {
    "nouns": tuple(NOUNS),
    "place": tuple(PLACES),
    "time": tuple(TIMES),
    "style": tuple(STYLES),
    "colours": tuple(COLOURS),
}


def reduced(image: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 size size"]:
    """Average pictures down to a square of `size` px."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, (size, size), mode="area")


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; stride 2 halves the side."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, out, 3, stride), nn.ReLU(), _conv(out, out, 3))
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.skip = nn.Sequential(nn.AvgPool2d(stride), _conv(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.skip(x))


class Judge(nn.Module):
    """Logits of facts from pictures in [-1, 1]; about 0.7 M parameters.

    `nouns` and `colours` (some object is painted so) are multi-label; `place`, `time`, `style` and
    `count` (objects less one) are one of many; `side` tells for each noun whether its object stands
    right of the middle. The network is thin at 32 px and wide at 16 and 8 px, where a CPU trains
    fastest; the mean tells the place, the maxima of the left and the right half that an object is
    there.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, Sequence[str]] = VOCABULARY,
        *,
        max_objects: int = MAX_OBJECTS,
    ) -> None:
        super().__init__()
        self.max_objects = max_objects
        self.vocabulary = {name: tuple(words) for name, words in vocabulary.items()}
        self.trunk = nn.Sequential(
            _conv(3, 24, 3, 2),
            nn.ReLU(),
            _conv(24, 32, 3),
            nn.ReLU(),
            Residual(32, 64, stride=2),
            Residual(64, 64),
            Residual(64, 128, stride=2),
            Residual(128, 128),
        )
        widths = {name: len(words) for name, words in self.vocabulary.items()}
        widths |= {"side": widths["nouns"], "count": max_objects}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(3 * 128, width) for name, width in widths.items()}
        )

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Return the logits of every fact, (B, words) each."""
        x = self.trunk(reduced(image, SIZE))
        left, right = (half.amax(dim=(2, 3)) for half in x.chunk(2, dim=3))
        features = torch.cat([x.mean(dim=(2, 3)), left, right], dim=1)
        return {name: head(features) for name, head in self.heads.items()}


def save_judge(judge: Judge, folder: Path) -> None:
    """Write `model.safetensors` (float16) and `config.json` (the vocabulary)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in judge.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    config = {"size": SIZE, "vocabulary": judge.vocabulary, "max_objects": judge.max_objects}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_card(folder: Path) -> dict[str, str]:
    """Return the numbers of `card.json` beside the weights as text; empty where there is none."""
    file = folder / "card.json"
    numbers = json.loads(file.read_text()) if file.exists() else {}
    return {
        name: f"{value:.3f}" if isinstance(value, float) else str(value)
        for name, value in numbers.items()
    }


def load_judge(folder: str | Path) -> Judge:
    """Load a saved judge in float32, ready to read pictures."""
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise Refused(
            f"no judge in {folder}: config.json is missing; "
            "name the folder that holds model.safetensors and config.json"
        )
    config = json.loads((folder / "config.json").read_text())
    judge = Judge(config["vocabulary"], max_objects=config.get("max_objects", MAX_OBJECTS))
    file = folder / "model.safetensors"
    parameters.fill(judge, parameters.load(file), file=file, what="its config.json")
    return judge.eval().requires_grad_(False)


def shared_judge(folder: str | Path) -> Judge:
    """Load a saved judge once per process as long as the file of its weights stays the same."""
    folder = Path(folder).resolve()
    return _loaded(folder, changed(folder / "model.safetensors"))


@lru_cache(maxsize=4)
def _loaded(folder: Path, changed: int) -> Judge:
    return load_judge(folder)


@torch.no_grad()
def read_facts(judge: Judge, image: Float[Tensor, "B 3 H W"]) -> list[dict[str, object]]:
    """Return what a judge in eval mode sees in each picture.

    That is {"nouns": set, "colours": set, "place": str, "time": str, "style": str, "count": int,
    "right": dict}; `right` is a logit per noun: how surely it stands right of the middle.
    """
    device = next(judge.parameters()).device
    seen: list[dict[str, object]] = []
    for chunk in image.split(CHUNK):
        logits = {name: value.cpu() for name, value in judge(chunk.to(device).float()).items()}
        for row in range(len(chunk)):
            seen.append(_facts(judge.vocabulary, {name: x[row] for name, x in logits.items()}))
    return seen


def _facts(words: Mapping[str, Sequence[str]], logits: Mapping[str, Tensor]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for name in SETS:
        scored = zip(words[name], logits[name].tolist(), strict=True)
        facts[name] = {word for word, logit in scored if logit > 0}
    for name in ONE_OF_MANY:
        facts[name] = words[name][int(logits[name].argmax())]
    facts["count"] = int(logits["count"].argmax()) + 1
    facts["right"] = dict(zip(words["nouns"], logits["side"].tolist(), strict=True))
    return facts


def found(facts: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Say whether all facts are among those seen; `order` lists nouns from left to right."""
    sides = [seen["right"][noun] for noun in facts.get("order", ())]
    if any(a >= b for a, b in pairwise(sides)):
        return False
    return all(
        set(value) <= seen[name] if name in SETS else seen[name] == value
        for name, value in facts.items()
        if name != "order"
    )
