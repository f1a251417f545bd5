"""The folder of a run belongs to it alone: found again, gone on with, or refused."""

import pytest
import yaml

from unitune.errors import Refused
from unitune.runs import config, folder
from unitune.storage import records

SETTINGS = {"seeds": 3, "model": {"name": "tiny"}, "store": {"path": "store"}}


def text(**changes) -> str:
    return yaml.safe_dump({**SETTINGS, **changes})


def begin(path) -> None:
    path.mkdir()
    config.write(text(), path)


def test_a_new_folder_is_new_and_one_of_the_same_settings_is_gone_on_with(tmp_path):
    run = tmp_path / "run"
    assert folder.claim(run, text()) is False
    begin(run)
    assert folder.claim(run, text()) is False
    (run / records.FILE).write_text("")
    assert folder.claim(run, text()) is True
    # Where tuned weights are kept and where cells run makes no other result.
    assert folder.claim(run, text(store={"path": "elsewhere"}, launcher={"name": "ray"})) is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 1}, "seeds: 3 there, 1 here"),
        ({"model": {"name": "other"}}, "model.name: tiny there, other here"),
        ({"mask": "file"}, "mask: not set there, file here"),
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_a_folder_of_other_settings_is_refused(tmp_path, changes, said, done):
    run = tmp_path / "run"
    begin(run)
    if done:
        (run / records.FILE).write_text("")
    with pytest.raises(Refused, match="belongs to a run of other settings") as told:
        folder.claim(run, text(**changes))
    assert said in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["holiday.png", "scores.jsonl", "notes.md"])
def test_a_folder_with_files_of_no_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(Refused, match=f"holds no run .{name}."):
        folder.claim(tmp_path, text())
    assert (tmp_path / name).read_text() == "mine"


def test_what_is_on_disk_but_hidden_or_of_ours_is_no_other_run(tmp_path):
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "failed.json").write_text("{}")
    (tmp_path / "curves").mkdir()
    assert folder.claim(tmp_path, text()) is False


def test_settings_that_are_none_are_refused(tmp_path):
    run = tmp_path / "run"
    begin(run)
    config.write("- a list", run)
    with pytest.raises(Refused, match=r"config\.yaml holds no settings"):
        folder.claim(run, text())


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [1\nb: {", b"\x00"])
def test_settings_that_cannot_be_read_are_one_line(tmp_path, content):
    run = tmp_path / "run"
    begin(run)
    (run / config.FILE).write_bytes(content)
    with pytest.raises(Refused, match="of an earlier run cannot be read") as told:
        folder.claim(run, text())
    assert "\n" not in str(told.value)
