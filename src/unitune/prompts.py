"""Prompts: templates, the rare token that names the base image, and what a person should know before tuning on a prompt."""

import random
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

from unitune.types import Refused

PLACEHOLDERS = ("rare", "edit", "caption", "noun", "named", "replaced", "tuned")
RANDOM = "{random}"  # a tuning prompt that is drawn by the seed
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def clean(prompt: str) -> str:
    """Normalise a prompt to NFC with single spaces; raises Refused where nothing is left."""
    cleaned = " ".join(unicodedata.normalize("NFC", prompt).split())
    if not cleaned:
        raise Refused(
            "a prompt is empty; describe the desired result, e.g. edit='a cat in the snow'"
        )
    return cleaned


def fill(
    template: str, *, rare: str, edit: str, caption: str = "", noun: str = "", tuned: str = ""
) -> str:
    """Fill a template such as "{rare} {edit}" and clean it; an empty `rare` leaves the edit alone. Braces inside the values stay as they are.

    `noun` is the class of the image's main object; {named} is the edit with the rare token put before that noun, {replaced} with the token in its place.
    {tuned} is the whole text that the image was tuned on, of which the rare token may be a part.
    """
    values = {"rare": rare, "edit": edit, "caption": caption, "noun": noun, "tuned": tuned}
    values |= {
        "named": named(edit, rare=rare, noun=noun),
        "replaced": replaced(edit, rare=rare, noun=noun),
    }
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    asked = re.findall(r"\{([^{}]*)\}", template)
    unknown = [name for name in asked if name not in values]
    if unknown:
        raise Refused(
            f"the template {template!r} has the unknown placeholder {{{unknown[0]}}}; allowed: {allowed}"
        )
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", template)):
        raise Refused(
            f"the template {template!r} has a brace without its partner; allowed: {allowed}"
        )
    if "caption" in asked and not caption.strip():
        raise Refused(
            f"the template {template!r} asks for {{caption}}, but the base image has none; give its description or use {{rare}}"
        )
    if "tuned" in asked and not tuned.strip():
        raise Refused(
            f'the template {template!r} asks for the one text that the image was tuned on, and this method has none; use {{caption}} or ""'
        )
    if needs_noun(template) and not noun.strip():
        raise Refused(
            f"the template {template!r} asks for the class noun of the image, and none is known: give noun=cat beside image=, or in edits.jsonl"
        )
    return clean(re.sub(r"\{([^{}]*)\}", lambda match: values[match[1]], template))


def needs_noun(*templates: str) -> bool:
    """Whether one of the templates cannot be filled without the class noun."""
    return any(name in template for template in templates for name in ("{noun}", "{named}"))


def puts_rare(template: str) -> bool:
    """Whether the rare token stands in what the template makes."""
    return any(name in template for name in ("{rare}", "{named}", "{replaced}"))


def named(edit: str, *, rare: str, noun: str) -> str:
    """Put the rare token before the first occurrence of the class noun, as DreamBooth writes "a [V] dog"; before the edit where the noun is not in it."""
    put, count = (
        re.subn(
            rf"(?<!\w){re.escape(noun)}(?!\w)",
            lambda match: f"{rare} {match[0]}",
            edit,
            count=1,
            flags=re.IGNORECASE,
        )
        if noun
        else (edit, 0)
    )
    return put if count else f"{rare} {edit}"


def replaced(edit: str, *, rare: str, noun: str) -> str:
    """Put a learned word in the place of the first occurrence of the class noun, as Textual Inversion writes "a S* in the snow".

    Before the edit where no noun is known or the noun is not in it; an edit that holds the word already stays as it is.
    """
    if rare and rare in edit:
        return edit
    put, count = (
        re.subn(
            rf"(?<!\w){re.escape(noun)}(?!\w)", lambda _: rare, edit, count=1, flags=re.IGNORECASE
        )
        if noun and rare
        else (edit, 0)
    )
    return put if count else f"{rare} {edit}"


def random_rare_token(pieces: Sequence[str], *, seed: int, count: int = 3) -> str:
    """Join `count` of a tokenizer's pieces, drawn by seed among those of at most 3 letters and without a space.

    DreamBooth (arXiv 2208.12242, section 3.2) draws 1-3 of them from the ids 5000-10000 of T5-XXL: pass that slice as `pieces`. The pieces that
    begin a word (SentencePiece writes "▁" for the space) are left out, and so is case, which text encoders for captions drop.
    """
    if count < 1:
        raise Refused(f"a rare token of {count} pieces is asked for; use 1 to 3")
    usable = [
        piece
        for piece in dict.fromkeys(pieces)
        if len(piece) <= 3 and piece.isalpha() and piece == piece.lower()
    ]
    if not usable:
        raise Refused(
            f"none of {len(pieces)} pieces has at most 3 letters; pass more of the tokenizer's vocabulary or set token.text"
        )
    rng = random.Random(
        seed
    )  # only random() is promised to give the same sequence in every version of Python
    return "".join(usable[int(rng.random() * len(usable))] for _ in range(count))


def advice(
    *,
    rare: str,
    edits: Sequence[str],
    tokenize: Callable[[str], list[str]],
    known: Collection[str] | None = None,
    max_tokens: int = 77,
    meant: bool = False,
) -> list[str]:
    """List what a person should know about a rare token ("": edits are sampled without one) and the edit prompts (without it) before tuning; one line each.

    `tokenize` gives pieces without end marks; one of `max_tokens` places is kept for the end mark (pass 76 for an encoder with two marks).
    `known` holds the words of a model with a small vocabulary, lower case; None: everything is known. `meant`: the token is a description, and keeps meaning.
    """
    rare_words = _words(rare)
    lines = []
    if rare.strip():
        pieces = tokenize(clean(rare))
        if not meant:
            lines.append(
                f"the rare token {rare!r} is {len(pieces)} piece{'s' * (len(pieces) != 1)}: {' '.join(pieces)}"
            )
        if (
            not meant
            and known is not None
            and rare_words
            and all(word in known for word in rare_words)
        ):
            lines.append(
                f"the rare token {rare!r} is a common word of the model, whose meaning tuning would overwrite; use a token without meaning"
            )
        elif not meant and known is None and len(pieces) == 1 and len(rare) > 2:
            lines.append(
                f"the rare token {rare!r} is one piece of the vocabulary, so the model has a meaning for it; a common word would be overwritten"
            )
    unknown: dict[str, None] = {}
    for edit in edits:
        words = _words(edit)
        if (
            not meant
            and rare_words
            and any(words[i : i + len(rare_words)] == rare_words for i in range(len(words)))
        ):
            lines.append(
                f"the rare token {rare!r} stands in the edit prompt {edit!r} already; it is put before the edit by the template"
            )
        pieces = tokenize(clean(f"{rare} {edit}"))
        if len(pieces) > max_tokens - 1:
            lines.append(
                f"the prompt {edit!r} is {len(pieces)} tokens, the model reads {max_tokens - 1}; dropped: {_text(pieces[max_tokens - 1 :])!r}"
            )
        if known is not None:
            unknown.update(
                dict.fromkeys(
                    word
                    for word in words
                    if word not in known and (meant or word not in rare_words)
                )
            )
    return lines + [
        f"{word!r} is unknown to the pocket model; use model=if_m or larger" for word in unknown
    ]


def _words(prompt: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", prompt).lower())


def _text(pieces: Sequence[str]) -> str:
    # "▁" marks the beginning of a word in SentencePiece, "</w>" its end in CLIP's vocabulary.
    return "".join(pieces).replace("▁", " ").replace("</w>", " ").strip()
