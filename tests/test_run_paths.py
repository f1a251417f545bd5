"""A run in folders with odd names, whose settings are run again from another folder."""

import shutil

import pytest
from hostile import SMALL, tiny_model
from test_conf import DEMO

from unitune.storage import records

ODD = "modèle (1), [x]=2 $3"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_model(tmp_path_factory.mktemp("paths"))


def test_odd_names_are_taken_as_typed_and_found_again_from_another_folder(
    typed, here, model, monkeypatch
):
    monkeypatch.setenv("HOME", str(here))
    shutil.copytree(model.partition("=")[2], here / ODD)
    shutil.copy(DEMO / "cat-city-0.png", here / f"{ODD}.png")
    edit, run, store = "[V] dog, (running) | $5 a=b \\", f"out {ODD}", f"store.path=~/st {ODD}"
    first = typed(
        *SMALL, "stage=base", f"model.path={ODD}", f"image=~/{ODD}.png", f"edit={edit}",
        f"hydra.run.dir={run}", store, "token.text=[V]", "caption=[a cat], in a city",
    )  # fmt: skip
    assert first.code == 0, first.err
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    again = typed(f"from=../{run}", store, "hydra.run.dir=again")
    assert again.code == 0 and "tuned base" not in again.err, again.err
    done, redone = records.read(here / run), records.read(here / "other/again")
    edits = [record for record in done if record.row == "edit"]
    assert {record.prompt for record in edits} == {edit} and len(done) == len(redone)
    for one, other in zip(done, redone, strict=True):
        pictures = (here / run / one.image), (here / "other/again" / other.image)
        assert pictures[0].read_bytes() == pictures[1].read_bytes()
    names = {folder.name for folder in here.iterdir()}
    assert names == {ODD, f"{ODD}.png", run, f"st {ODD}", "other"}
