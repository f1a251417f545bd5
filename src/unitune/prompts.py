"""Prompts: templates, the rare token that names the base image, and advice before tuning."""

import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from unitune.errors import Refused

PLACEHOLDERS = ("rare", "edit", "caption", "noun", "named", "replaced", "tuned")
RANDOM = "{random}"  # a tuning prompt that is drawn by the seed
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
IN_BRACES = re.compile(r"\{([^{}]*)\}")


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
    """Fill a template such as "{rare} {edit}" and clean it.

    An empty `rare` leaves the edit alone; braces inside the values stay as they are. `noun` is the
    class of the image's main object: {named} is the edit with the rare token put before that noun,
    {replaced} with the token in its place. {tuned} is the whole text that the image was tuned on,
    of which the rare token may be a part. Raises Refused for what cannot be filled.
    """
    values = {"rare": rare, "edit": edit, "caption": caption, "noun": noun, "tuned": tuned}
    values["named"] = named(edit, rare=rare, noun=noun)
    values["replaced"] = replaced(edit, rare=rare, noun=noun)
    if fault := _fault(template, values):
        raise Refused(f"the template {template!r} {fault}")
    return clean(IN_BRACES.sub(lambda match: values[match[1]], template))


def _fault(template: str, values: Mapping[str, str]) -> str:
    """Say why a template cannot be filled with these values; "" where it can."""
    asked = IN_BRACES.findall(template)
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    for name in asked:
        if name not in values:
            return f"has the unknown placeholder {{{name}}}; allowed: {allowed}"
    if re.search(r"[{}]", IN_BRACES.sub("", template)):
        return f"has a brace without its partner; allowed: {allowed}"
    if "caption" in asked and not values["caption"].strip():
        return "asks for {caption}, but the base image has none; give its description or use {rare}"
    if "tuned" in asked and not values["tuned"].strip():
        return (
            "asks for the one text that the image was tuned on, and this method has none; "
            'use {caption} or ""'
        )
    if needs_noun(template) and not values["noun"].strip():
        return (
            "asks for the class noun of the image, and none is known: "
            "give noun=cat beside image=, or in edits.jsonl"
        )
    return ""


def needs_noun(*templates: str) -> bool:
    """Whether one of the templates cannot be filled without the class noun."""
    return any(name in template for template in templates for name in ("{noun}", "{named}"))


def named(edit: str, *, rare: str, noun: str) -> str:
    """Put the rare token before the class noun, as DreamBooth writes "a [V] dog".

    It is put before the first occurrence, or before the edit where the noun is not in it.
    """
    return _at_noun(edit, noun, lambda found: f"{rare} {found}") or f"{rare} {edit}"


def replaced(edit: str, *, rare: str, noun: str) -> str:
    """Put a learned word in the place of the class noun, as in Textual Inversion's "a S* in snow".

    It is put in the place of the first occurrence, or before the edit where no noun is known or
    the noun is not in it. An edit that holds the word already stays as it is.
    """
    if rare and rare in edit:
        return edit
    with_rare = _at_noun(edit, noun, lambda _: rare) if rare else ""
    return with_rare or f"{rare} {edit}"


def _at_noun(edit: str, noun: str, replacement: Callable[[str], str]) -> str:
    """Replace the first occurrence of the noun; "" where there is none."""
    found = re.search(rf"(?<!\w){re.escape(noun)}(?!\w)", edit, re.IGNORECASE)
    if not noun or found is None:
        return ""
    return edit[: found.start()] + replacement(found[0]) + edit[found.end() :]


def random_rare_token(pieces: Sequence[str], *, seed: int, count: int = 3) -> str:
    """Join `count` of a tokenizer's pieces, drawn by seed: at most 3 letters, no space.

    DreamBooth (arXiv 2208.12242, section 3.2) draws 1-3 of them from the ids 5000-10000 of T5-XXL:
    pass that slice as `pieces`. The pieces that begin a word (SentencePiece writes "▁" for the
    space) are left out, and so is case, which text encoders for captions drop.
    """
    if count < 1:
        raise Refused(f"a rare token of {count} pieces is asked for; use 1 to 3")
    letters = [piece for piece in dict.fromkeys(pieces) if len(piece) <= 3 and piece.isalpha()]
    usable = [piece for piece in letters if piece == piece.lower()]
    if not usable:
        raise Refused(
            f"none of {len(pieces)} pieces has at most 3 letters; "
            "pass more of the tokenizer's vocabulary or set token.text"
        )
    # Only random() is promised to give the same sequence in every version of Python.
    rng = random.Random(seed)
    return "".join(usable[int(rng.random() * len(usable))] for _ in range(count))


