"""The loss that belongs to a stage: its weights in closed form, its levels, its file."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from unitune import rng
from unitune.diffusion.loss import Losses, StageLoss, check_dials, drawn, losses
from unitune.diffusion.schedule import Schedule
from unitune.models import cascade as backend
from unitune.models import pocket, tiny
from unitune.models.stage import LOSS, read_losses
from unitune.tuning import make
from unitune.tuning.data import OneImage
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Refused, Request
from unitune_lab import assemble
from unitune_lab.batches import SceneBatches
from unitune_lab.parts.stage import StagePart

SCHEDULE = Schedule.cosine()
LEVELS = torch.tensor([0, 1, 50, 300, 500, 700, 900, 950, 999])
SNR = SCHEDULE.snr(LEVELS)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (StageLoss("v_prediction"), torch.ones_like(SNR)),
        (StageLoss("epsilon"), torch.ones_like(SNR)),
        (StageLoss("v_prediction", "min_snr", 5.0), SNR.clamp(max=5) / (SNR + 1)),
        (StageLoss("epsilon", "min_snr", 5.0), SNR.clamp(max=5) / SNR),
        (StageLoss("v_prediction", "min_snr", 1.0), SNR.clamp(max=1) / (SNR + 1)),
        (StageLoss("v_prediction", "snr"), SNR / (SNR + 1)),
        (StageLoss("epsilon", "snr"), torch.ones_like(SNR)),
    ],
)
def test_the_weights_in_closed_form(loss: StageLoss, expected: torch.Tensor):
    torch.testing.assert_close(loss.weights(SCHEDULE, LEVELS), expected)


@pytest.mark.parametrize("weighting", ["min_snr", "snr"])
def test_a_weighting_of_x_0_is_the_same_for_v_and_eps(weighting: str):
    """The error of v is that of x_0 times SNR + 1, that of eps is times SNR."""
    of_v, of_eps = (
        StageLoss(prediction, weighting).weights(SCHEDULE, LEVELS)
        for prediction in ("v_prediction", "epsilon")
    )
    torch.testing.assert_close(of_v * (SNR + 1), of_eps * SNR)


def test_plain_v_weighs_the_late_start_165_times_more_than_min_snr():
    t = torch.tensor([SCHEDULE.level(0.95)])
    ratio = StageLoss("v_prediction").weights(SCHEDULE, t) / StageLoss(
        "v_prediction", "min_snr"
    ).weights(SCHEDULE, t)
    assert abs(float(SCHEDULE.snr(t)) - 0.0061) < 2e-4 and 155 < float(ratio) < 175


def uniform(step: int):
    return partial(rng.uniform_levels, seed=0, example="a", stage="base", role="tune-t", step=step)


def test_all_levels_are_drawn_as_before_where_nothing_is_set():
    assert torch.equal(drawn(SCHEDULE, 4, uniform(3)), uniform(3)(4, SCHEDULE.T))


def test_levels_stay_within_a_range_of_cosine_time():
    low, high = SCHEDULE.level(0.3), SCHEDULE.level(0.6)
    t = torch.cat([drawn(SCHEDULE, 4, uniform(k), levels=(0.3, 0.6)) for k in range(300)])
    assert low <= int(t.min()) < low + 10 and high - 10 < int(t.max()) <= high


def test_strata_spread_the_rows_of_a_batch():
    for k in range(50):
        t = drawn(SCHEDULE, 4, uniform(k), strata=4)
        assert (t // 250).tolist() == [0, 1, 2, 3]
    t = torch.cat([drawn(SCHEDULE, 4, uniform(k), strata=4) for k in range(300)]).double()
    assert abs(float(t.mean()) - 499.5) < 20


@pytest.mark.parametrize(
    ("weighting", "levels", "strata", "said"),
    [
        (
            "heavy",
            (0.0, 1.0),
            1,
            "weighting must be one of model, plain, min_snr, snr, got 'heavy'",
        ),
        ("model", (0.5, 0.5), 1, "levels must be two rising numbers"),
        ("model", (-0.1, 0.5), 1, "levels must be two rising numbers"),
        ("model", (0.0, 1.5), 1, "levels must be two rising numbers"),
        ("model", (0.0, 1.0), 0, "strata must be a whole number of at least 1"),
    ],
)
def test_dials_out_of_range_are_refused(
    weighting: str, levels: tuple[float, float], strata: int, said: str
):
    with pytest.raises(Refused, match=said) as refused:
        check_dials(weighting, levels, strata)
    assert "\n" not in str(refused.value)


FILE = {
    "version": 1,
    "prediction": "v_prediction",
    "weighting": "min_snr",
    "gamma": 5.0,
    "density": "uniform",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "loss.json is of version 2, and this program reads version 1"),
        (
            {"weighting": "heavy"},
            "loss.json: the weighting 'heavy' of a loss is unknown; allowed: plain, min_snr, snr",
        ),
        (
            {"prediction": "epsilon"},
            "says that the network predicts epsilon, its scheduler says v_prediction",
        ),
        ({"tuning": {"prediction": "epsilon"}}, "says that the network predicts epsilon"),
        ({"gamma": 0}, "gamma of a loss must be a finite number above 0, got 0"),
        ({"density": "normal"}, "the density 'normal' of a loss's levels is unknown"),
        ({"weight": 1}, "unknown field 'weight'"),
        ({"tuning": "plain"}, "tuning is 'plain'; give an object"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_a_line(tmp_path: Path, change: dict, said: str):
    (tmp_path / LOSS).write_text(json.dumps(FILE | change))
    with pytest.raises(Refused, match=said) as refused:
        read_losses(tmp_path, {"prediction_type": "v_prediction"})
    assert "\n" not in str(refused.value)


def test_a_file_may_name_both_losses():
    both = losses(
        FILE | {"tuning": {"weighting": "plain"}}, prediction="v_prediction", where="loss.json"
    )
    assert both == Losses(
        StageLoss("v_prediction", "min_snr", 5.0), StageLoss("v_prediction", "plain", 5.0)
    )
    assert losses(both.plain(), prediction="v_prediction", where="again") == both


def test_a_folder_without_a_file_has_the_plain_error_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    found = read_losses(tmp_path, {"prediction_type": "epsilon"})
    assert found == Losses(StageLoss("epsilon"), StageLoss("epsilon"))
    assert sum("has no loss.json" in line for line in caplog.messages) == 1


@pytest.fixture(scope="module")
def shipped() -> backend.Cascade:
    return pocket.cascade(device="cpu", precision="fp32")


@pytest.mark.parametrize("name", ["base", "sr256"])
def test_a_stage_is_tuned_and_was_pretrained_with_the_losses_that_its_folder_names(
    shipped: backend.Cascade, name: str
):
    """The trainer and a tuning weigh their errors by the folder's losses."""
    stage, text = shipped.stage(name), shipped.encode(["a cat in a city"])
    settings = json.loads(
        (pocket.FOLDER / name / "scheduler" / "scheduler_config.json").read_text()
    )
    both, trained = (
        read_losses(pocket.FOLDER / name, settings),
        json.loads((pocket.FOLDER / "training.json").read_text())[name],
    )
    assert (
        stage.loss == both.tuning == assemble.TUNING
        and trained["options"]["weighting"] == both.pretraining.weighting
    )
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tuning = Tuning(lr=1e-3, crop=64)
    example = Example("one", image, (Request("a dog"),))
    batch = OneImage(stage, example, text, 0, tuning).batch(0)
    output = batch.target + 0.1 * torch.randn(
        batch.target.shape, generator=torch.Generator().manual_seed(1)
    )
    errors = (output - batch.target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        batch.loss(output), (errors * both.tuning.weights(stage.schedule, batch.t).float()).mean()
    )


