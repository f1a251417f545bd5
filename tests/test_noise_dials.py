"""What a config says of a stage's loss and noise levels reaches every method that tunes.

What it may not say is refused in a line.
"""

from types import ModuleType

import pytest
import torch
from test_conf import composed

from unitune.models import cascade as backend
from unitune.tuning import make, work
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Refused, Request

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),), caption="a cat in a city", noun="cat")
SMALL = [
    "steps=2",
    "snapshots=[]",
    "model.crop=16",
    "budget.class_images=1",
    "model.steps=1",
    "model.sr.steps=1",
]
PLACES = {  # of a tuning in conf: what it is of
    "unitune base": ("method=unitune", "tune.base", "stage=base"),
    "unitune sr256": ("method=unitune", "tune.sr256", "stage=sr256"),
    "dreambooth base": ("method=dreambooth", "tune.base", "stage=base"),
    "dreambooth sr256": ("method=dreambooth", "tune.sr256", "stage=sr256"),
    "imagic base": ("method=imagic", "tune.base", "stage=base", "method.share=0"),
    "imagic sr256": ("method=imagic", "tune.sr256", "stage=sr256", "method.share=0"),
    "imagic embedding": ("method=imagic", "embedding", "stage=base"),
    "textual_inversion embedding": (
        "method=textual_inversion",
        "embedding",
        "method.initializer=a",
    ),
}


class Reached(Exception):
    """The batches that were to be tuned on."""


def stop(data, *_, **__) -> None:
    raise Reached(data)


@pytest.mark.parametrize("place", PLACES)
def test_the_dials_of_conf_reach_the_batches(
    place: str,
    cascade: backend.Cascade,
    tmp_store,
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
):
    method, where, *more = PLACES[place]
    cfg = composed(
        method,
        *more,
        *SMALL,
        *(
            f"method.{where}.{dial}"
            for dial in ("weighting=min_snr", "levels=[0.3,0.6]", "strata=2", "batch_size=4")
        ),
    )
    monkeypatch.setattr(work, "fit", stop)
    with pytest.raises(Reached) as reached:
        make.prepare(run.make(cfg.method).recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store)
    (data,) = reached.value.args
    batch, stage = data.batch(0), data.stage
    low, high = (stage.schedule.level(edge) for edge in (0.3, 0.6))
    middle = low + (high + 1 - low) // 2
    assert stage.name == where.rpartition(".")[2] or (where, stage.name) == ("embedding", "base")
    assert [low <= t < middle for t in batch.t.tolist()] == [True, False] * (
        len(batch) // 2
    ) and int(batch.t.max()) <= high
    snr = stage.schedule.snr(batch.t)
    torch.testing.assert_close(
        batch.weights, snr.clamp(max=5) / snr / 4
    )  # tiny networks predict eps; the class's rows weigh as much: prior 1


@pytest.mark.parametrize("place", PLACES)
def test_without_a_word_the_dials_are_the_models_and_all_levels(place: str, run: ModuleType):
    method, where, *more = PLACES[place]
    node = composed(method, *more).method
    for name in where.split("."):
        node = node[name]
    assert {"weighting", "levels", "strata"} <= set(node)
    tuning = run.make(node)
    assert (tuning.weighting, [*tuning.levels], tuning.strata) == ("model", [0.0, 1.0], 1)


@pytest.mark.parametrize("place", PLACES)
def test_a_batch_that_strata_do_not_divide_is_refused_of_every_method(place: str, run: ModuleType):
    """Row i takes part i modulo their number.

    Of six levels four rows would never see the last two, of three the first would count twice.
    """
    method, where, *more = PLACES[place]
    for strata in (3, 6):
        cfg = composed(method, *more, f"method.{where}.strata={strata}", "batch_size=4")
        with pytest.raises(
            Refused, match=f"batch_size must be a multiple of strata.* got 4 and strata {strata}"
        ) as refused:
            run.make(cfg.method)
        assert "\n" not in str(refused.value)
    assert run.make(composed(method, *more, f"method.{where}.strata=3", "batch_size=6").method)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"weighting": "heavy"},
            "weighting must be one of model, plain, min_snr, snr, got 'heavy'",
        ),
        ({"weighting": None}, "weighting must be one of model, plain, min_snr, snr, got None"),
        ({"levels": 0.5}, r"levels must be two rising numbers in \[0, 1\].* got 0.5"),
        ({"levels": "ab"}, r"levels must be two rising numbers in \[0, 1\].* got 'ab'"),
        ({"levels": None}, r"levels must be two rising numbers in \[0, 1\].* got None"),
        (
            {"levels": [0.6, 0.3]},
            r"levels must be two rising numbers in \[0, 1\].* got \[0.6, 0.3\]",
        ),
        ({"levels": [0.1, True]}, r"levels must be two rising numbers in \[0, 1\]"),
        ({"levels": [0.1, 0.2, 0.3]}, r"levels must be two rising numbers in \[0, 1\]"),
        ({"strata": 0}, "strata must be a whole number of at least 1 .* got 0"),
        ({"strata": 1.5}, "strata must be a whole number of at least 1 .* got 1.5"),
        ({"strata": None}, "strata must be a whole number of at least 1 .* got None"),
    ],
)
def test_other_dials_are_refused_in_a_line(wrong: dict, said: str):
    with pytest.raises(Refused, match=said) as refused:
        Tuning(lr=1e-3, **wrong)
    assert "\n" not in str(refused.value)
