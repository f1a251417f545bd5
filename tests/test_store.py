import dataclasses
import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import KEY, Build, entries, stored, unfinished

from unitune.storage import store as store_module
from unitune.storage.store import MANIFEST, Store, fingerprint
from unitune.types import Refused


@dataclasses.dataclass(frozen=True)
class Recipe:
    lr: float
    steps: int
    names: tuple[str, ...] = ("a", "b")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1e-4}, {"x": 0.0001}),
        ({"x": 0.0}, {"x": -0.0}),
        ({"x": (1, 2)}, {"x": [1, 2]}),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        (Recipe(1, 2), {"lr": 1.0, "steps": 2, "names": ["a", "b"]}),
        ({"x": {"r": Recipe(1, 2)}}, {"x": {"r": dataclasses.asdict(Recipe(1, 2))}}),
        ({"x": np.float64(0.5)}, {"x": 0.5}),
    ],
)
def test_equal_data_agree(a, b):
    assert fingerprint(a) == fingerprint(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 2}),
        ({"x": 1}, {"x": "1"}),
        ({"x": 1}, {"x": True}),
        ({"x": None}, {}),
        ({"x": None}, {"x": "None"}),
        ({"x": [1, 2]}, {"x": [2, 1]}),
        ({"x": {"y": 1}}, {"x.y": 1}),
        ({"x": 0.1}, {"x": 0.1 + 1e-17 * 2}),
        ({"x": 2**53 + 1}, {"x": 2**53}),
    ],
)
def test_other_data_differ(a, b):
    assert fingerprint(a) != fingerprint(b)


def test_fingerprint_is_16_hex_and_stable():
    assert fingerprint({"a": [1, 2.5, "x", None, True]}) == "781726d78a18d28b"


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1),
        Path("x"),
        {1, 2},
        b"x",
        float("nan"),
        float("inf"),
        np.int64(1),
        object(),
        Recipe,
        {1: "x"},
    ],
)
def test_other_than_plain_data_is_named(value):
    with pytest.raises(TypeError, match=r"outer\.list\[1\]"):
        fingerprint({"outer": {"list": [0, value]}})


def test_made_once_and_again_for_another_key(tmp_path):
    store, build = Store(tmp_path), Build()
    first = stored(store, "tuned", KEY, build)
    assert stored(store, "tuned", {**KEY, "steps": 128.0}, build) == first and build.calls == 1
    assert stored(Store(tmp_path), "tuned", KEY, build) == first and build.calls == 1
    others = [
        stored(store, "tuned", {**KEY, "steps": 64}, build),
        stored(store, "embedding", KEY, build),
    ]
    assert build.calls == 3 and len({first, *others}) == 3 and unfinished(tmp_path) == []


def test_entry_and_manifest(tmp_path):
    entry = stored(Store(tmp_path), "class_images", {"recipe": Recipe(1, 2)}, Build())
    manifest = json.loads((entry / MANIFEST).read_text())
    assert (
        sorted(manifest) == ["files", "key", "kind", "made"] and manifest["kind"] == "class_images"
    )
    assert manifest["key"] == {
        "recipe": {"lr": 1, "steps": 2, "names": ["a", "b"]},
        "tuning_version": store_module.TUNING_VERSION,
    }
    assert entry.name == f"class_images-{fingerprint(manifest['key'])}" and sorted(
        manifest["files"]
    ) == ["images/0.png", "weights.bin"]


def test_the_version_is_in_the_key(tmp_path, monkeypatch):
    store, build = Store(tmp_path), Build()
    first = stored(store, "tuned", KEY, build)
    monkeypatch.setattr(store_module, "TUNING_VERSION", store_module.TUNING_VERSION + 1)
    assert stored(store, "tuned", KEY, build) != first and build.calls == 2


def test_unknown_kind_and_own_manifest(tmp_path):
    with pytest.raises(ValueError, match="class_images"):
        stored(Store(tmp_path), "weights", KEY, Build())
    with pytest.raises(ValueError, match=MANIFEST):
        stored(Store(tmp_path), "tuned", KEY, lambda folder: (folder / MANIFEST).touch())
    assert entries(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(tmp_path, error):
    def build(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(error):
        stored(Store(tmp_path), "tuned", KEY, build)
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


@pytest.mark.parametrize(
    "harm", ["bit", "missing", "truncated", "no manifest", "bad manifest", "other key"]
)
def test_damage_is_found_and_rebuilt(tmp_path, caplog, harm):
    store, build = Store(tmp_path), Build()
    entry = stored(store, "tuned", KEY, build)
    file, manifest = entry / "weights.bin", entry / MANIFEST
    if harm == "bit":
        data = bytearray(file.read_bytes())
        data[3] ^= 4
        file.write_bytes(data)
    elif harm == "missing":
        file.unlink()
    elif harm == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "bad manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace("128", "129"))
    with caplog.at_level(logging.WARNING):
        again = stored(store, "tuned", KEY, build)
        stored(store, "tuned", KEY, build)
    assert (
        again == entry
        and build.calls == 2
        and file.read_bytes() == b"weights"
        and unfinished(tmp_path) == []
    )
    warned = MANIFEST if "manifest" in harm or harm == "other key" else "weights.bin"
    assert [record.getMessage() for record in caplog.records] == [
        f"stored entry {entry.name} is damaged ({warned}): rebuilt"
    ]


def test_contents_are_told_by_image(tmp_path):
    store = Store(tmp_path)
    for kind, key in (
        ("tuned", {"image": "a", "stage": "base"}),
        ("embedding", {"image": "a"}),
        ("class_images", {"prompt": "a cat"}),
    ):
        stored(store, kind, key, lambda folder: (folder / "file").write_bytes(b"12345"))
    made, used = store_module.contents(tmp_path)
    assert made == {"a": {"base", "embedding"}} and used > 15
    assert store_module.contents(tmp_path / "none") == ({}, 0)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(
            'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
        ),
    ],
)
def test_full_disk_is_refused_and_leaves_nothing(tmp_path, error):
    def build(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(Refused, match="disk full"):
        stored(Store(tmp_path), "tuned", KEY, build)
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


def test_full_disk_while_sealing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="disk full"):
        stored(store, "tuned", KEY, Build())
    assert entries(tmp_path) == [] and unfinished(tmp_path) == []


def test_unusable_path_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(Refused, match="cannot be written"):
        Store(Path("/proc/store"))
    with pytest.raises(Refused, match="above 0"):
        Store(tmp_path, budget_gib=0)


def test_read_only_folder_is_refused(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    Store(tmp_path)
    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(Refused, match="Read-only file system"):
        Store(tmp_path)
