"""Attention maps in closed form, and the tokens of two prompts aligned."""

import pytest
import torch
from transformers import AutoTokenizer

from unitune.models import pocket
from unitune.prompt_to_prompt.align import (
    NONE,
    changed,
    factors,
    massed,
    partners,
    refine,
    reweight,
    tokens,
)
from unitune.prompt_to_prompt.chains import Chains
from unitune.prompt_to_prompt.control import PromptToPrompt
from unitune.types import Refused

L = 10


def sentence(text: str) -> list[str]:
    return [f"▁{word}" for word in text.split()]


def cut(text: str, offset: int = 0):
    return tokens(sentence(text), offset=offset, end=L - 1)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_refine_takes_partners_columns_and_leaves_new_ones():
    M, M_star = maps(2, 3, 4, 5), maps(2, 3, 4, 5, seed=1)
    A = torch.tensor([[0, NONE, 1, 4, NONE], [4, 3, 2, 1, 0]])
    out = refine(M, M_star, A)
    assert torch.equal(
        out[0],
        torch.stack(
            [M[0, ..., 0], M_star[0, ..., 1], M[0, ..., 1], M[0, ..., 4], M_star[0, ..., 4]], dim=-1
        ),
    )
    assert torch.equal(out[1], M[1].flip(-1))


def test_refine_with_every_token_its_own_partner_is_swap():
    M, M_star = maps(2, 3, 4, 5), maps(2, 3, 4, 5, seed=1)
    assert torch.equal(refine(M, M_star, torch.arange(5).expand(2, 5)), M)
    assert torch.equal(refine(M, M_star, torch.full((2, 5), NONE)), M_star)


def test_reweight_multiplies_columns_and_1_is_the_identity():
    M = maps(2, 3, 4, 5)
    assert torch.equal(reweight(M, torch.ones(2, 5)), M)
    c = torch.ones(2, 5)
    c[1, 2] = -2.0
    out = reweight(M, c)
    assert (
        torch.equal(out[1, ..., 2], -2 * M[1, ..., 2])
        and torch.equal(out[0], M[0])
        and torch.equal(out[1, ..., 3:], M[1, ..., 3:])
    )


def test_pieces_are_grouped_into_words_for_both_kinds_of_tokenizer():
    t5 = tokens(["▁A", "▁snow", "man", "▁", "x"], offset=0, end=L - 1)
    assert (
        t5.words == ("a", "snowman", "x")
        and t5.places == (range(0, 1), range(1, 3), range(3, 5))
        and t5.end == 5
    )
    clip = tokens(["a</w>", "snow", "man</w>"], offset=1, end=L - 1)
    assert clip.words == ("a", "snowman") and clip.places == (range(1, 2), range(2, 4))
    assert clip.of("Snowman", "a snowman") == [2, 3]


def test_punctuation_is_a_word_of_its_own_which_sentencepiece_does_not_mark():
    pieces = ["▁a", "▁cat", "▁in", "▁a", "▁ci", "ty", ",", "▁pencil", "▁sketch"]
    source, edit = (tokens(cut, offset=0, end=14) for cut in (pieces[:6], pieces))
    assert edit.words == ("a", "cat", "in", "a", "city", ",", "pencil", "sketch")
    assert changed(source, edit) == ([], [6, 7, 8])
    assert partners(source, edit, mode="auto", length=15)[:9] == [
        0,
        1,
        2,
        3,
        4,
        5,
        NONE,
        NONE,
        NONE,
    ]
    assert factors(edit, {"city": 2.0}, prompt="a cat in a city, pencil sketch", length=15) == [
        1,
        1,
        1,
        1,
        2,
        2,
        *[1] * 9,
    ]
    assert tokens(
        ["▁a", "▁", "(", "big", ")", "▁well", "-", "made", "▁1", "0"], offset=0, end=14
    ).words == ("a", "(", "big", ")", "well", "-", "made", "10")
    assert tokens(["a</w>", "city</w>", ",</w>", "pen", "cil</w>"], offset=1, end=14).words == (
        "a",
        "city",
        ",",
        "pencil",
    )


def test_the_embedded_model_s_tokenizer_leaves_a_word_before_a_comma_as_it_is():
    cut = AutoTokenizer.from_pretrained(pocket.FOLDER / "base" / "tokenizer").tokenize
    source, edit = (
        tokens(cut(text), offset=0, end=76)
        for text in ("a cat in a city", "a cat in a city, pencil sketch")
    )
    assert edit.words[: len(source.words)] == source.words and changed(source, edit)[0] == []


def test_what_the_network_does_not_read_is_cut_off():
    assert (
        len(cut("a b c d e f g h i j k").words) == L - 1
        and len(cut("a b c d e f g h i j k", offset=1).words) == L - 2
    )
    with pytest.raises(Refused, match="without words"):
        tokens([], offset=0, end=L - 1)


def test_partners_of_an_insertion_and_of_marks_and_padding():
    A = partners(cut("a cat in a city", 1), cut("a cat in a big city", 1), mode="refine", length=L)
    # places: begin mark, a cat in a (big) city, end mark, padding
    assert A == [0, 1, 2, 3, 4, NONE, 5, 6, 7, 8]
    back = partners(
        cut("a cat in a big city", 1), cut("a cat in a city", 1), mode="refine", length=L
    )
    assert back == [
        0,
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        NONE,
    ]  # the shorter prompt has a place of padding more than the other