@pytest.mark.parametrize("weighting", ["plain", "min_snr"])
def test_the_trainer_weighs_errors_as_the_loss_says(
    weighting: str, monkeypatch: pytest.MonkeyPatch
):
    options = {"super_resolution": False, "channels": [32, 32, 32, 32], "weighting": weighting}
    part = StagePart(pocket.FOLDER / "base", torch.device("cpu"), **options)
    monkeypatch.setattr(part, "output", lambda _, x, *rest: (torch.zeros_like(x), None))
    batch = SceneBatches(seed=0, batch_size=4, size=64).batch(0)
    asked = part.noised(batch, 64, noise=torch.Generator().manual_seed(7))
    expected = (
        asked["v"].square().mean(dim=(1, 2, 3))
        * StageLoss("v_prediction", weighting).weights(SCHEDULE, asked["t"]).float()
    )
    torch.testing.assert_close(part.loss(batch, 64, seed=7), expected.mean())


def test_another_loss_is_another_key(tmp_path: Path, tmp_store):
    from unitune.methods.unitune import UniTune

    folder = tiny.floyd(tmp_path / "tiny")
    method = UniTune(
        {"base": Tuning(lr=1e-3, steps=1, batch_size=1, snapshots=())}, stages=("base",)
    )
    example = Example("one", torch.zeros(1, 3, 32, 32), (Request("a dog"),))
    for weighting in ("plain", "min_snr"):
        settings = json.loads((folder / "base" / "scheduler" / "scheduler_config.json").read_text())
        prediction = settings.get("prediction_type", "epsilon")
        (folder / "base" / LOSS).write_text(
            json.dumps({"version": 1, "prediction": prediction, "weighting": weighting})
        )
        cascade = backend.load(
            "tiny",
            folder,
            stages=("base", "sr256"),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        cascade.digest = "the same weights"
        make.prepare(method.recipe(example), cascade, example, store=tmp_store)
    manifests = [
        json.loads(file.read_text())["key"]["loss"]["weighting"]
        for file in tmp_store.path.glob("tuned-*/manifest.json")
    ]
    assert sorted(manifests) == ["min_snr", "plain"]
    shutil.rmtree(folder)
