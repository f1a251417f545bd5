"""Selection: the best of N, the gate that redraws, their records; no CLIP that scores chooses."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unitune.cli.settings import check_rescoring
from unitune.runs import config, pictures, preflight, selection
from unitune.runs.plans import Seeds
from unitune.runs.results import Sample, TuningResult
from unitune.runs.selection import Best, Gate
from unitune.types import Draw, Edit, Example, Refused, Request, Tuned

REQUESTS = (Request("a dog"), Request("a fish"))
BASE = torch.zeros(1, 3, 4, 4)
EXAMPLE = Example("one", BASE, REQUESTS, caption="a cat")
AXES = {"a dog": (1.0, 0.0, 0.0), "a fish": (0.0, 1.0, 0.0), "a cat": (0.0, 0.0, 1.0)}


@dataclass
class WithText:
    """A CLIP whose features are told: a picture's first pixel, and one of three axes of a text."""

    loads: list[int] = field(default_factory=list)

    def load(self) -> "WithText":
        self.loads.append(1)
        return self


def told_clip() -> Any:
    return WithText()


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(
        selection,
        "features_of",
        lambda clip, pictures: torch.cat([p[:, :, 0, 0] for p in pictures]),
    )
    monkeypatch.setattr(
        selection, "text_features", lambda clip, texts: torch.tensor([AXES[text] for text in texts])
    )


def edit(request: Request, seed: int, *features: float, example: Example = EXAMPLE) -> Edit:
    return Edit(
        example,
        request,
        seed,
        2.0,
        0.9,
        request.prompt,
        torch.tensor(features)[None, :, None, None].expand(1, 3, 4, 4).clone(),
    )


def never(draws) -> list[Edit]:
    raise AssertionError("nothing is to be drawn again")


DRAWN = [
    edit(REQUESTS[0], 0, 0.2, 0.0, 0.9),
    edit(REQUESTS[0], 1, 1.0, 0.1, 0.0),
    edit(REQUESTS[0], 2, 1.0, 0.0, 0.0),
    edit(REQUESTS[1], 0, 0.0, 1.0, 1.0),
]


def test_the_best_of_each_prompt_is_chosen_among_the_first_count():
    for count, seed in ((1, 0), (2, 1), (3, 2)):
        chosen = Best(told_clip(), count, keep=0.0)(
            [e for e in DRAWN if e.request is REQUESTS[0]], example=EXAMPLE, redraw=never
        )
        assert [(one.edit.seed, len(one.candidates)) for one in chosen] == [
            (seed, count)
        ] and chosen[0].place is chosen[0].edit


def test_similarity_to_the_base_counts_as_much_as_asked():
    base = replace(
        EXAMPLE, image=torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 4, 4)
    )
    group = [edit(REQUESTS[0], 0, 1.0, 0.0, 0.0), edit(REQUESTS[0], 1, 0.8, 0.0, 0.6)]
    assert [
        Best(told_clip(), 2, keep=keep)(group, example=base, redraw=never)[0].edit.seed
        for keep in (0.0, 1.0)
    ] == [0, 1]


def test_more_candidates_than_samples_are_refused_before_a_model_loads():
    draws = Seeds(2).draws(EXAMPLE, 0)
    Best(told_clip(), 2).check(draws)
    with pytest.raises(
        Refused, match=r"selection.count=3 samples are to be compared and 2 drawn; set seeds=3"
    ):
        Best(told_clip(), 3).check(draws)
    for count in (0, -1, 1.5, True):
        with pytest.raises(Refused, match=r"selection.count must be a whole number of at least 1"):
            Best(told_clip(), count)


@pytest.mark.parametrize(
    ("features", "passes"),
    [
        ((1.0, 0.0, 0.0), True),
        ((0.5, 0.0, 0.4), True),
        ((0.3, 0.0, 0.9), False),
        ((0.6, 0.7, 0.0), False),
    ],
)
def test_the_gate_rejects_low_alignment_and_what_is_nearer_to_another_text(features, passes):
    assert Gate(told_clip(), 0.5).passes(edit(REQUESTS[0], 0, *features), EXAMPLE) is passes


def test_the_gate_redraws_with_the_next_seeds_up_to_its_limit():
    good, bad = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    planned = [edit(REQUESTS[0], 0, *bad), edit(REQUESTS[0], 1, *good), edit(REQUESTS[0], 2, *bad)]
    asked: list[tuple[int, float | None, float | None]] = []

    def redraw(draws: Sequence[Draw]) -> list[Edit]:
        asked.extend((d.seed, d.weight, d.start) for d in draws)
        return [edit(d.request, d.seed, *(good if d.seed == 4 else bad)) for d in draws]

    chosen = Gate(told_clip(), 0.5, redraws=2)(planned, example=EXAMPLE, redraw=redraw)
    assert asked == [(seed, 2.0, 0.9) for seed in (3, 4, 5)]
    assert [(one.place.seed, one.edit.seed, len(one.candidates)) for one in chosen] == [
        (1, 1, 1),
        (2, 4, 2),
    ]
    assert not Gate(told_clip(), 0.5, redraws=0)(planned[:1], example=EXAMPLE, redraw=never)


