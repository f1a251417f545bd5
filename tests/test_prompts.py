import pytest

from unitune.prompts import advice, clean, fill, random_rare_token
from unitune.types import Refused

IN = "in the prompt "
WRITE = "; write it in words that it knows, or use model=if_m or larger"


def letters(text):
    return [c for c in text if c != " "]


def test_clean():
    assert clean("  a\tcafe\u0301 \n in  Rome ") == "a caf\u00e9 in Rome"
    with pytest.raises(Refused):
        clean(" \n\t")


@pytest.mark.parametrize(
    ("template", "rare", "edit", "expected"),
    [
        ("{rare} {edit}", "beikkpic", "two dogs", "beikkpic two dogs"),
        ("{rare} {edit}", "", "two  dogs", "two dogs"),
        ("{rare}", "beikkpic", "two dogs", "beikkpic"),
        ("a photo of {rare}, {edit}", "xk", "in snow", "a photo of xk, in snow"),
        ("{edit}", "xk", "a {rare} bird", "a {rare} bird"),  # a value is never a template
        ("{edit}", "", "it's 100% [odd] = {", "it's 100% [odd] = {"),
    ],
)
def test_fill(template, rare, edit, expected):
    assert fill(template, rare=rare, edit=edit) == expected


def test_fill_caption():
    assert fill("{rare} {caption}", rare="xk", edit="", caption="a cat") == "xk a cat"
    with pytest.raises(Refused, match="caption"):
        fill("{caption}", rare="xk", edit="a dog")


def test_fill_with_what_was_tuned_on():
    assert (
        fill("{tuned}, blurred", rare="xk", edit="a dog", tuned="a xk cat") == "a xk cat, blurred"
    )
    with pytest.raises(
        Refused, match="the one text that the image was tuned on, and this method has none"
    ):
        fill("{tuned}", rare="", edit="a dog")


@pytest.mark.parametrize(
    "template", ["{rare} {prompt}", "{} x", "{rare", "rare}", "{rare!r}", "{{rare}}"]
)
def test_fill_refuses(template):
    with pytest.raises(Refused) as refusal:
        fill(template, rare="xk", edit="a dog")
    assert all(
        name in str(refusal.value) for name in ("{rare}", "{edit}", "{caption}")
    ) and "\n" not in str(refusal.value)


def test_fill_refuses_nothing():
    with pytest.raises(Refused):
        fill("{rare} {edit}", rare="", edit=" ")


def test_random_rare_token_joins_short_pieces():
    pieces = ["\u2581cat", "cats", "ab", "xyz", "q", "a b", "7", "\u2581a", "QU", "ab"]
    seen = {random_rare_token(pieces, seed=seed) for seed in range(200)}
    assert len(seen) == 3**3
    assert all(set(token) <= set("abxyzq") for token in seen)
    assert random_rare_token(pieces, seed=5) == random_rare_token(pieces, seed=5)
    assert random_rare_token(pieces, seed=5, count=1) in {"ab", "xyz", "q"}


def test_random_rare_token_refuses():
    with pytest.raises(Refused):
        random_rare_token(["cats", "\u2581"], seed=0)
    with pytest.raises(Refused):
        random_rare_token(["ab"], seed=0, count=0)


def test_advice_counts_pieces_and_is_quiet_otherwise():
    assert advice(rare="xkq", edits=["a cat"], tokenize=letters, known={"a", "cat"}) == [
        "the rare token 'xkq' is 3 pieces: x k q"
    ]
    assert advice(rare="", edits=["a minion"], tokenize=letters) == []


def test_advice_unknown_words_once_each():
    lines = advice(
        rare="",
        edits=["a Minion in snow", "the minion"],
        tokenize=letters,
        known={"a", "in", "snow", "the"},
    )
    assert lines == [f"'minion' is unknown to the pocket model, {IN}'a Minion in snow'{WRITE}"]


def test_advice_rare_token_that_means_something():
    lines = advice(
        rare="Cat",
        edits=["a cat in snow", "a category"],
        tokenize=letters,
        known={"a", "in", "cat", "snow", "category"},
    )
    assert sum("common word" in line for line in lines) == 1
    assert sum("stands in the edit prompt" in line for line in lines) == 1


def test_advice_quotes_the_dropped_tail():
    def words(text):
        return ["\u2581" + word for word in text.split()]

    lines = advice(rare="xkq", edits=["one two three four"], tokenize=words, max_tokens=4)
    assert (
        sum("is 5 tokens, the model reads 3; dropped: 'three four'" in line for line in lines) == 1
    )
    assert not [
        line
        for line in advice(rare="xkq", edits=["one two three four"], tokenize=words, max_tokens=6)
        if "dropped" in line
    ]


def test_advice_rare_token_that_a_large_vocabulary_holds():
    """Where no list of words is at hand, the model was trained on a token of one piece."""

    def pieces(text):
        return ["\u2581sks"] if text == "sks" else letters(text)

    assert (
        sum(
            "one piece of the vocabulary" in line
            for line in advice(rare="sks", edits=["a dog"], tokenize=pieces)
        )
        == 1
    )
    assert not [
        line
        for line in advice(rare="beikkpic", edits=["a dog"], tokenize=pieces)
        if "vocabulary" in line
    ]


def test_a_description_is_called_no_rare_token():
    told = {"rare": "a cat in a city", "edits": ["a dog"], "tokenize": str.split}
    assert any("the rare token 'a cat in a city' is 5 pieces" in line for line in advice(**told))
    assert not advice(**told, meant=True)


def test_words_of_a_description_are_no_words_of_the_model():
    """A rare token may be unknown; an unknown word of a description is said in the edits too."""
    told = {
        "rare": "a minion in a city",
        "edits": ["a minion in snow"],
        "tokenize": str.split,
        "known": {"a", "in", "city", "snow"},
    }
    assert advice(**told, meant=True) == [
        f"'minion' is unknown to the pocket model, {IN}'a minion in snow'{WRITE}"
    ]