def advice(
    *,
    rare: str,
    edits: Sequence[str],
    tokenize: Callable[[str], list[str]],
    known: Collection[str] | None = None,
    max_tokens: int = 77,
    meant: bool = False,
    unseen: Callable[[str], list[str]] = lambda _: [],
    others: Sequence[str] = (),
) -> list[str]:
    """List what a person should know about a rare token and the edit prompts before tuning.

    `rare` is "" where edits are sampled without one; `edits` are without it. `tokenize` gives
    pieces without end marks; one of `max_tokens` places is kept for the end mark (pass 76 for an
    encoder with two marks). `known` holds the words of a model with a small vocabulary, lower case;
    None: everything is known. `meant`: the token is a description, and keeps its meaning. `unseen`
    lists the words of a text that the text encoder has no pieces for; `others` are texts that are
    embedded beside the edits.
    """
    lines = []
    if rare.strip() and not meant:
        lines += _advice_on_token(rare, tokenize(clean(rare)), known)
    rare_words = _words(rare)
    for edit in edits:
        words = _words(edit)
        places = range(len(words)) if rare_words and not meant else ()
        if any(words[i : i + len(rare_words)] == rare_words for i in places):
            lines.append(
                f"the rare token {rare!r} stands in the edit prompt {edit!r} already; "
                "it is put before the edit by the template"
            )
        pieces, room = tokenize(clean(f"{rare} {edit}")), max_tokens - 1
        if len(pieces) > room:
            dropped = _text(pieces[room:])
            lines.append(
                f"the prompt {edit!r} is {len(pieces)} tokens, the model reads {room}; "
                f"dropped: {dropped!r}"
            )
    meaningless = () if meant else rare_words
    lines += _unknown(edits, known, meaningless) if known is not None else ()
    return [*lines, *_unseen([*edits, rare, *others], unseen)]


def _unknown(
    edits: Sequence[str], known: Collection[str], meaningless: Collection[str]
) -> Iterator[str]:
    """Say of each prompt which words a small model was never trained on; each word once."""
    said = {*meaningless}
    for edit in edits:
        new = dict.fromkeys(word for word in _words(edit) if word not in {*known} | said)
        said |= {*new}
        if new:
            yield (
                f"{_listed(new)} unknown to the pocket model, in the prompt {edit!r}; "
                "write it in words that it knows, or use model=if_m or larger"
            )


def _unseen(texts: Sequence[str], unseen: Callable[[str], list[str]]) -> Iterator[str]:
    """Say of each text which words the text encoder cannot read; each word once."""
    said: set[str] = set()
    for text in dict.fromkeys(texts):
        new = [word for word in dict.fromkeys(unseen(text)) if word not in said]
        said |= {*new}
        if new:
            yield (
                f"{_listed(new)} unreadable for the text encoder, in the prompt {text!r}: it has "
                "no pieces for them and takes every such word for the same one; write them in "
                "plain English words"
            )


def _listed(words: Collection[str]) -> str:
    return f"{', '.join(map(repr, words))} {'is' if len(words) == 1 else 'are'}"


def _advice_on_token(
    rare: str, pieces: Sequence[str], known: Collection[str] | None
) -> Iterator[str]:
    plural = "" if len(pieces) == 1 else "s"
    yield f"the rare token {rare!r} is {len(pieces)} piece{plural}: {' '.join(pieces)}"
    words = _words(rare)
    if known is not None and words and all(word in known for word in words):
        yield (
            f"the rare token {rare!r} is a common word of the model, whose meaning tuning would "
            "overwrite; use a token without meaning"
        )
    elif known is None and len(pieces) == 1 and len(rare) > 2:
        yield (
            f"the rare token {rare!r} is one piece of the vocabulary, so the model has a meaning "
            "for it; a common word would be overwritten"
        )


def _words(prompt: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFC", prompt).lower())


def _text(pieces: Sequence[str]) -> str:
    # "▁" marks the beginning of a word in SentencePiece, "</w>" its end in CLIP's vocabulary.
    return "".join(pieces).replace("▁", " ").replace("</w>", " ").strip()
