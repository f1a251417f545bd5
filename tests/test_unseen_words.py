"""Words that a text encoder has no pieces for are said before tuning, whatever its tokenizer is."""

from dataclasses import replace

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from unitune.models import pocket, tokenizers
from unitune.models.libraries import AutoTokenizer, CLIPTokenizer, T5Tokenizer
from unitune.prompts import advice

MARKS = ("<|startoftext|>", "<|endoftext|>")


def letters_of_t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    return T5Tokenizer(vocab=[*pieces, *((c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz")])


def bytes_of_clip():
    """Pieces for all 256 bytes, as Stable Diffusion's own vocabulary has."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = [*alphabet, *(f"{one}</w>" for one in alphabet), *MARKS]
    return CLIPTokenizer(vocab={piece: k for k, piece in enumerate(vocabulary)}, merges=[])


def letters_of_clip():
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*letters, *(f"{one}</w>" for one in letters), *MARKS]
    return CLIPTokenizer(vocab={piece: k for k, piece in enumerate(vocabulary)}, merges=[])


def embedded():
    return AutoTokenizer.from_pretrained(pocket.FOLDER / "base/tokenizer")


TEXTS = (
    "a dog in the snow",
    "\u4e00\u53ea\u732b",
    "a \U0001f436 dog\U0001f436",
    "caf\u00e9 x\u0416x",
)
UNSEEN: dict[str, list[list[str]]] = {
    "letters_of_t5": [
        [],
        ["\u4e00\u53ea\u732b"],
        ["\U0001f436", "dog\U0001f436"],
        ["caf\u00e9", "x\u0416x"],
    ],
    "bytes_of_clip": [[], [], [], []],
    "letters_of_clip": [
        [],
        ["\u4e00\u53ea\u732b"],
        ["\U0001f436", "dog\U0001f436"],
        ["caf\u00e9", "x\u0416x"],
    ],
}


@pytest.mark.parametrize("name", UNSEEN)
def test_each_word_that_is_unknown_in_whole_or_in_part(name: str):
    tokenizer = globals()[name]()
    found = [
        [word for word in text.split() if not tokenizers.readable(tokenizer, word)]
        for text in TEXTS
    ]
    assert found == UNSEEN[name]


def test_the_embedded_models_own_tokenizer_reads_words_and_no_pictures():
    tokenizer = embedded()
    assert all(tokenizers.readable(tokenizer, word) for word in ("cat", "snow", "beikkpic", "two"))
    assert not any(tokenizers.readable(tokenizer, word) for word in ("\U0001f436", "\u732b"))


def unseen(text: str) -> list[str]:
    return [word for word in text.split() if not word.isascii()]


def test_a_line_names_words_and_prompt_and_what_to_do():
    lines = advice(
        rare="\u72ac",
        edits=["a \u732b in \u96ea", "a \u732b", "a dog"],
        tokenize=str.split,
        unseen=unseen,
        others=["a \u57ce", "a dog"],
    )
    said = [line for line in lines if "unreadable" in line]
    where = "unreadable for the text encoder, in the prompt"
    assert [line.partition(":")[0] for line in said] == [
        f"'\u732b', '\u96ea' are {where} 'a \u732b in \u96ea'",
        f"'\u72ac' is {where} '\u72ac'",
        f"'\u57ce' is {where} 'a \u57ce'",
    ]
    assert all(line.endswith("write them in plain English words") for line in said)


def test_a_cascade_asks_its_own_tokenizer(cascade):
    assert cascade.unseen("A Dog, \u732b 7") == ["\u732b", "7"]
    assert replace(cascade, name="x").unseen("a dog") == []
