"""The card of the trained parts: its rows in closed form, its scenes, verdicts and files."""

import json
import math
from pathlib import Path

import pytest
import torch

from unitune.metrics.judge import read_card
from unitune.scenes.scene import is_held_out
from unitune_lab import card
from unitune_lab.card_text import SMALL_IS_GOOD, TARGETS, WORDS, Row, gain, share, verdict, write
from unitune_lab.options import Phase
from unitune_lab.parts.stage import StagePart
from unitune_lab.records import history, records


def test_a_share_has_wilsons_interval():
    row = share("single", [True] * 9 + [False])
    assert (row.value, row.n) == (0.9, 10)
    assert row.low == pytest.approx(0.596, abs=1e-3) and row.high == pytest.approx(0.982, abs=1e-3)
    assert math.isnan(share("single", []).value)


def test_the_gain_is_a_mean_difference_and_a_ratio_of_means():
    psnr, ratio = gain([[30.0, 28.0, 0.1, 0.4], [26.0, 25.0, 0.2, 0.2]])
    assert psnr.value == 1.5 and psnr.n == 2
    assert psnr.high - psnr.value == pytest.approx(12.706 * 0.5, rel=1e-3), "Student's t of two"
    assert ratio.value == pytest.approx(0.5)


def test_verdicts_know_which_way_is_better():
    assert verdict(Row("single", 0.9), 0.85) == "0.85 reached"
    assert verdict(Row("single", 0.8), 0.85) == "0.85 missed"
    assert verdict(Row("sr_stlpips", 0.4), 0.45) == "0.45 reached"
    assert verdict(Row("single", math.nan), 0.85) == "0.85 missed"
    chance = TARGETS["relation"][0]
    assert verdict(Row("relation", 0.6, 0.45, 0.7), chance) == "0.5 missed", "not above chance"
    assert verdict(Row("relation", 0.6, 0.52, 0.7), chance) == "0.5 reached"
    assert set(TARGETS) <= set(WORDS) and set(TARGETS) >= SMALL_IS_GOOD


def test_what_is_written_reads_back(tmp_path: Path):
    rows = [Row("single", 0.9, 0.8, 0.95, 64), Row("sr_psnr", 0.5)]
    (tmp_path / "NOTES.md").write_text("They draw cats.\n")
    write(tmp_path, rows, {"cat": [1, 4], "dog": [4, 4]}, count=64, minutes=1.25)
    data = json.loads((tmp_path / "card.json").read_text())
    assert [row["name"] for row in data["rows"]] == ["single", "sr_psnr"]
    assert data["rows"][1]["low"] is None and data["nouns"]["cat"] == [1, 4]
    text = (tmp_path / "README.md").read_text()
    assert "| single object present | 0.9 | [0.8, 0.95] | 64 | 0.85 reached | 0.95 missed |" in text
    assert "of their pictures: cat (1 of 4)." in text and text.endswith("They draw cats.\n")
    assert "24 nouns, 8 places" in text and "No look at the first stage is kept." in text


def test_a_parts_trainings_are_summed_from_the_first_to_the_last(tmp_path: Path):
    first = {"samples": 1000, "minutes": 60.0, "before": {}}
    options = {"threads": 1, "optimizer": "adamw", "lr": 5e-4, "phases": [vars(Phase(32, 16, 500))]}
    second = {"samples": 500, "minutes": 30.0, "before": first, "options": options}
    assert history(second) == [first, second]
    (tmp_path / "training.json").write_text(json.dumps({"base": second}))
    line = {"part": "base", "samples": 500, "minutes": 30.0, "error": 0.1, "single": 0.5}
    (tmp_path / "training_curve.jsonl").write_text(json.dumps(line) + "\n")
    write(tmp_path, [], {}, count=1, minutes=1.0)
    text = (tmp_path / "README.md").read_text()
    told = "| base | 1,500 | 1.5 | 1 | adamw | 0.0005 | 500 at 32 px in batches of 16 |"
    assert told in text and "(curve.png)" in text
    card.draw_curve(card.looks(tmp_path), tmp_path / "curve.png")
    assert [file.name for file in tmp_path.glob("curve.*")] == ["curve.png"]


def test_a_training_in_progress_stands_before_what_ships(tmp_path: Path):
    (tmp_path / "training.json").write_text(json.dumps({"base": {"samples": 1}, "judge": {}}))
    (tmp_path / "training_curve.jsonl").write_text('{"part": "base", "samples": 1}\n')
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "done.json").write_text('{"samples": 2}')
    (tmp_path / "base" / "curve.jsonl").write_text('{"samples": 2}\n')
    assert records(tmp_path) == {"base": {"samples": 2}, "judge": {}}
    assert card.looks(tmp_path) == [{"part": "base", "samples": 2}]


def test_accuracies_lie_beside_the_weights_that_have_them(tmp_path: Path):
    judge = tmp_path / "judge" / "export"
    judge.mkdir(parents=True)
    (judge / "model.safetensors").touch()
    card.write_accuracies(tmp_path, "judge", [Row("judge_nouns", 0.98765), Row("pair", 0.5)])
    card.write_accuracies(tmp_path, "clip", [Row("clip_noun", 0.9)])
    assert read_card(judge) == {"nouns": "0.988"}
    assert not (tmp_path / "clip").exists(), "a part that is not there has no card"


def test_its_scenes_are_unseen_ones():
    scenes = card.draw(20, counts=(0.0, 1.0), seed=1, wanted=card.leftward)
    assert all(is_held_out(scene) and card.distinct(scene) for scene in scenes)
    assert all(scene.objects[0].x < scene.objects[1].x for scene in scenes)


def test_a_model_that_always_puts_the_first_noun_left_is_right_half_of_the_time(monkeypatch):
    def read(stage: StagePart, judge: object, prompts: list[str]) -> list[dict]:
        nouns = [[w for w in text.replace(",", "").split() if w in card_nouns] for text in prompts]
        return [{"nouns": set(pair), "right": {pair[0]: -1.0, pair[1]: 1.0}} for pair in nouns]

    from unitune_lab.batches import NOUN as card_nouns

    monkeypatch.setattr(card, "read_samples", read)
    row = card.relations(None, None, 8)
    assert row.value == 0.5 and row.n == 16


def test_super_resolution_is_measured_beside_bicubic(tmp_path: Path):
    from unitune.models.pocket import FOLDER

    options = {"super_resolution": True, "channels": [16, 32, 32, 32]}
    stage = StagePart(FOLDER / "base", torch.device("cpu"), **options)
    psnr, ratio = card.sr_rows(stage, 2)
    assert math.isfinite(psnr.value) and ratio.value > 0
