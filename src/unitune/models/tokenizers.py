"""Tokenizers of any layout, and the words that they have no pieces for."""

from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.models.libraries import AutoTokenizer
from unitune.models.weight_files import json_object

SETTINGS = "tokenizer_config.json"
SPACE = "▁"  # a piece that is nothing but SentencePiece's mark of a word's beginning


def read(folder: Path, kind: Any) -> Any:
    """Read a tokenizer of any layout, as `kind` where its files name no class.

    Raises Refused where they cannot be read.
    """
    settings = folder / SETTINGS
    named = settings.is_file() and json_object(settings).get("tokenizer_class")
    try:
        return (AutoTokenizer if named else kind).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of several libraries, by the format of the file
        said = " ".join(str(error).split())[:160]
        raise Refused(
            f"the tokenizer {folder} cannot be read ({type(error).__name__}: {said}); "
            "copy or download that part again"
        ) from error


def readable(tokenizer: Any, word: str) -> bool:
    """Whether a word is cut into known pieces alone.

    Of an unknown one T5 gives the piece of the unknown, and nothing tells it from any other; a
    tokenizer of bytes, as CLIP's, has pieces for all.
    """
    ids, unknown = tokenizer(word, add_special_tokens=False).input_ids, tokenizer.unk_token_id
    nothing = {unknown, tokenizer.convert_tokens_to_ids(SPACE)}
    return unknown not in ids and any(one not in nothing for one in ids)
