"""Names of files are made: short, plain and unlike each other, whatever an image is called."""

import json
import re

import pytest
import torch
from hostile import BASE, tiny_model
from PIL import Image

from unitune import images
from unitune.benchmarks.manifest import Folder
from unitune.runs import pictures
from unitune.storage.names import DEVICES, LONGEST, file_name, file_names, readable
from unitune.types import Example, Request

PLAIN = re.compile(r"[A-Za-z0-9_,=+][A-Za-z0-9._,=+-]*")
ODD = [
    "x" * 300,
    "é" * 250,
    "🐈" * 60,
    "北京",
    "",
    "..",
    ".hidden",
    "-rf",
    "ends with.",
    "a/b\\c",
    "a\nb\0c",
    "CON",
    "nul.old",
    "\udcff",
    "my cat (1)",
    "a:b*c?",
]


@pytest.mark.parametrize("text", ["cat-city-0", "IMG_1234", "lr=1e-4,method=unitune", "a.b", "7"])
def test_a_plain_name_stays(text):
    assert file_name(text) == text


def test_odd_names_are_short_plain_and_unlike():
    made = [file_name(text) for text in ODD]
    for name in made:
        assert PLAIN.fullmatch(name) and len(name) <= LONGEST and name[-1] not in "-."
        assert name.partition(".")[0].casefold() not in DEVICES
    assert len({name.casefold() for name in made}) == len(ODD)
    assert made == [file_name(text) for text in ODD]
    assert file_name("modèle").startswith("modele-") and file_name("my cat").startswith("my-cat-")


@pytest.mark.parametrize(
    "texts",
    [
        ["Cat", "cat", "CAT"],
        ["a b", "a-b", "a_b", "a/b"],
        ["é", "e\u0301", "e"],
        ["y" * 200 + "1", "y" * 200 + "2"],
        ["cat", "cat-copy"],
        ["cat", "Cat", file_name("é")],
        ["Cat", "cat", "Cat-48735c4fae"],
        ["cat", "Cat", "cat-77af778b51", "Cat-48735c4fae", "CAT-77af778b51"],
        ["cat", "Cat", "cat-77af778b51-copy"],
    ],
)
def test_names_in_use_together_are_unlike(texts):
    names = file_names(texts, endings=("", "-copy"))
    ends = [f"{name}{end}".casefold() for name in names.values() for end in ("", "-copy")]
    assert [*names] == texts and len({*ends}) == 2 * len(texts)


def test_pictures_of_a_run_are_never_another_s_nor_the_grid():
    ids = ["cat", "Cat", "cat-target", "grid", "Grid-1", "🐈", "x" * 300]
    stems = pictures.stems([Example(one, torch.zeros(1, 3, 8, 8), ()) for one in ids])
    files = [
        pictures.file_name(stem, row, k)
        for stem in stems.values()
        for row in ("", "copy", "target", "copy through super-resolution")
        for k in range(2)
    ]
    assert len({file.casefold() for file in files}) == len(files)
    assert not any(file.casefold().startswith("grid") for file in files)
    assert all(len(file) < 200 and PLAIN.fullmatch(file) for file in files)
    assert pictures.file_name("cat", "", 7) == "cat-007.png"
    assert pictures.file_name("cat", "copy", 0) == "cat-copy-000.png"
    assert "/" not in pictures.file_name("cat", "../other's", 0)


def test_what_is_no_text_can_be_written():
    assert readable("a\udcff") == "a?" and readable("é🐈") == "é🐈"


def test_an_image_of_any_name_is_edited_and_keeps_its_name_on_record(typed, here):
    """The longest that a file system takes, an emoji, a dot in front."""
    model = tiny_model(here)
    for k, stem in enumerate(["n" * 250, "🐈" * 60, ".cat 1"]):
        images.save_png(torch.zeros(1, 3, 32, 32), here / "p.png")
        (here / "p.png").rename(here / f"{stem}.png")
        answer = typed(model, *BASE, f"image={stem}.png", f"hydra.run.dir=run{k}", "paste=true")
        assert answer.code == 0, answer.err
        lines = (here / f"run{k}/scores.jsonl").read_text().splitlines()
        for record in map(json.loads, lines):
            assert record["example"] == stem and PLAIN.fullmatch(record["image"])
            with Image.open(here / f"run{k}" / record["image"]) as picture:
                assert picture.size == (32, 32)
        assert len([*(here / f"run{k}").glob("*-full.png")]) == 1


def test_a_benchmark_s_images_may_differ_in_case_alone(tmp_path):
    lines = []
    for name in ("Cat.png", "cat.png", "katze 🐈.png"):
        images.save_png(torch.zeros(1, 3, 32, 32), tmp_path / name)
        lines.append(json.dumps({"image": name, "edit": "a dog"}) + "\n")
    (tmp_path / "edits.jsonl").write_text("".join(lines), encoding="utf-8")
    examples = Folder(tmp_path).examples(32)
    assert [one.id for one in examples] == ["Cat", "cat", "katze 🐈"]
    stems = pictures.stems(examples)
    assert len({stem.casefold() for stem in stems.values()}) == 3
    assert examples[0].requests == (Request("a dog"),)


@pytest.mark.parametrize("name", ["a/b", "n" * 300, "🐈"])
def test_the_folder_of_a_run_is_named_too(typed, here, name):
    answer = typed(tiny_model(here), *BASE, f"sampler.name='{name}'")
    assert answer.code == 0, answer.err
    (records,) = here.glob("outputs/*/*/scores.jsonl")
    assert len(records.parent.name) < 200
    assert json.loads(records.read_text().splitlines()[0])["sampler"] == name