def test_auto_swaps_where_words_are_replaced_and_refines_otherwise():
    cat, dog = cut("a cat in a city"), cut("a dog in a city")
    assert (
        partners(cat, dog, mode="auto", length=L)
        == partners(cat, dog, mode="swap", length=L)
        == list(range(L))
    )
    assert partners(cat, dog, mode="refine", length=L) == [0, NONE, *range(2, L)]
    assert partners(cat, cut("a dog in a city at night"), mode="auto", length=L)[:5] == [
        0,
        NONE,
        2,
        3,
        4,
    ]
    assert (
        partners(cat, cat, mode="auto", length=L)
        == partners(cat, cat, mode="refine", length=L)
        == list(range(L))
    )


def test_changed_words():
    assert changed(cut("a cat in a city"), cut("a dog in a city at night")) == ([1], [1, 5, 6])
    assert changed(cut("a cat"), cut("a cat")) == ([], [])


def test_prompts_that_cannot_be_aligned_are_refused_with_their_words():
    long = tokens(["▁a", "▁snow", "man"], offset=0, end=L - 1)
    with pytest.raises(
        Refused,
        match=r"equally many tokens: 'a cat' has 2, 'a snowman' 3 "
        r"\(tokens of the words that differ: cat 1, snowman 2\); use .*refine",
    ):
        partners(cut("a cat"), long, mode="swap", length=L)
    for mode in ("refine", "auto"):
        with pytest.raises(Refused, match="'a cat' and 'two dogs' share no word"):
            partners(cut("a cat"), cut("two dogs"), mode=mode, length=L)
    with pytest.raises(
        Refused, match=r"the word 'cow' of sampler.control is not in 'a dog'; its words are: a, dog"
    ):
        factors(cut("a dog"), {"cow": 2.0}, prompt="a dog", length=L)


def test_factors_reach_every_piece_of_a_word():
    long = tokens(["▁a", "▁snow", "man"], offset=0, end=L - 1)
    assert factors(long, {"snowman": -1.5}, prompt="a snowman", length=L) == [
        1,
        -1.5,
        -1.5,
        *[1] * (L - 3),
    ]


JOINT = [
    (mode, cross, own)
    for mode in ("swap", "refine")
    for cross in (False, True)
    for own in (False, True)
]


def joint(
    mode: str, cross: bool, own: bool, *edits: str, reweight: dict[str, float] | None = None
) -> Chains:
    control = PromptToPrompt(
        mode,
        cross_share=float(cross),
        self_share=float(own),
        self_side=1.0,
        reweight=reweight or {},
    )
    made = control.chains("a cat", edits, [0] * len(edits), tokenize=sentence, offset=0, length=L)
    made.begin(0, 1, side=2)
    return made


def peaked(rows: int, seed: int = 0) -> torch.Tensor:
    """Probabilities of text and 4 pixels, whose shares of a row differ much."""
    return (
        6 * torch.randn(rows, 3, 4, L + 4, generator=torch.Generator().manual_seed(seed))
    ).softmax(-1)


@pytest.mark.parametrize(("mode", "cross", "own"), JOINT)
def test_rows_of_joint_attention_go_on_to_sum_to_1(mode: str, cross: bool, own: bool):
    # Refinement of an edit with a word of its own adds that word's column to the others', in the
    # paper too; here all words are shared.
    made = joint(mode, cross, own, "a cat" if mode == "refine" else "a dog")
    for seed in range(5):
        torch.testing.assert_close(made.edit(peaked(2, seed), text=L).sum(-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize(("mode", "cross", "own"), JOINT)
def test_joint_attention_takes_text_columns_and_pixel_columns_apart(
    mode: str, cross: bool, own: bool
):
    # What is taken alone has the source's proportions, not its numbers: the softmax gives the two
    # parts shares of 1 that differ between the chains.
    M = peaked(2)
    source, edit = joint(mode, cross, own, "a cat").edit(M, text=L)
    assert torch.equal(source, M[0])
    for part, taken in ((slice(L), cross), (slice(L, None), own)):
        whole = M[1, ..., part].sum(-1, keepdim=True)
        torch.testing.assert_close(
            edit[..., part],
            M[0, ..., part]
            * (1 if cross and own else whole / M[0, ..., part].sum(-1, keepdim=True))
            if taken
            else M[1, ..., part],
        )


def test_a_part_without_weight_in_the_source_is_not_taken():
    M = torch.cat([torch.zeros(1, 1, 2, 3), maps(1, 1, 2, 3)], dim=2)
    M_star = maps(1, 1, 4, 3, seed=1) / 2
    out = massed(M, M_star)
    assert torch.equal(out[..., :2, :], M_star[..., :2, :]) and bool(out.isfinite().all())
    torch.testing.assert_close(out[..., 2:, :], M[..., 2:, :] / 2)
    assert torch.equal(massed(M_star, M_star), M_star)
    assert bool(massed(torch.full((1, 1, 1, 2), 1e-42), M_star[..., :1, :2]).isfinite().all())


def test_words_are_reweighted_after_their_maps_are_scaled():
    plain, twice = (
        joint("swap", True, False, "a dog", reweight=weights).edit(peaked(2), text=L)
        for weights in ({}, {"dog": 2.0})
    )
    torch.testing.assert_close(twice[1, ..., 1], 2 * plain[1, ..., 1])
    assert torch.equal(twice[1, ..., 2:], plain[1, ..., 2:])


def test_attention_among_many_pixels_is_left_alone():
    made = PromptToPrompt(cross_share=0.0).chains(
        "a cat", ["a dog"], [0], tokenize=sentence, offset=0, length=L
    )
    made.begin(0, 1, side=64)
    assert (
        made.wants(text=0, pixels=32**2)
        and not made.wants(text=0, pixels=33**2)
        and not made.wants(text=0, pixels=64**2)
    )
