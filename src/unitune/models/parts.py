"""The parts of a pipeline folder.

Missing and broken ones are named by reading names, sizes and headers, before anything is loaded.
"""

from collections.abc import Sequence
from pathlib import Path

from unitune.errors import Refused
from unitune.models import weight_files

# Parts without weights and the files of their settings, also of a second one (tokenizer_2); of the
# other parts it is config.json. The libraries do without a tokenizer's settings.
SETTINGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
# A tokenizer's vocabulary: of the fast one, of CLIP's slow one, of T5's.
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))


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
        if settings.is_file():
            weight_files.json_object(settings)
        elif kind != "tokenizer":
            raise weight_files.damaged(f"model folder {folder} has no {part}/{settings.name}")
        if kind == "tokenizer" and not _has_vocabulary(folder / part):
            anyone = " or ".join(" with ".join(names) for names in VOCABULARIES)
            raise weight_files.damaged(
                f"model folder {folder} has no vocabulary in {part}: {anyone}"
            )
        if kind not in SETTINGS:
            weight_files.tensors(weight_files.find(folder / part, variant))


def _has_vocabulary(part: Path) -> bool:
    return any(all((part / name).is_file() for name in names) for names in VOCABULARIES)
