"""The files that hold a part's weights: which of them the libraries read, and what is in them.

Names, sizes and headers alone are read, which is enough to refuse a folder before it is loaded.
"""

import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unitune.errors import Refused

Shape = tuple[int, ...]
SAFE, PICKLE = "safetensors", "bin"  # endings of the two formats, the better one first
# Names that diffusers and transformers read, by ending.
DIFFUSERS = {SAFE: "diffusion_pytorch_model", PICKLE: "diffusion_pytorch_model"}
TRANSFORMERS = {SAFE: "model", PICKLE: "pytorch_model"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ADAPTER = "adapter_config.json"  # of peft; transformers would read the adapter without a word
# Names of files and tensors: LoRA of peft, diffusers and kohya, LoHa, LoKr, IA3.
OF_ADAPTERS = re.compile(r"(?<![a-z])(lora|ia3)|\.base_layer\.|hada_w|lokr_w|adapter")
LONGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit
MERGE = (
    "merge it into the weights (fuse_lora and unload_lora_weights of the pipeline, or "
    "merge_and_unload of peft) and save the model again"
)


class Weights(NamedTuple):
    """The files of a part's weights, as `from_pretrained` would choose them."""

    files: tuple[Path, ...]
    variant: str  # of the files, e.g. fp16; "" of the plain ones
    pickled: bool = False
    sharded: bool = False


def find(part: Path, variant: str = "", names: Mapping[str, str] | None = None) -> Weights:
    """Find a part's weights: of the variant where there are any, else plain; safetensors first.

    Raises Refused where there are none, with what lies there instead.
    """
    names = names or (TRANSFORMERS if part.name.startswith("text_encoder") else DIFFUSERS)
    for mark in dict.fromkeys((variant, "")):
        dotted = f".{mark}" if mark else ""
        for ending, stem in names.items():
            index = part / f"{stem}.{ending}.index{dotted}.json"
            single = part / f"{stem}{dotted}.{ending}"
            # Where there are both, transformers reads the one file and diffusers the shards.
            if index.is_file() and not (names is TRANSFORMERS and single.is_file()):
                return Weights(_shards(index), mark, ending == PICKLE, sharded=True)
            if single.is_file():
                return Weights((single,), mark, ending == PICKLE)
    raise Refused(f"{part} {_instead(part, names)}")


def tensors(weights: Weights) -> dict[str, Shape]:
    """Read names and shapes of all tensors; raises Refused for a file that is damaged."""
    found: dict[str, Shape] = {}
    for file in weights.files:
        found |= _pickled(file) if weights.pickled else header(file)
    return found


def counts(part: Path, variant: str = "") -> dict[str, int]:
    """Count the values of each tensor of a part; raises Refused where files are missing."""
    return {name: math.prod(shape) for name, shape in tensors(find(part, variant)).items()}


def header(file: Path) -> dict[str, Shape]:
    """Read the shape of each tensor in a safetensors file from its header.

    Raises Refused where the file is damaged or cut.
    """
    size = file.stat().st_size
    # 8 bytes of the header's length, JSON with every tensor's place, then data to the file's end.
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(size, LONGEST_HEADER) else b""
    try:
        entries = {
            name: entry for name, entry in json.loads(text).items() if name != "__metadata__"
        }
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise damaged(f"{file} is damaged: not a whole safetensors file ({size} bytes)") from None
    if end != size:
        raise damaged(f"{file} is truncated or damaged: it has {size} of {end} bytes")
    return shapes


def of_adapter(name: str) -> bool:
    """Whether a tensor or a file belongs to an adapter, by its name."""
    return OF_ADAPTERS.search(name.lower()) is not None


def json_object(file: Path) -> dict[str, Any]:
    """Read a file of settings; one that is no JSON object is refused."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(f"{file} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise damaged(f"{file} holds no settings")
    return settings


def damaged(what: str) -> Refused:
    """Return the refusal of a file that is missing or broken."""
    return Refused(f"{what}; copy or download that part again")


def _shards(index: Path) -> tuple[Path, ...]:
    shards = json_object(index).get("weight_map")
    names = sorted({*map(str, shards.values())}) if isinstance(shards, dict) else []
    if not names:
        raise damaged(f"{index} names no files of weights")
    for name in names:
        if not (index.parent / name).is_file():
            raise damaged(f"{index} names {name}, which is absent")
    return tuple(index.parent / name for name in names)


def _instead(part: Path, names: Mapping[str, str]) -> str:
    """Say what a part without weights holds in their place, and what to do."""
    others = sorted(file.name for file in part.glob("[!.]*"))
    for name in others:
        if variant := _variant(name, names):
            return f"has no weights but those of a variant ({name}): set model.variant={variant}"
    if adapters := [name for name in others if of_adapter(name)]:
        return f"has no weights but those of an adapter ({adapters[0]}); {MERGE}"
    if pickles := [name for name in others if name.endswith(PICKLES)]:
        return (
            f"holds its weights as a pickle ({pickles[0]}), of which only {names[PICKLE]}.{PICKLE} "
            "is read: convert it to safetensors"
        )
    if files := [name for name in others if name.endswith(f".{SAFE}")]:
        return f"has no weights named {names[SAFE]}.{SAFE}, only {files[0]}: rename or replace it"
    return f"has no weights (*.{SAFE}): copy or download that part again"


def _variant(name: str, names: Mapping[str, str]) -> str:
    """Return the variant that a file's name marks, also of a shard: fp16-00001-of-00002."""
    for ending, stem in names.items():
        if found := re.fullmatch(rf"{stem}\.([^.-]+)(-\d+-of-\d+)?\.{ending}", name):
            return found[1]
    return ""


def _pickled(file: Path) -> dict[str, Shape]:
    """Read the shapes in torch's own format, where it holds tensors and no code."""
    import torch

    try:
        # On `meta` a tensor is its shape; of a mapped file no values are read.
        mapped = zipfile.is_zipfile(file)
        found = torch.load(file, map_location="meta", weights_only=True, mmap=mapped)
        return {str(name): tuple(tensor.shape) for name, tensor in found.items()}
    except Exception as error:  # damaged, or a pickle that is more than tensors
        raise Refused(
            f"{file.parent} holds its weights as a pickle ({file.name}), which cannot be read as "
            f"tensors alone ({type(error).__name__}); convert it to safetensors"
        ) from None
