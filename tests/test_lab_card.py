"""The card of the trained parts: its rows in closed form, its scenes, its verdicts and its files."""

import json
import math
from pathlib import Path

import pytest
import torch

from unitune_lab import card
from unitune_lab.card_text import SMALL_IS_GOOD, TARGETS, WORDS, Row, gain, share, verdict, write
from unitune_lab.parts.stage import StagePart
from unitune_lab.world.scene import is_held_out


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
    write(tmp_path, rows, {"cat": [1, 4], "dog": [4, 4]}, count=64, minutes=1.25)
    data = json.loads((tmp_path / "card.json").read_text())
    assert [row["name"] for row in data["rows"]] == ["single", "sr_psnr"]
    assert data["rows"][1]["low"] is None and data["nouns"]["cat"] == [1, 4]
    text = (tmp_path / "card.md").read_text()
    assert "| single object present | 0.9 | [0.8, 0.95] | 64 | 0.85 reached | 0.95 missed |" in text
    assert "cat 0.25" in text and "dog" not in text


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
    row = card.relations(None, None, 8)  # type: ignore[arg-type]
    assert row.value == 0.5 and row.n == 16


def test_super_resolution_is_measured_beside_bicubic(tmp_path: Path):
    from unitune.pocket import FOLDER

    options = {"super_resolution": True, "channels": [16, 32, 32, 32]}
    stage = StagePart(FOLDER / "base", torch.device("cpu"), **options)  # type: ignore[arg-type]
    psnr, ratio = card.sr_rows(stage, 2)
    assert math.isfinite(psnr.value) and ratio.value > 0
