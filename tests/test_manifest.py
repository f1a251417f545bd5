"""What a benchmark's files may hold: facts of an edit, encodings, nulls, and nothing at all."""

import codecs
import json

import pytest
import torch

from unitune import images
from unitune.benchmarks.manifest import Folder
from unitune.benchmarks.pie import PIEBench
from unitune.benchmarks.tedbench import TEdBench
from unitune.types import Refused

LINE = {"image": "a.png", "edit": "a cat in the snow"}


def folder(root, *lines):
    images.save_png(torch.zeros(1, 3, 32, 32), root / "a.png")
    (root / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Folder(root)


def test_facts_and_their_parts_are_read(tmp_path):
    parts = {
        "facts": {"place": "snow", "nouns": ["cat"]},
        "appear": {"place": "snow"},
        "stay": {"nouns": ["cat"]},
    }
    (example,) = folder(tmp_path, LINE | parts, LINE | {"edit": "a dog"}).examples(16)
    told, bare = example.requests
    assert {name: getattr(told, name) for name in parts} == parts
    assert bare.facts == bare.appear == bare.stay == {}


@pytest.mark.parametrize("field", ["facts", "appear", "stay"])
@pytest.mark.parametrize("value", [["cat"], "snow", None, 1])
def test_parts_that_are_no_objects_are_refused_by_number(tmp_path, field, value):
    with pytest.raises(Refused, match=rf"line 2: {field} is .*; give an object"):
        folder(tmp_path, LINE, LINE | {"edit": "a dog", field: value}).examples(16)


@pytest.mark.parametrize("image", ["", ".", "/"])
def test_an_image_that_is_no_file_is_refused(tmp_path, image):
    with pytest.raises(Refused):
        folder(tmp_path, LINE | {"image": image}).examples(16)


ENCODINGS = {  # as editors and spreadsheets write text
    "plain": lambda text: text.encode(),
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 of the other order": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
}
ITEM = {
    "image_path": "a.png",
    "original_prompt": "a [cat]",
    "editing_prompt": "une forêt",
    "mask": [0, 9],
}
BENCHMARKS = {  # class, file, folder of the picture, px, what the file holds
    "folder": (Folder, "edits.jsonl", ".", 32, {"image": "a.png", "edit": "une forêt"}),
    "pie": (PIEBench, "mapping_file.json", "annotation_images", 512, {"1": ITEM}),
    "ted": (
        TEdBench, "input_list.json", "originals", 32,
        [{"img_name": "a.png", "target_text": "une forêt"}],
    ),
}  # fmt: skip


def written(root, name, held, encoding="plain"):
    made, file, where, px, _ = BENCHMARKS[name]
    (root / where).mkdir(exist_ok=True)
    images.save_png(torch.zeros(1, 3, px, px), root / where / "a.png")
    (root / file).write_bytes(
        ENCODINGS[encoding](json.dumps(held, ensure_ascii=False, indent=None))
    )
    return made(root)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_files_are_read_in_the_encodings_that_editors_write(tmp_path, name, encoding):
    (example,) = written(tmp_path, name, BENCHMARKS[name][-1], encoding).examples(16)
    assert [request.prompt for request in example.requests] == ["une forêt"]


@pytest.mark.parametrize(
    ("name", "nothing"), [("folder", ""), ("folder", "\n \n"), ("pie", "{}"), ("ted", "[]")]
)
def test_a_file_without_an_edit_is_refused(tmp_path, name, nothing):
    benchmark = written(tmp_path, name, {})
    (tmp_path / BENCHMARKS[name][1]).write_text(nothing)
    with pytest.raises(Refused, match=rf"{BENCHMARKS[name][1]} holds no edit"):
        benchmark.examples(16)


@pytest.mark.parametrize("field", ["caption", "noun", "kind", "instruction", "mask", "target"])
def test_null_is_a_field_left_out(tmp_path, field):
    (example,) = folder(tmp_path, LINE | {field: None}).examples(16)
    (bare,) = folder(tmp_path, LINE).examples(16)
    assert (example.caption, example.noun, example.requests) == (
        bare.caption, bare.noun, bare.requests,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        ("folder", LINE | {"edit": None}, "line 1: edit is None"),
        ("folder", LINE | {"edit": "  "}, "line 1: edit is empty"),
        ("folder", LINE | {"image": None}, "line 1: image is None"),
        ("pie", {"7": ITEM | {"editing_prompt": None}}, "key 7: editing_prompt is None"),
        ("pie", {"7": ITEM | {"original_prompt": 3}}, "key 7: original_prompt is 3"),
        ("pie", {"7": ITEM | {"editing_prompt": "[]"}}, "key 7: editing_prompt is empty"),
        ("pie", {"7": ITEM | {"image_path": None}}, "key 7: image_path is None"),
        ("ted", [{"img_name": "a", "target_text": None}], "pair 1: target_text is None"),
        ("ted", [{"img_name": None, "target_text": "x"}], "pair 1: img_name is None"),
        ("ted", [{"img_name": "a", "target_text": " "}], "pair 1: target_text is empty"),
        ("ted", {"img_name": "a"}, "not TEdBench's list"),
    ],
)
def test_a_text_that_is_none_is_refused_by_file_place_and_field(tmp_path, name, held, said):
    with pytest.raises(Refused, match=said) as refusal:
        written(tmp_path, name, held).examples(16)
    assert BENCHMARKS[name][1] in str(refusal.value)


def test_other_fields_of_pie_bench_may_be_null(tmp_path):
    held = {"1": ITEM | {"blended_word": None, "editing_type_id": None}}
    (example,) = written(tmp_path, "pie", held).examples(16)
    assert (example.noun, example.requests[0].kind) == ("", "")


def test_a_slash_of_a_text_is_no_folder(tmp_path):
    """Edits of it run; what somebody published of it is looked for under the text's name."""
    held = [{"img_name": "a.png", "target_text": "A red/blue dog."}]
    benchmark = written(tmp_path, "ted", held)
    assert benchmark.examples(16)[0].requests[0].prompt == "A red/blue dog."
    with pytest.raises(Refused, match=r"a\.png-A_red/blue_dog\.png: no such file"):
        benchmark.outputs("imagic", 16)
