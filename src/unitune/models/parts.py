"""The parts of a pipeline folder.

Missing and broken ones are named by reading names, sizes and headers, before anything is loaded.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitune.errors import Refused

# Parts without weights and the files of their settings, also of a second one (tokenizer_2); of the
# other parts it is config.json.
SETTINGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LONGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit


def check(folder: Path, parts: Sequence[str], *, variant: str = "") -> None:
    """Refuse a pipeline folder with a missing or broken part, in one line that names it."""
    for part in parts:
        if not (folder / part).is_dir():
            raise Refused(
                f"model folder {folder} has no {part}; "
                f"expected a diffusers pipeline folder with {', '.join(parts)}"
            )
        kind = part.partition("_")[0]
        settings = folder / part / SETTINGS.get(kind, "config.json")
        if not settings.is_file():
            raise _damaged(f"model folder {folder} has no {part}/{settings.name}")
        json_object(settings)
        if kind not in SETTINGS:
            _check_weights(folder / part, variant)


def weights_files(part: Path, variant: str = "") -> list[Path]:
    """List the safetensors to read: the variant's (e.g. fp16) where there are any, or the plain."""
    files = sorted(part.glob("*.safetensors"))
    varied = [file for file in files if variant and f".{variant}" in file.name]
    return varied or [file for file in files if "." not in file.stem]


def held_variant(part: Path, variant: str) -> str | None:
    """Return the variant if the folder has it, as `from_pretrained` takes it."""
    files = weights_files(part, variant)
    return variant if variant and any(f".{variant}" in file.name for file in files) else None


def _check_weights(part: Path, variant: str) -> None:
    found = weights_files(part, variant)
    if not found:
        if pickles := sorted(file.name for file in part.iterdir() if file.suffix in PICKLES):
            raise Refused(
                f"{part} holds its weights as a pickle ({pickles[0]}), which can run code when it "
                "is read; only safetensors are: convert it"
            )
        if others := sorted(part.glob("*.safetensors")):
            raise Refused(
                f"{part} has no weights (*.safetensors); it has {others[0].name}: set model.variant"
            )
        raise Refused(f"{part} has no weights (*.safetensors): copy or download that part again")
    mark = held_variant(part, variant)
    for index in sorted(part.glob("*.index*.json")):
        plain = index.name.endswith(".safetensors.index.json") and index.name.count(".") == 3
        if not (f".{mark}." in index.name if mark else plain):
            continue
        content = _json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        names = map(str, shards.values()) if isinstance(shards, dict) else ()
        if absent := sorted(name for name in names if not (part / name).is_file()):
            raise _damaged(f"{index} names {absent[0]}, which is absent")
    for file in found:
        header(file)


def header(file: Path) -> dict[str, int]:
    """Count the values of each tensor in a safetensors file by its header alone.

    Raises Refused where the file is damaged or cut.
    """
    size = file.stat().st_size
    # 8 bytes of the header's length, JSON with every tensor's place, then data to the file's end.
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(size, LONGEST_HEADER) else b""
    try:
        tensors = {
            name: entry for name, entry in json.loads(text).items() if name != "__metadata__"
        }
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        counts = {name: math.prod(entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _damaged(f"{file} is damaged: not a whole safetensors file ({size} bytes)") from None
    if end != size:
        raise _damaged(f"{file} is truncated or damaged: it has {size} of {end} bytes")
    return counts


def json_object(file: Path) -> dict[str, Any]:
    """Read a file of settings; one that is no JSON object is refused."""
    if not isinstance(settings := _json(file), dict):
        raise _damaged(f"{file} holds no settings")
    return settings


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(f"{file} cannot be read ({' '.join(str(error).split())})") from None


def _damaged(what: str) -> Refused:
    return Refused(f"{what}; copy or download that part again")