def test_a_chosen_sample_costs_what_its_candidates_did():
    chosen = Best(told_clip(), 3)([*DRAWN[:3]], example=EXAMPLE, redraw=never)
    samples = [
        Sample(e, "edit", {"seconds": 2.0, "evaluations": 10.0, "peak_mib": 7.0}) for e in DRAWN[:3]
    ]
    rows = TuningResult(Tuned(), samples, chosen).rows()
    assert [row.row for row in rows] == ["edit"] * 3 + ["selected"]
    assert rows[-1].cost == {
        "seconds": 6.0,
        "evaluations": 30.0,
        "peak_mib": 7.0,
        "candidates": 3,
        "empty_places": 0,
    }


def test_what_was_tried_in_vain_is_paid_by_those_that_passed(caplog):
    good, bad = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    edits = [
        edit(REQUESTS[0], seed, *features) for seed, features in enumerate((good, bad, bad, good))
    ]
    made: list[Edit] = []

    def redraw(draws: Sequence[Draw]) -> list[Edit]:
        made.extend(edit(d.request, d.seed, *(good if d.seed == 4 else bad)) for d in draws)
        return made[-len(draws) :]

    with caplog.at_level("INFO"):
        chosen = Gate(told_clip(), 0.5, redraws=2)(edits, example=EXAMPLE, redraw=redraw)
    samples = [Sample(e, "edit", {"seconds": 2.0, "evaluations": 10.0}) for e in [*edits, *made]]
    rows = [row for row in TuningResult(Tuned(), samples, chosen).rows() if row.row == "selected"]
    # 3 more were drawn: one for the place that then passed, two for the one that never did, which
    # has 3 candidates in vain.
    assert (
        len(made) == 3
        and [row.cost["candidates"] for row in rows] == [1, 2, 1]
        and {row.cost["empty_places"] for row in rows} == {1}
    )
    assert [row.cost["seconds"] for row in rows] == [2 + 2, 4 + 2, 2 + 2] and sum(
        row.cost["evaluations"] for row in rows
    ) == 10 * len(samples)
    assert "places that stay empty: 1" in caplog.text


def test_a_grid_shows_the_chosen_below_in_their_places(tmp_path: Path):
    edits = [e for e in DRAWN if e.request is REQUESTS[0]]
    taken = TuningResult(
        Tuned(), [Sample(e, "edit", {"seconds": 0.0, "evaluations": 0.0}) for e in edits]
    )
    pictures.grid(Seeds(3), EXAMPLE, [taken], tmp_path / "plain.png")
    pictures.grid(
        Seeds(3),
        EXAMPLE,
        [replace(taken, chosen=Best(told_clip(), 3)(edits, example=EXAMPLE, redraw=never))],
        tmp_path / "two.png",
    )
    from PIL import Image

    assert Image.open(tmp_path / "two.png").height > 1.8 * Image.open(tmp_path / "plain.png").height


@pytest.mark.parametrize("wrong", [{"threshold": 2.0}, {"threshold": 0.5, "redraws": -1}])
def test_a_gate_out_of_range_is_refused(wrong):
    with pytest.raises(Refused, match=r"selection\.(threshold|redraws) must be"):
        Gate(told_clip(), **wrong)


def test_the_scoring_clip_never_selects(typed):
    said = typed("selection=best", "selection.clip.folder=${assets:pocket/../pocket/clip}")
    assert said.code == 2 and "selection=best would choose by the CLIP that scores" in said.err
    said = typed("selection=best", "selection.count=0")
    assert said.code == 2 and "selection.count must be a whole number of at least 1" in said.err


def test_the_clip_that_chose_never_scores_the_run_again(typed):
    """config.yaml is read again: what was chosen stays chosen, by whatever it is scored later."""
    clip = {"_target_": "unitune.metrics.clip.PocketClip", "folder": "a/../b"}
    run = {"selection": {"name": "best", "clip": clip}}
    for folder, refused in (("b", True), ("c", False)):
        metrics = {"use": [{"_target_": "x"}, {"clip": clip | {"folder": folder}}]}
        if refused:
            with pytest.raises(
                Refused,
                match=r"selection=best of that run chose by the CLIP that would score "
                r"\(.*b\); score with another",
            ):
                check_rescoring(run, metrics)
        else:
            check_rescoring(run, metrics)
    check_rescoring({"selection": None}, metrics)
    check_rescoring({}, metrics)
    Path("run").mkdir()
    clip = "{_target_: unitune.metrics.clip.PocketClip, folder: '${assets:pocket/clip}'}"
    config.write(f"selection: {{name: best, clip: {clip}}}", Path("run"))
    Path("run/scores.jsonl").write_text("")
    said = typed("--config-name", "score", "runs=run")
    assert (
        said.code == 2
        and "selection=best of that run chose by the CLIP that would score" in said.err
    )


def test_the_preflight_asks_the_selection_for_every_example(tmp_path: Path):
    from unitune.diffusion.sampler import Sampler
    from unitune.methods.untuned import Untuned

    inputs = preflight.Inputs(
        Untuned(), Sampler("s"), Seeds(2), [EXAMPLE], folder=tmp_path, store=tmp_path / "s"
    )
    preflight.check(inputs)
    with pytest.raises(Refused, match="set seeds=5"):
        preflight.check(replace(inputs, selection=Best(told_clip(), 5)))
