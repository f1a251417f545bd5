"""What a line of edits.jsonl says about the facts of its edit."""

import json

import pytest
import torch

from unitune import images
from unitune.benchmarks.manifest import Folder
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
