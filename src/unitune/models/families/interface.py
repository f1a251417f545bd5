"""What has to be said of a kind of model, so that nothing else asks which kind it is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from unitune.models.stage import UNetStage
    from unitune.models.text import TextEncoder


@dataclass(frozen=True)
class Placement:
    """Where a stage's network runs, and how its weights lie in memory."""

    device: torch.device
    dtype: torch.dtype  # of the network's arithmetic
    stored: torch.dtype  # of untuned matrices and kernels; vectors stay float32
    variant: str = ""  # of the files that are read
    gradient_checkpointing: bool = False


class Published(NamedTuple):
    """Size of a network on the hub, from which the doctor estimates memory before a download."""

    parameters: int
    side: int = 0  # px of what the network reads
    activations: int = 0  # MiB that autograd keeps of one picture in float32


@dataclass(frozen=True)
class Family:
    """One kind of model.

    `problems(folder, first)` says in lines why a stage's folder is none of this kind, reading
    settings alone; `first` is the folder of the first stage, whose text encoder serves all, or None
    where that is not here yet.
    `networks` are the classes of the parts with weights, `text_encoder` among them.
    `read_encoder(folder, device, storage=EncoderStorage, identity=str)` reads the text encoder of a
    first stage's folder; `load_stage(folder, name, low, placement)` reads a stage, where `low` is
    the side of the picture that it enlarges, 0 in a first stage. Both import diffusers and
    transformers themselves, which takes seconds: what a folder lacks is refused before.
    """

    title: str
    first: tuple[str, ...]  # parts of the first stage's folder; its text encoder serves all stages
    later: tuple[str, ...]  # parts of the folder of any other stage; none: there is but one stage
    read_encoder: Callable[..., "TextEncoder"]
    load_stage: Callable[..., "UNetStage"]
    problems: Callable[[Path, Path | None], Iterable[str]]
    networks: Mapping[str, str]  # part -> class of `models.libraries`
    tokenizer: str  # class of the tokenizer where its files do not name one
    network: str = "unet"  # the part that is tuned
    published: Mapping[str, Published] = field(default_factory=dict)  # by repository of the hub
    text_parameters: Mapping[str, int] = field(default_factory=dict)  # by owner of repositories
    gated: tuple[str, ...] = ()  # owners who want a licence accepted and a token
