"""The card of the pocket models: estimators in closed form, counting on made-up readings, the whole command on tiny random models."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from unitune import pocket as pocket_model
from unitune.backends import tiny
from unitune.diffusion.steps import DDIM, Threshold
from unitune.metrics.clip import build_clip, save_clip
from unitune.metrics.judge import Judge, save_judge
from unitune.metrics.kid import kid, mmd
from unitune.pretrain import networks
from unitune.pretrain.card import measure
from unitune.pretrain.card import write as card
from unitune.pretrain.card.estimates import Row, average, power_law, ratio, share, spread
from unitune.pretrain.card.learning import FILE, fits, read_curve, sentence
from unitune.pretrain.card.readings import JUDGE, ONE, TARGETS, TWO, WORDS, by_noun, fact_rows, ordered, readings
from unitune.pretrain.card.text import Card, Part, chain, numbers, text, world
from unitune.scenes import Object, Scene, caption, is_held_out
from unitune.scenes.vocabulary import NOUNS
from unitune.types import Refused

ROOT = Path(__file__).parent.parent
NAN = float("nan")


def normal(rows: int, *, seed: int, mean: float = 0.0, width: int = 4) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_mmd_is_the_double_loop():
    x, y = normal(7, seed=0), normal(7, seed=1, mean=0.5)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    between = sum(k(a, b) for a in x for b in y) / 49
    assert mmd(x, y) == pytest.approx(within - 2 * between, rel=1e-10)


def test_mmd_is_unbiased_and_sees_a_shift():
    same = np.array([mmd(normal(20, seed=2 * s), normal(20, seed=2 * s + 1)) for s in range(400)])
    error = same.std() / math.sqrt(len(same))
    assert abs(same.mean()) < 3 * error and (same < 0).any()
    shifted = [mmd(normal(200, seed=2 * s, mean=1.0), normal(200, seed=2 * s + 1)) for s in range(20)]
    expected = mean_kernel(1.0, 1.0) + mean_kernel(0.0, 0.0) - 2 * mean_kernel(1.0, 0.0)
    assert np.mean(shifted) == pytest.approx(expected, rel=0.1)


def mean_kernel(a: float, b: float, d: int = 4) -> float:
    """E (x.y / d + 1)^3 for independent x ~ N(a, I), y ~ N(b, I), from the moments of the d products x_i y_i."""
    m_1, m_2, m_3 = a * b, (a**2 + 1) * (b**2 + 1), (a**3 + 3 * a) * (b**3 + 3 * b)
    second = d * m_2 + d * (d - 1) * m_1**2
    third = d * m_3 + 3 * d * (d - 1) * m_2 * m_1 + d * (d - 1) * (d - 2) * m_1**3
    return 1 + 3 * m_1 + 3 * second / d**2 + third / d**3


def test_kid_of_subsets():
    x, y = normal(40, seed=0), normal(40, seed=1, mean=1.0)
    assert kid(x, y, subsets=5, size=20, seed=0) == kid(x, y, subsets=5, size=20, seed=0) != kid(x, y, subsets=5, size=20, seed=1)
    assert kid(x, y, subsets=1, size=40, seed=0)[0] == pytest.approx(mmd(x, y))  # the only subset
    assert min(kid(x, y, subsets=5, size=20, seed=0)) > max(kid(x, normal(40, seed=2), subsets=5, size=20, seed=0))
    with pytest.raises(Refused, match="2 to 40"):
        kid(x, y, subsets=1, size=41, seed=0)


def test_wilson_interval():
    row = share("base", "x", [True] * 45 + [False] * 5)
    z = 1.959964
    centre, half = (0.9 + z**2 / 100) / (1 + z**2 / 50), z * math.sqrt(0.9 * 0.1 / 50 + z**2 / 10_000) / (1 + z**2 / 50)
    assert (row.value, row.n) == (0.9, 50) and (row.low, row.high) == pytest.approx((centre - half, centre + half), abs=1e-5)
    assert share("base", "x", [True] * 10).high == 1.0 and share("base", "x", [True] * 10).low < 0.8
    assert math.isnan(share("base", "x", []).value) and share("base", "x", [], at_least=0.5).verdict == "not measured"


def test_bootstrap_intervals():
    values = normal(100, seed=3, width=1).flatten().tolist()
    row, error = average("sr256", "x", values), np.std(values) / 10
    assert row.value == pytest.approx(np.mean(values)) and row.high - row.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert average("sr256", "x", values) == row  # the same numbers again
    halves = ratio("sr256", "x", [0.5 * v for v in range(1, 9)], [float(v) for v in range(1, 9)], at_most=0.5)
    assert (halves.value, halves.low, halves.high, halves.verdict) == (0.5, 0.5, 0.5, "reached")
    assert math.isnan(average("sr256", "x", [1.0]).low)
    row = spread("base", "x", [float(v) for v in range(101)], n=7)
    assert (row.value, row.low, row.high, row.n) == pytest.approx((50.0, 2.5, 97.5, 7))


def test_verdicts_are_computed():
    assert Row("a", "b", 0.9, at_least=0.9).verdict == "reached" and Row("a", "b", 0.899, at_least=0.9).verdict == "not reached"
    assert Row("a", "b", 40.1, at_most=40.0).verdict == "not reached" and Row("a", "b", 39.0, at_most=40.0).target == "at most 40"
    assert Row("a", "b", 0.7, low=0.51, chance=0.5).verdict == "reached" and Row("a", "b", 0.7, low=0.49, chance=0.5).verdict == "not reached"
    assert Row("a", "b", 0.7).verdict == ""


def test_clipped_share():
    x = torch.zeros(2, 3, 2, 2)
    x[0, 0] = torch.tensor([[1.0, -1.0], [1.7, 0.99]])  # 0.99 is 252 of 255
    assert measure.clipped(x).tolist() == pytest.approx([3 / 12, 0])
    counting = measure.Counting(Threshold(0.95, 1.5))
    assert torch.equal(counting(3 * x), Threshold(0.95, 1.5)(3 * x))
    assert counting.calls[0].tolist() == pytest.approx([4 / 12, 0])


def seen(**facts: object) -> dict:
    return {"nouns": {"dog"}, "colours": set(), "place": "beach", "time": "day", "style": "plain", "count": 1, "right": dict.fromkeys(NOUNS, 0.0), **facts}


def test_readings_count_only_what_is_asked():
    dog = Scene("beach", "day", (Object("dog", 0.2, 0.9, 0.4),))
    pair = Scene("snow", "night", (Object("dog", 0.2, 0.9, 0.4, colour="red"), Object("cat", 0.5, 0.9, 0.4)))
    left, right_of_middle = (seen()["right"] | {"dog": logit} for logit in (-1.0, 1.0))
    wrong = seen(nouns={"dog", "cat", "cow"}, colours={"red", "blue"}, place="snow", right=right_of_middle)
    right = readings([seen(right=left), wrong], [dog, pair])
    assert right["nouns"] == [True, True] and right["exactly"] == [True, False] and right["single"] == [True]
    assert right["place"] == [True, True] and right["time"] == [True, False] and right["count"] == [True, False]
    assert right["colours"] == [True] and right["palette"] == [True, False]
    assert right["side"] == [True, False]  # of the dogs; the cat stands in the middle
    assert by_noun(readings([seen(), seen(nouns=set())], [dog, dog]), [dog, dog]) == {"dog": [1, 2]}
    rows = fact_rows(ONE, right, ("nouns", "time"))
    assert [(r.what, r.value, r.at_least) for r in rows] == [(WORDS["nouns"], 1.0, 0.90), (WORDS["time"], 0.5, None)]


def test_targets_are_those_of_rows_that_exist():
    assert {name for _, name in TARGETS} <= set(WORDS) and {part for part, _ in TARGETS} == {ONE, TWO, JUDGE}


def placed(x: float, y: float, nouns: set[str]) -> dict:
    return seen(nouns=nouns, right={"dog": x, "cat": y})


def test_relations_are_counted_in_pairs():
    both = {"dog", "cat"}
    first = [placed(-1, 1, both), placed(-1, 1, both), placed(2, 1, both), placed(-1, 1, {"dog"})]
    second = [placed(1, -1, both), placed(-1, 1, both), placed(0.5, 0.4, both), placed(1, -1, both)]
    found, pictures, pairs = ordered(first, second, [("dog", "cat")] * 4, words="left of")
    assert (found.value, found.n) == (0.75, 4)
    assert (pictures.value, pictures.n, pictures.chance) == (4 / 6, 6, 0.5)
    assert (pairs.value, pairs.n, pairs.chance) == (1 / 3, 3, 0.25)
    _, pictures, pairs = ordered(first, second, [("dog", "cat")] * 4, words="right of")
    assert (pictures.value, pairs.value) == (2 / 6, 0)
    _, pictures, _ = ordered(first[3:], second[3:], [("dog", "cat")], words="left of")
    assert pictures.verdict == "not measured"


def test_a_model_blind_to_the_order_is_at_chance():
    both, rng = {"dog", "cat"}, np.random.default_rng(0)
    layouts = [placed(x, -x, both) for x in rng.normal(size=200)]  # the same picture for either prompt
    _, pictures, pairs = ordered(layouts, layouts, [("dog", "cat")] * 200, words="left of")
    assert pictures.value == 0.5 and pairs.value == 0 and {pictures.verdict, pairs.verdict} == {"not reached"}


def test_prompts_are_of_unseen_compositions_and_repeatable():
    groups = measure.draw_groups(24, seed=0, draw=0)
    assert groups == measure.draw_groups(24, seed=0, draw=0) != measure.draw_groups(24, seed=0, draw=1)
    assert all(is_held_out(scene) for scenes in groups.values() for scene in scenes)
    assert [len(s.objects) for s in groups[ONE]] == [1] * 24 and all(len({o.noun for o in s.objects}) == 2 for s in groups[TWO])
    pair = measure.draw_scenes(1, seed=(0, 1), counts=(0.0, 1.0), wanted=measure.leftward)[0]
    forth, back = (caption(scene, related=True) for scene in (pair, measure.swapped(pair)))
    assert " left of " in forth and sorted(forth.split()) == sorted(back.split()) and forth != back and is_held_out(measure.swapped(pair))


def test_the_power_law_is_found():
    points = [(1000.0 * 2**k, 5.0 if k < 5 else 3.0 * (1000 * 2**k) ** -0.25) for k in range(10)]  # the first half follows another law
    law = power_law(points)
    assert law and (law.exponent, law.points, law.per_doubling) == pytest.approx((-0.25, 5, 2**-0.25))
    assert law.reaches(3.0 * 1e6**-0.25) == pytest.approx(1e6) and power_law(points[:3]) is None
    rising = power_law([(float(k), float(k)) for k in range(1, 9)])
    assert rising and math.isinf(rising.reaches(0.5))


def test_the_curve_is_fitted_at_its_last_resolution(tmp_path: Path):
    early = [{"part": "base", "samples": 1000 * k, "error": 9.0, "resolution": 32, "noun": 0.0} for k in range(1, 5)]
    late = [{"part": "base", "samples": n, "error": n**-0.5, "resolution": 64, "noun": 1 - 20 * n**-0.5} for n in (4000, 8000, 16000, 20000, 24000, 32000)]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in early + late))
    error, nouns = fits(read_curve(tmp_path))
    assert (error.part, error.per_doubling, error.samples_at_target) == ("base, 64 px", pytest.approx(2**-0.5), None)
    assert nouns.samples_at_target == pytest.approx(40_000, rel=1e-6) and nouns.target == pytest.approx(0.1)
    assert "falls by a factor of 1.41 per doubling" in sentence(error) and "at about 40,000 samples" in sentence(nouns)
    assert "is reached" in sentence(replace(nouns, last=0.05)) and "nowhere near" in sentence(replace(nouns, samples_at_target=math.inf))
    (tmp_path / FILE).write_text('{"part": "base"}\n')
    with pytest.raises(Refused, match="lacks error, samples"):
        read_curve(tmp_path)


def test_a_chain_of_trainings_is_summed():
    first = {"step": 5, "samples": 1000, "minutes": 10.0, "machine": "2 CPU cores"}
    entry = {
        "step": 7,
        "samples": 500,
        "minutes": 4.0,
        "machine": "a GPU",
        "before": {"step": 1, "samples": 20, "minutes": 1.0, "before": first, "machine": "a GPU"},
    }
    assert [t["samples"] for t in chain(entry)] == [1000, 20, 500] and chain({}) == [] and len(chain(first | {"before": {}})) == 1
    made = written(training={"base": entry, "judge": first})
    assert "| base | 1.50 M | 3.00 | 1,520 (1,000 + 20 + 500) | 15 (10 + 1 + 4) | 2 CPU cores, then a GPU |" in made
    assert "| judge | 0.70 M | 1.40 | 1,000 | 10 | 2 CPU cores |" in made


def made_up(**more: object) -> Card:
    rows = [
        Row(ONE, WORDS["nouns"], 0.912, 0.88, 0.93, 500, at_least=0.90),
        Row(TWO, WORDS["nouns"], 0.5, 0.46, 0.54, 500, at_least=0.75),
        Row("clip", "x", 0.25),
    ]
    parts = {"base": Part(1_500_000, 3.0), "judge": Part(700_000, 1.4)}
    settings = {"count": 500, "guidance": 4.0, "seed": 0, "base_steps": 32, "sr": {"steps": 4, "start": 0.4, "noise_level": 0.1}}
    guidance = {8.0: [Row("g", "nouns there", 0.75, 0.5, 0.875, 8), Row("g", "clipped", 0.125, NAN, NAN, 8)]}
    start = Card(settings, {"minutes": 3.5, "machine": "2 CPU cores"}, parts, {}, rows, guidance, {"crab": [1, 4], "dog": [3, 4]}, 0, [])
    return replace(start, **more)


def written(**more: object) -> str:
    return text(made_up(**more))


def test_the_text_says_everything_once():
    made = written()
    assert "| base, one object | named objects present | 0.912 | 0.880 to 0.930 | 500 | at least 0.9 | reached |" in made
    assert "| base, two objects | named objects present | 0.500 | 0.460 to 0.540 | 500 | at least 0.75 | **not reached** |" in made
    assert "| clip | x | 0.250 |  |  |  |  |" in made
    assert "| weight | nouns there | clipped |" in made and "| 8 | 0.750 (0.500 to 0.875) | 0.125 |" in made
    assert "Nouns found in fewer than 75% of their one-object samples: crab (1 of 4)." in made
    assert f"{world()['held out']} ({world()['held out'] / world()['compositions']:.1%}) are held out" in made and "3.5 minutes on 2 CPU cores" in made
    assert "curve.png" not in made and "curve.png" in written(looks=2)


def test_numbers_are_plain_data():
    plain = numbers(made_up(rows=[Row("a", "b", NAN, at_least=0.5), Row("a", "c", 0.25, chance=0.5)]))
    json.dumps(plain, allow_nan=False)
    assert plain["rows"][0]["value"] is None and plain["rows"][0]["verdict"] == "not measured" and plain["guidance"]["8"][0]["value"] == 0.75
    assert plain["data"]["nouns"] == len(NOUNS) and plain["parts"]["base"] == {"parameters": 1_500_000, "megabytes": 3.0}


def test_super_resolution_is_sampled_as_the_model_is():
    """Also by the scripts and the notebook, which have their numbers from there."""
    told, sr = OmegaConf.load(ROOT / "conf" / "model" / "pocket.yaml"), pocket_model.SR
    assert measure.SR is sr and (sr.steps, sr.start, sr.noise_level, sr.guidance.weight) == (told.sr.steps, told.sr.start, told.sr.noise_level, told.sr.weight)
    assert (pocket_model.STEPS, pocket_model.GUIDANCE, list(pocket_model.STAGES)) == (told.steps, told.guidance, told.stages)
    assert (told.dials.unitune.start, told.dials.unitune.weight) == (pocket_model.START, pocket_model.WEIGHT)
    plain = yaml.safe_load((ROOT / "conf" / "model" / "pocket.yaml").read_text())
    assert (plain["step"], plain["sr"]["step"]) == ("${model.rules.ancestral}", "${model.rules.deterministic}") and sr.step == DDIM(0.0)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random models in the layout of the pocket folder."""
    folder = tiny.floyd(tmp_path_factory.mktemp("pocket"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_judge(Judge(), folder / "judge")
        save_clip(build_clip(networks.tokenizer()), folder / "clip")
    (folder / "training.json").write_text(json.dumps({"base": {"step": 1, "samples": 64, "minutes": 2.0, "machine": "2 CPU cores"}}))
    (folder / "NOTES.md").write_text("## Known failures\n\nMany.\n")
    looks = [{"part": "base", "samples": 1000 * k, "error": 1 / k, "noun": 0.1 * k} for k in range(1, 7)]
    (folder / FILE).write_text("".join(json.dumps(look) + "\n" for look in looks))
    return folder


def test_the_command_measures_and_repeats(pocket: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "STEPS", 2)
    monkeypatch.setattr(measure, "SUBSETS", 5)
    monkeypatch.setattr(card, "SHOWN_SEEDS", 1)
    pages, cards = [], []
    for _ in range(2):
        card.write(pocket, count=16, weight=4.0, seed=0)
        pages.append((pocket / "README.md").read_text())
        cards.append(json.loads((pocket / "card.json").read_text()))
    for made in cards:
        made.pop("measured")
    assert cards[0] == cards[1]
    rows = {(row["part"], row["what"]): row for row in cards[0]["rows"]}
    parts = {part for part, _ in rows}
    assert {ONE, TWO, JUDGE, "clip", "sr256", "bicubic", "renders", "weights", 'base, "left of" and reverse', 'base, "right of" and reverse', "base"} <= parts
    assert "clip2" not in parts and all(rows[key[0], WORDS[key[1]]]["at_least"] == bound for key, bound in TARGETS.items())
    assert rows["weights", "all together, MB"]["verdict"] == "reached" and rows["bicubic", "PSNR to the true picture, dB"]["value"] > 15
    assert rows["base", "KID x 1000, renders to renders of other scenes"]["value"] < rows["base", "KID x 1000, samples to renders of other scenes"]["value"]
    assert list(cards[0]["guidance"]) == ["1", "2", "4", "8", "16", "32"] and len(cards[0]["curve"]) == 2
    clipping = [cards[0]["guidance"][weight][3]["value"] for weight in ("1", "32")]
    assert clipping[0] < clipping[1]  # a stronger push leaves the range more often
    assert pages[0].endswith("Many.\n") and all(row["what"] in pages[0] for row in cards[0]["rows"])
    assert {"samples.png", "curve.png", "card.json", "README.md"} <= {file.name for file in pocket.iterdir()}
    assert not [file for file in pocket.rglob("*") if file.name.startswith((".card", ".README", "tmp"))]
    assert set(json.loads((pocket / "judge" / "card.json").read_text())) >= {"nouns_exact", "noun_single", "place", "style", "count", "side"}


def test_too_few_prompts_are_refused(tmp_path: Path):
    with pytest.raises(Refused, match="at least 16"):
        card.write(tmp_path, count=8, weight=4.0, seed=0)
