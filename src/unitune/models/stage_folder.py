"""The folder of a stage, looked through before anything of it is loaded.

Whatever is missing, superfluous or not honoured is one line: a part, a key of its settings, a
tensor. The run and the doctor ask the same.
"""

from functools import lru_cache
from pathlib import Path

from unitune.errors import Refused
from unitune.models import parts, weight_files
from unitune.models.families import family

TOKENIZER, ENCODER = "tokenizer", "text_encoder"


def check(
    folder: Path, names: tuple[str, ...], *, of: str, variant: str = "", first: Path | None = None
) -> None:
    """Refuse a stage's folder that could not be run as it is meant.

    `names` are its parts, `of` is the family, `first` the folder of the first stage (None: it is
    not here yet). Asked again of the same files it answers at once.
    """
    parts.check(folder, names, variant=variant)
    read = [folder / name for name in names]
    if first not in (None, folder):
        read.append(Path(first, ENCODER))
    changed = tuple(
        (file, file.stat().st_mtime_ns, file.stat().st_size)
        for part in read
        for file in sorted(part.glob("*"))
        if file.is_file()
    )
    if problem := _problem(folder, names, of, variant, first, changed):
        raise Refused(problem)


@lru_cache(maxsize=64)
def _problem(
    folder: Path, names: tuple[str, ...], of: str, variant: str, first: Path | None, _changed: tuple
) -> str:
    """Say in one line what is wrong, "" where nothing is; settings first, then tensors."""
    kind = family(of)
    for line in kind.problems(folder, first):
        return line
    from unitune.models import libraries, stage, structure, tokenizers

    try:
        _, settings = stage.read_schedule(folder)
        if (folder / stage.LOSS).is_file():
            stage.read_losses(folder, settings)
        for name in names:
            if name in kind.networks:
                network = getattr(libraries, kind.networks[name])
                structure.check(folder / name, network, variant=variant)
        if TOKENIZER in names:
            tokenizer = tokenizers.read(folder / TOKENIZER, getattr(libraries, kind.tokenizer))
            return _too_many(folder, len(tokenizer))
    except Refused as refused:
        return str(refused)
    return ""


def _too_many(folder: Path, pieces: int) -> str:
    """Say that a tokenizer has pieces for which its text encoder has no vectors."""
    config = weight_files.json_object(folder / ENCODER / "config.json")
    rows = (config.get("text_config") or config).get("vocab_size", pieces)
    if pieces <= rows:
        return ""
    return (
        f"{folder / TOKENIZER} has {pieces} pieces, but {folder / ENCODER} has vectors for {rows}; "
        "put the tokenizer there that belongs to it (words learned apart are not read)"
    )
