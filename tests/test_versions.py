"""What another version of this program wrote is refused in one line; records are still read."""

import json
from pathlib import Path

import pytest
from stores import stored

from unitune.runs import config
from unitune.storage import records
from unitune.storage.store import MANIFEST, TUNING_VERSION, Store
from unitune.types import Refused

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("version", [TUNING_VERSION - 1, TUNING_VERSION + 1, "none"])
def test_a_store_of_another_version_is_refused_and_left_alone(tmp_path, typed, version):
    key = {"image": "ab12", "stage": "base"}
    path = tmp_path / "kept"
    entry = stored(Store(path), "tuned", key, lambda folder: (folder / "weights").touch())
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["key"]["tuning_version"] = version
    if version == "none":
        del manifest["key"]["tuning_version"]
    (entry / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(Refused, match=f"holds {entry.name} of version {version}") as refused:
        Store(path)
    assert f"this program reads version {TUNING_VERSION}; move that store away" in str(
        refused.value
    )
    said = typed(f"store.path={path}", "metrics=none")
    assert (said.code, said.err.count("\n")) == (2, 1) and str(refused.value) in said.err
    assert (entry / "weights").exists(), "it is of use to the program that made it"


def test_a_store_of_this_version_and_one_that_is_damaged_are_opened(tmp_path):
    store = Store(tmp_path)
    entry = stored(store, "tuned", {"image": "ab12"}, lambda folder: (folder / "w").touch())
    (entry / MANIFEST).write_text("{")
    assert Store(tmp_path) == store


@pytest.mark.parametrize(
    ("text", "version"),
    [("", 1), (config.HEADER.format(1), 1), (config.HEADER.format(config.VERSION + 1), 3)],
)
@pytest.mark.parametrize("command", [["from=run"], ["--config-name", "score", "runs=run"]])
def test_the_folder_of_a_run_of_another_version_is_refused(typed, command, text, version):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text + "sampler: {name: cfg}\n")
    Path("run/scores.jsonl").write_text("")
    said = typed(*command)
    assert said.code == 2 and said.err.count("\n") == 1
    assert f"the run in run is of version {version}, and this program reads version 2" in said.err
    assert sorted(path.name for path in Path().rglob("*")) == ["config.yaml", "run", "scores.jsonl"]


def test_a_run_says_its_version_and_its_settings_stay_as_they_are(tmp_path):
    config.write("lr: 0.1\n", tmp_path)
    text = (tmp_path / config.FILE).read_text()
    assert text == "# The folder of a run, version 2\nlr: 0.1\n"
    config.check_version(text, tmp_path)


@pytest.mark.parametrize("name", ["first_edits", "tedbench"])
def test_records_that_are_kept_without_their_runs_are_read(name):
    assert records.read(ROOT / "experiments" / "records" / f"{name}.jsonl")
