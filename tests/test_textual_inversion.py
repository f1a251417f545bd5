"""Textual Inversion: a word starts as a known one, learns, takes the noun's place."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unitune import prompts
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.methods.textual_inversion import TextualInversion
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade, weights_digest
from unitune.models.files import Model
from unitune.runs import experiment
from unitune.runs.plans import Seeds
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Example, Refused, Request, Tuned

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("b a c"),), noun="a")
METHOD = TextualInversion(Tuning(lr=1e-2, steps=4, batch_size=1, snapshots=(2,)))
SAMPLER = Sampler("quick", steps=2, guidance=Guidance(weight=2.0), sr=SuperResolution(steps=2))


def prepare(
    method: TextualInversion,
    cascade: Cascade,
    store: Store,
    *,
    at: int | None = None,
    example: Example = EXAMPLE,
    seed: int = 0,
) -> Tuned:
    return make.prepare(method.recipe(example), cascade, example, store=store, seed=seed, at=at)


def test_the_word_learns_and_is_stored(cascade: Cascade, tmp_store: Store):
    before = (
        weights_digest(cascade.text_encoder._in_memory()),
        [weights_digest(stage.network) for stage in cascade.stages],
    )
    tuned = prepare(METHOD, cascade, tmp_store)
    vectors = tuned.tokens["<image>"]
    assert (
        vectors.shape == (1, tiny.WIDTH)
        and tuned.weights == {}
        and (tuned.prompt, tuned.template, tuned.steps) == ("<image>", "{replaced}", 4)
    )
    assert (
        tuned.start is not None
        and torch.equal(tuned.start, cascade.text_encoder.vector("a"))
        and not torch.equal(vectors, tuned.start)
    )
    assert make.inactive(METHOD.recipe(EXAMPLE), cascade, tuned) == ""
    assert (tuned.cost.optimizer_steps, tuned.cost.network_evaluations) == (
        4,
        4,
    ) and 0 < tuned.cost.stored_bytes < 2**14
    assert (
        weights_digest(cascade.text_encoder._in_memory()),
        [weights_digest(stage.network) for stage in cascade.stages],
    ) == before
    (entry,) = tmp_store.path.glob("embedding-*")
    assert (entry / "base-4.safetensors").is_file()
    again, middle = (
        prepare(replace(METHOD, word="<other>"), cascade, tmp_store),
        prepare(METHOD, cascade, tmp_store, at=2),
    )
    assert (
        torch.equal(again.tokens["<other>"], vectors)
        and middle.steps == 2
        and not torch.equal(middle.tokens["<image>"], vectors)
    )
    assert len(list(tmp_store.path.glob("embedding-*"))) == 1


@pytest.mark.parametrize(
    "sampler",
    [
        replace(SAMPLER, template="{rare} {edti}"),
        replace(SAMPLER, guidance=Guidance(2.0, reference="{caption}")),
    ],
)
def test_a_sampler_that_cannot_name_its_texts_is_refused_before_anything_is_learned(
    sampler: Sampler, cascade: Cascade, tmp_store: Store, tmp_path: Path
):
    with pytest.raises(
        Refused,
        match=r"the template .* (has the unknown placeholder \{edti\}|asks for \{caption\})",
    ):
        experiment.run(
            experiment.Experiment(cascade, METHOD, sampler, [], tmp_store, Seeds(1)),
            [EXAMPLE],
            folder=tmp_path,
        )
    assert not list(tmp_store.path.glob("embedding-*"))


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": 2},
        {"initializer": "b"},
        {"templates": ("{rare}",)},
        {"embedding": replace(METHOD.embedding, lr=2e-2)},
    ],
)
def test_what_changes_the_word_learns_again(change: dict, cascade: Cascade, tmp_store: Store):
    first, other = (
        prepare(METHOD, cascade, tmp_store),
        prepare(replace(METHOD, **change), cascade, tmp_store),
    )
    assert len(list(tmp_store.path.glob("embedding-*"))) == 2 and not torch.equal(
        first.tokens["<image>"], other.tokens["<image>"]
    )


def test_several_vectors_start_alike_and_part(cascade: Cascade, tmp_store: Store):
    one, two = prepare(replace(METHOD, vectors=2), cascade, tmp_store).tokens["<image>"]
    assert not torch.equal(one, two)


def test_no_steps_is_the_known_word(tmp_path: Path, tmp_store: Store):
    """The prompt with the word is the prompt with the noun, to the bit."""
    model = Model(
        "tiny", ("base",), family="stable_diffusion", path=str(tiny.sd15(tmp_path / "sd"))
    )
    latent = backend.build(model, device=torch.device("cpu"), dtype=torch.float32)
    draws = [Draw(EXAMPLE.requests[0], seed) for seed in range(2)]
    plain = SAMPLER(latent, EXAMPLE, tuned=Tuned(template="{edit}"), draws=draws)
    none = replace(METHOD, embedding=replace(METHOD.embedding, steps=0))
    for tuned in (prepare(none, latent, tmp_store), prepare(METHOD, latent, tmp_store, at=0)):
        assert tuned.steps == 0 and make.inactive(none.recipe(EXAMPLE), latent, tuned) == ""
        with latent.using(tuned):
            edits = SAMPLER(latent, EXAMPLE, tuned=tuned, draws=draws)
        assert [edit.prompt for edit in edits] == ["b <image> c"] * 2
        assert all(
            torch.equal(edit.image, other.image) for edit, other in zip(edits, plain, strict=True)
        )
    assert not list(tmp_store.path.glob("embedding-*"))


def test_every_stage_is_told_the_word(cascade: Cascade, tmp_store: Store):
    tuned = prepare(
        replace(METHOD, embedding=replace(METHOD.embedding, lr=1.0)), cascade, tmp_store
    )
    with cascade.using(tuned):
        learned = SAMPLER(cascade, EXAMPLE, tuned=tuned, draws=[Draw(EXAMPLE.requests[0], 0)])[0]
    begun = replace(tuned, tokens={"<image>": cascade.text_encoder.vector("a")})
    with cascade.using(begun):
        start = SAMPLER(cascade, EXAMPLE, tuned=begun, draws=[Draw(EXAMPLE.requests[0], 0)])[0]
    assert all(
        not torch.equal(learned.stages[name], start.stages[name]) for name in ("base", "sr256")
    )


def test_a_word_that_stood_still_is_found_out(cascade: Cascade, tmp_store: Store):
    sabotaged = replace(METHOD, embedding=replace(METHOD.embedding, lr=1e-30))
    said = make.inactive(sabotaged.recipe(EXAMPLE), cascade, prepare(sabotaged, cascade, tmp_store))
    assert "<image> did not move in 4 steps; use a larger method.embedding.lr" in said


def test_templates_are_drawn_by_the_step(
    cascade: Cascade, tmp_store: Store, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    encode = cascade.text_encoder.encode_with
    monkeypatch.setattr(
        cascade.text_encoder,
        "encode_with",
        lambda texts, learned: told.extend(texts) or encode(texts, learned),
    )
    method = replace(METHOD, embedding=replace(METHOD.embedding, steps=12, snapshots=()))
    prepare(method, cascade, tmp_store)
    assert set(told) == {"a <image>", "a picture of a <image>"} and len(told) == 12
    first, told[:] = told[:], []
    prepare(method, cascade, Store(tmp_store.path / "again"))
    assert told == first


def test_an_encoder_that_is_not_kept_is_free_afterwards(cascade: Cascade, tmp_path: Path):
    folder = tiny.floyd(tmp_path / "tiny")
    model = Model("tiny", ("base", "sr256"), path=str(folder), keep_text_encoder=False)
    large = backend.build(
        model, device=torch.device("cpu"), dtype=torch.float32, store=Store(tmp_path / "texts")
    )
    tuned = prepare(METHOD, large, Store(tmp_path / "store"))
    assert large.text_encoder._network is None
    assert torch.equal(
        tuned.tokens["<image>"],
        prepare(METHOD, cascade, Store(tmp_path / "other")).tokens["<image>"],
    )
    with large.using(tuned):
        large.encode(["b <image>"])
    assert large.text_encoder._network is None


@pytest.mark.parametrize(
    ("edit", "noun", "expected"),
    [
        ("a cat in the snow", "cat", "a <image> in the snow"),
        ("a Cat beside a cat", "cat", "a <image> beside a cat"),
        ("a category", "cat", "<image> a category"),
        ("a dog", "cat", "<image> a dog"),
        ("in the snow", "", "<image> in the snow"),
        ("my <image> sleeps", "cat", "my <image> sleeps"),
    ],
)
def test_the_word_takes_the_nouns_place(edit: str, noun: str, expected: str):
    assert prompts.fill("{replaced}", rare="<image>", edit=edit, noun=noun) == expected


def test_without_a_word_the_edit_stays():
    assert (
        prompts.fill("{replaced}", rare="", edit="a cat in the snow", noun="cat")
        == "a cat in the snow"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"word": "cat"}, "angle brackets.*got 'cat'"),
        ({"word": "<my cat>"}, "angle brackets"),
        ({"vectors": 0}, "from 1 to 64.*got 0"),
        ({"vectors": 65}, "from 1 to 64"),
        ({"templates": ()}, "templates is empty"),
        ({"templates": ("a {rare}", "a cat")}, "'a cat' has none"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, said: str):
    with pytest.raises(Refused, match=said):
        replace(METHOD, **wrong)


@pytest.mark.parametrize(
    ("initializer", "noun", "known", "said"),
    [
        (
            "",
            "",
            None,
            "for one starts at a known word, and none is given; "
            "name the picture's main object: noun=cat",
        ),
        (
            "minion",
            "a",
            {"a"},
            "'minion', which is unknown to the tiny model; give another: method.initializer=cat",
        ),
        ("abc", "a", None, "'abc' is 3 pieces"),
        ("", "é", None, "'é' is unknown to the text encoder"),
    ],
)
def test_a_start_that_is_no_known_word_is_refused_before_anything_is_learned(
    initializer, noun, known, said, cascade: Cascade, tmp_store: Store
):
    asked = replace(cascade, known=None if known is None else frozenset(known))
    method, example = replace(METHOD, initializer=initializer), replace(EXAMPLE, noun=noun)
    for call in (
        lambda: make.texts(method.recipe(example), asked, example, seed=0),
        lambda: prepare(method, asked, tmp_store, example=example),
    ):
        with pytest.raises(Refused, match=said):
            call()
    assert not list(tmp_store.path.glob("embedding-*"))


def test_without_a_noun_or_a_word_to_start_from_it_is_refused_before_a_model_is_loaded(typed):
    assert (
        METHOD.recipe(EXAMPLE).needs_noun
        and not replace(METHOD, initializer="cat").recipe(EXAMPLE).needs_noun
    )
    answer = typed("method=textual_inversion", "edit=a cat in the snow", "metrics=none")
    assert (
        answer.code == 2
        and "needs the class noun" in answer.err
        and answer.err.strip().count("\n") == 0
    )


def test_room_is_more_than_what_is_stored(cascade: Cascade, tmp_store: Store):
    stored = prepare(METHOD, cascade, tmp_store).cost.stored_bytes
    with pytest.raises(Refused, match="no snapshot of the embedding at 77 steps; there are 0, "):
        make.room(METHOD.recipe(EXAMPLE), {}, at=77)
    kept, working = make.room(METHOD.recipe(EXAMPLE), {}, at=None)
    assert stored < kept < working and make.room(METHOD.recipe(EXAMPLE), {}, at=0) == (0, 0)
