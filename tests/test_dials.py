"""The dials in conf/ are those that the kept search chooses, with the weights that ship."""

import itertools
import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "experiments/measured"))

import dial_runs  # noqa: E402  # scripts
import rare_token  # noqa: E402
import search_dials  # noqa: E402

from unitune.models.pocket import FOLDER as POCKET  # noqa: E402


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return dial_runs.read(search_dials.RECORD)


@pytest.fixture(scope="module")
def choice(rows: list[dict]) -> dict[str, dict[str, float]]:
    chosen = search_dials.chosen(search_dials.table(search_dials.through(rows)))
    return {method: setting for method, (setting, _) in chosen.items()}


def conf(method: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", [f"method={method}", "budget=model"])


@pytest.mark.parametrize("method", search_dials.GRID)
def test_conf_has_the_dials_that_the_record_chooses(choice: dict[str, dict], method: str):
    cfg, chosen = conf(method), choice[method]
    has = {
        "lr": cfg.lr,
        "weight": cfg.sampler.guidance.weight,
        "start": cfg.sampler.start,
        "embedding_mix": cfg.sampler.text.eta,
        "steps": cfg.steps,
    }
    if "word" in chosen:
        has["word"] = cfg.method.embedding.lr
    assert {name: has[name] for name in chosen} == chosen


def test_every_method_has_as_many_settings(rows: list[dict]):
    found, images = search_dials.table(rows), {row["image"] for row in rows}
    assert set(found) == set(search_dials.GRID)
    assert {len(measured) for measured in found.values()} == {54}
    for method in found:
        assert {row["image"] for row in rows if row["method"] == method} == images


def test_the_search_was_on_other_images_than_the_benchmark(rows: list[dict]):
    reported = {
        json.loads(line)["image"].removesuffix(".png")
        for line in (POCKET.parent / "scenes" / "edits.jsonl").open()
    }
    assert not {row["image"] for row in rows} & reported


@pytest.mark.parametrize("other", ["weights", "judge"])
def test_a_record_of_other_weights_is_refused(tmp_path, capsys, other: str):
    file = tmp_path / "dials.jsonl"
    dial_runs.write([ABOUT | {other: "0" * 64}], file)
    with pytest.raises(SystemExit) as end:
        dial_runs.read(file)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert "000000000000" in said and "measure again" in said


ABOUT = {"weights": dial_runs.digest(), "judge": dial_runs.judged()}


def row(method: str, setting: dict, both: float, outside: float) -> dict:
    scores = {"appear": 1.0, "stay": 1.0, "both": both, "outside": outside}
    errors = {"inside": 0.1, "base_inside": 0.2}
    return {"method": method, "setting": setting, "image": "a", "edits": 2} | scores | errors


def test_the_choice_is_the_highest_success_within_the_bound():
    a, b, c, d = search_dials.settings("unitune")[:4]

    def choice(*scores: tuple[dict, float, float]) -> dict:
        rows = [row("unitune", *one) for one in scores]
        return search_dials.chosen(search_dials.table(rows))["unitune"][0]

    assert choice((a, 1.0, 0.011), (b, 0.5, 0.009), (c, 0.5, 0.004), (d, 0.0, 0.001)) == c
    beyond = choice((a, 1.0, 0.05), (b, 0.5, 0.02))
    assert beyond == b, "where nothing is within the bound, the smallest error"


def test_a_best_value_at_an_end_of_all_that_was_tried_is_named():
    values = itertools.product((1.0, 2.0), (64, 128), (0.8, 0.9))
    tried = [
        {"lr": lr, "steps": steps, "weight": 2.0, "start": start} for lr, steps, start in values
    ]
    rows, end = [row("unitune", setting, 0.5, 0.005) for setting in tried], tried[-1]
    why = "128 steps are the budget's own limit, and one weight has no end"
    assert search_dials.at_ends(rows, "unitune", end) == ["lr", "start"], why
    higher, later = (
        row("unitune", end | more, 0.1, 0.005) for more in ({"lr": 4.0}, {"start": 0.95})
    )
    other = row("imagic", {"lr": 9.0}, 0.1, 0.005)
    assert search_dials.at_ends([*rows, higher], "unitune", end) == ["start"]
    assert search_dials.at_ends([*rows, higher, later, other], "unitune", end) == []


def test_rows_are_kept_when_the_window_moves_and_a_cell_is_measured_once(tmp_path, monkeypatch):
    inside, outside = search_dials.settings("untuned")[0], {"weight": 99.0, "start": 0.5}
    record, work = tmp_path / "dials.jsonl", tmp_path / "work"
    dial_runs.write([row("untuned", s, 1.0, 0.0) | ABOUT for s in (inside, outside)], record)
    monkeypatch.setattr(search_dials, "RECORD", record)
    known = search_dials.kept(work)
    assert [one["setting"] for one in known] == [inside, outside]
    left = search_dials.missing(known, "untuned", {})
    assert inside not in left and len(left) == 53
    assert search_dials.through(known) == [], "a method that is not through is not reported"
    calls: list[int] = []

    def cell() -> list[dict]:
        calls.append(1)
        return [row("unitune", {}, 1.0, 0.0) | ABOUT]

    for _ in range(2):
        assert len(dial_runs.search({"cell": cell}, work)) == 1
    assert calls == [1]


@pytest.mark.parametrize(
    ("apart", "success", "default"),
    [(6.0, 0.45, "rare"), (5.9, 0.9, "description"), (9.0, 0.44, "description")],
)
def test_the_rare_token_is_the_default_only_where_it_is_separate_and_about_as_good(
    apart: float, success: float, default: str
):
    setting = {"tuned_db": 20.0, "token": "rare", "empty_db": 20.0 - apart}
    described = {"tuned_db": 21.0, "token": "description", "empty_db": 10.0}
    rows = [row("unitune", {}, success, 0.01) | setting, row("unitune", {}, 0.5, 0.01) | described]
    assert rare_token.verdict(rows)[0] == default


def test_conf_tunes_on_what_the_record_of_the_rare_token_decides():
    default, _ = rare_token.verdict(dial_runs.read(rare_token.RECORD))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert (compose("config").method.prompt == "{caption}") == (default == "description")
