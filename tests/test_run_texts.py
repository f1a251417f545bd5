"""The texts of a run: embedded at once, advice on them, how each tuning prompt is told apart."""

import copy
import json
import logging
from dataclasses import replace

import pytest
import small_run
from small_run import example, picture, run, setting, tuned

from unitune.methods.dreambooth import DreamBooth
from unitune.methods.imagic import Imagic
from unitune.methods.textual_inversion import TextualInversion
from unitune.methods.untuned import Untuned
from unitune.models.cascade import Cascade
from unitune.runs import experiment
from unitune.runs import texts as run_texts
from unitune.runs.plans import Seeds
from unitune.storage import records
from unitune.tuning.class_images import ClassImages
from unitune.tuning.recipe import Tuning
from unitune.types import Request


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Cascade:
    return small_run.cascade(tmp_path_factory.mktemp("texts"))


def test_advice_comes_before_tuning(model, tmp_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        experiment.run(
            setting(replace(model, known=frozenset({"a", "dog"})), tmp_store, method=tuned()),
            [example("cat", Request("a minion"))],
            folder=tmp_path,
        )
    lines = [record.getMessage() for record in caplog.records]
    unknown = next(k for k, line in enumerate(lines) if "'minion' is unknown" in line)
    assert unknown < next(k for k, line in enumerate(lines) if line.startswith("tuning "))


def test_advice_is_of_the_token_that_will_be_sampled(model, tmp_store):
    """DreamBooth's token counts, not its whole prompt; a caption keeps its meaning.

    Learned words are no text.
    """
    known = frozenset({"a", "dog", "cat"})
    whole = replace(setting(replace(model, known=known), tmp_store), snapshot=0)
    words = replace(example("cat", Request("a cat")), noun="cat")
    told = {}
    for name, method in {
        "token": DreamBooth(tuned().tune, stages=("base",), token="dog"),
        "caption": replace(tuned(), prompt="{caption}"),
        "learned": TextualInversion(Tuning(lr=1e-2, steps=1, batch_size=1), initializer="a"),
    }.items():
        told[name] = run_texts.advice(replace(whole, method=method), words)
    assert any("the rare token 'dog' is a common word of the model" in x for x in told["token"])
    assert told["caption"] == [], "a description is no rare token, and keeps its meaning"
    assert told["learned"] == []


def test_words_without_pieces_are_said_of_every_text_that_is_embedded(model, tmp_store):
    """Of edits, of what the image is tuned on, and of a text that guidance pushes away from."""
    words = replace(example("cat", Request("a \u732b"), Request("a dog")), caption="a cat \u57ce")
    whole = setting(model, tmp_store, method=replace(tuned(), prompt="{caption}"))
    sampler = replace(whole.sampler, guidance=replace(whole.sampler.guidance, reference="\u72ac"))
    said = run_texts.advice(replace(whole, sampler=sampler), words)
    assert [line.partition(":")[0].partition(", in")[2] for line in said] == [
        f" the prompt {text!r}" for text in ("a \u732b", "a cat \u57ce", "\u72ac")
    ]


def test_advice_is_of_the_edit_alone_where_the_image_is_tuned_on_its_description(model, tmp_store):
    """A long description is no part of what is sampled, and its words are no rare token's.

    With a sampler that puts it before the edit it is one.
    """
    words = replace(
        example("cat", Request("a minion in the snow")),
        caption="  ".join(["a minion in a city"] * 15),
    )
    encoder = copy.copy(model.text_encoder)
    encoder.tokenize = str.split
    knows = replace(
        model, known=frozenset({"a", "in", "the", "snow", "city"}), text_encoder=encoder
    )
    whole = setting(knows, tmp_store, method=replace(tuned(), prompt="{caption}"))
    told = []
    for template in ("", "{edit}", "{rare} {edit}"):
        sampler = replace(whole.sampler, template=template)
        told.append(run_texts.advice(replace(whole, sampler=sampler), words))
    unknown = (
        "'minion' is unknown to the pocket model, in the prompt 'a minion in the snow'; "
        "write it in words that it knows, or use model=if_m or larger"
    )
    assert told == [
        [unknown],
        [unknown],
        [
            "the prompt 'a minion in the snow' is 80 tokens, the model reads 76; "
            "dropped: 'minioninthesnow'",
            unknown,
        ],
    ]


def test_a_drawn_token_is_named(model, tmp_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        done = run(
            setting(model, tmp_store, method=replace(tuned(), prompt="{random}")),
            [example()],
            tmp_path,
        )
    token = done[0].text.removesuffix(" a dog")
    assert (
        token.isalpha()
        and f"the tuning prompt is {token!r}" in caplog.text
        and "{random}" not in caplog.text
    )


TEXTS = {
    "unitune": tuned(),
    "described": replace(tuned(), prompt="{caption}"),
    "dreambooth": DreamBooth(
        tuned().tune, stages=("base",), class_images=ClassImages(count=2, steps=1)
    ),
    "imagic": Imagic(Tuning(lr=1e-2, steps=1, batch_size=1), tuned().tune, stages=("base",)),
    "untuned": Untuned(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_all_texts_of_a_run_are_embedded_in_one_call(name, model, tmp_store, tmp_path):
    """Also those that measure how the tuning prompt is seen, and the references'.

    An encoder that is not kept is read once, before any network trains.
    """
    read, freed = [], []
    counted = replace(
        model,
        encoder=lambda texts: read.append((len(freed), *texts)) or model.encoder(texts),
        release=lambda: freed.append(1),
        embeddings={},
    )
    images_ = [
        replace(example("cat"), noun="cat"),
        replace(
            example("fox", Request("a fox at night", target=picture(0.1))),
            caption="a fox",
            noun="fox",
        ),
    ]
    run(setting(counted, tmp_store, method=TEXTS[name], plan=Seeds(1), oracle=1), images_, tmp_path)
    assert freed == [1] or name == "imagic"  # which frees what it holds after each lesson as well
    assert {before for before, *_ in read} == {0} and len({text for _, text in read}) == len(read)


def test_each_tuning_on_a_text_is_noted_and_others_measure_nothing(model, tmp_store, tmp_path):
    run(
        setting(model, tmp_store, method=tuned(), plan=Seeds(1)),
        [example("one"), example("two")],
        tmp_path / "a",
    )
    noted = [
        json.loads(line) for line in (tmp_path / "a" / records.TUNINGS).read_text().splitlines()
    ]
    assert [
        (line["example"], line["method"], line["steps"], line["texts"]["tuned"]) for line in noted
    ] == [(name, "unitune", 4, "beikkpic") for name in ("one", "two")]
    assert all(
        line[value] is not None
        for line in noted
        for value in ("text", "x_0", "tuned_db", "empty_db", "other_db", "response")
    )
    learned = TextualInversion(Tuning(lr=1e-2, steps=1, batch_size=1), initializer="a")
    for name, method in {
        "untuned": Untuned(),
        "learned": learned,
        "imagic": TEXTS["imagic"],
    }.items():
        run(setting(model, tmp_store, method=method, plan=Seeds(1)), [example()], tmp_path / name)
        assert not (tmp_path / name / records.TUNINGS).exists()
    run(
        setting(model, tmp_store, method=tuned(), plan=Seeds(1), snapshot=0),
        [example()],
        tmp_path / "none",
    )
    (line,) = [
        json.loads(line) for line in (tmp_path / "none" / records.TUNINGS).read_text().splitlines()
    ]
    assert line["steps"] == 0 and line["tuned_db"] is None and line["text"] > 0, (
        "nothing was tuned: only what was before is known"
    )


def test_a_run_again_in_its_folder_notes_each_tuning_once(model, tmp_store, tmp_path):
    def noted() -> list[dict]:
        return [json.loads(line) for line in (tmp_path / records.TUNINGS).read_text().splitlines()]

    both, whole = (
        [example("one"), example("two")],
        setting(model, tmp_store, method=tuned(), plan=Seeds(1)),
    )
    run(whole, both, tmp_path)
    first = noted()
    assert [(line["example"], line["stage"]) for line in first] == [
        ("one", "base"),
        ("two", "base"),
    ] and len({line["key"] for line in first}) == 1
    assert {line["key"] for line in first} == {
        path.name for path in tmp_store.path.glob("tuned-*")
    }, "the two pictures are the same"
    with (tmp_path / records.TUNINGS).open("a") as file:
        file.write('{"example": "on')  # a process was killed
    run(whole, both[:1], tmp_path)
    assert noted() == [first[1], first[0]]
    run(replace(whole, snapshot=2), both[:1], tmp_path)
    run(
        replace(
            whole, method=replace(tuned(), tune={"base": Tuning(lr=2e-2, steps=4, batch_size=1)})
        ),
        both[:1],
        tmp_path,
    )
    assert [(line["example"], line["steps"]) for line in noted()] == [
        ("two", 4),
        ("one", 4),
        ("one", 2),
        ("one", 4),
    ] and len({x["key"] for x in noted()}) == 2
    before = [
        {name: value for name, value in line.items() if name not in ("stage", "key")}
        for line in first
    ]  # as older versions wrote it
    (tmp_path / records.TUNINGS).write_text("".join(json.dumps(line) + "\n" for line in before))
    run(whole, both[:1], tmp_path)
    assert noted() == [before[1], first[0]] and not [
        path for path in tmp_path.iterdir() if path.name.endswith(".partial")
    ]
