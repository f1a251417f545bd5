"""A loaded cascade: weights go in and come out, texts are encoded once.

Wrong folders are refused.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from unitune.diffusion.loss import StageLoss
from unitune.diffusion.stage import Condition
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade, weights_digest
from unitune.models.stage import UNetStage
from unitune.types import Refused, Tuned

STAGES = ("base", "sr256")
PROMPTS = ("a dog in the snow", "Two cats, at night ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.floyd(tmp_path_factory.mktemp("tiny"))


def load(folder: Path) -> Cascade:
    return backend.load(
        "tiny", folder, stages=STAGES, device=torch.device("cpu"), dtype=torch.float32
    )


@pytest.fixture(scope="module")
def cascade(folder: Path) -> Cascade:
    return load(folder)


def digests(cascade: Cascade) -> list[str]:
    return [weights_digest(stage.network) for stage in cascade.stages]


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def changed(stage: UNetStage, *, by: float = 0.05, pattern: str = "") -> dict[str, torch.Tensor]:
    named = [(name, p) for name, p in stage.network.named_parameters() if pattern in name]
    return {name: p.detach() + by * randn(*p.shape, seed=i) for i, (name, p) in enumerate(named)}


def prediction(stage: UNetStage, cascade: Cascade) -> torch.Tensor:
    side, t = stage.resolution, torch.tensor([300, 700])
    low, level = (
        (randn(2, 3, side, side, seed=2), torch.tensor([250, 10]))
        if stage.low_resolution
        else (None, None)
    )
    return stage.predict(
        randn(2, 3, side, side, seed=1), t, Condition(cascade.encode(list(PROMPTS)), low, level)
    )


@pytest.fixture
def untouched(cascade: Cascade) -> Iterator[None]:
    """Whatever the test did, the base weights are back, bit for bit."""
    before = digests(cascade)
    yield
    assert digests(cascade) == before


def test_stages_read_their_folders(cascade: Cascade):
    base, sr = cascade.stages
    assert (base.name, base.resolution, base.low_resolution) == ("base", 16, 0) and (
        sr.name,
        sr.resolution,
        sr.low_resolution,
    ) == ("sr256", 32, 16)
    assert (
        base.loss.prediction == "epsilon"
        and base.network.config.out_channels == 6
        and cascade.resolution == 32
    )
    assert (base.threshold.quantile, base.threshold.cap, sr.threshold.cap) == (0.95, 1.5, 1.0)
    torch.testing.assert_close(
        base.schedule.alpha_bar,
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double(),
        rtol=1e-4,
        atol=0,
    )
    assert not any(p.requires_grad for stage in cascade.stages for p in stage.network.parameters())


@pytest.mark.usefixtures("untouched")
def test_a_folder_says_how_its_low_resolution_pictures_are_enlarged(folder: Path, tmp_path: Path):
    low = randn(1, 3, 16, 16, seed=0)
    shutil.copytree(folder, tmp_path / "tiny")
    for settings, aligned in (None, True), ({"align_corners": False}, False):
        if settings:
            (tmp_path / "tiny" / "sr256" / "upsampling.json").write_text(json.dumps(settings))
        expected = torch.nn.functional.interpolate(
            low, (32, 32), mode="bilinear", align_corners=aligned
        )
        assert torch.equal(load(tmp_path / "tiny").stage("sr256").upsampled(low), expected)


def test_using_swaps_in_and_out(cascade: Cascade):
    tuned = Tuned("beikkpic", {stage.name: changed(stage) for stage in cascade.stages})
    plain, before = [prediction(stage, cascade) for stage in cascade.stages], digests(cascade)
    with cascade.using(tuned) as same:
        assert same is cascade
        for stage, old, digest in zip(cascade.stages, plain, before, strict=True):
            assert (
                weights_digest(stage.network) != digest
                and (prediction(stage, cascade) - old).abs().max() > 1e-2
            )
    for stage, old in zip(cascade.stages, plain, strict=True):
        assert torch.equal(prediction(stage, cascade), old)


@pytest.mark.usefixtures("untouched")
def test_using_restores_when_the_body_raises(cascade: Cascade):
    with (
        pytest.raises(KeyboardInterrupt),
        cascade.using(
            Tuned(weights={"base": changed(cascade.stages[0]), "sr256": changed(cascade.stages[1])})
        ),
    ):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("untouched")
def test_using_leaves_the_tuned_weights_alone(cascade: Cascade):
    weights = changed(cascade.stages[0])
    copies = {name: w.clone() for name, w in weights.items()}
    for _ in range(2):
        with cascade.using(Tuned(weights={"base": weights})):
            prediction(cascade.stages[0], cascade)
    assert all(torch.equal(weights[name], copies[name]) for name in weights)


@pytest.mark.usefixtures("untouched")
def test_some_tensors_only(cascade: Cascade):
    base = cascade.stages[0]
    some = changed(base, pattern="conv_out")
    assert 0 < len(some) < 5
    with cascade.using(Tuned(weights={"base": some})):
        for name, p in base.network.named_parameters():
            assert torch.equal(p, some[name]) if name in some else p.isfinite().all()


@pytest.mark.usefixtures("untouched")
def test_nested_using_restores_layer_by_layer(cascade: Cascade):
    base = cascade.stages[0]
    outer, inner, plain = (
        changed(base, by=0.05),
        changed(base, by=0.1, pattern="conv"),
        prediction(base, cascade),
    )
    with base.using(outer):
        middle = prediction(base, cascade)
        with base.using(inner):
            assert not torch.equal(prediction(base, cascade), middle)
            with base.base_weights():
                assert torch.equal(prediction(base, cascade), plain)
        assert torch.equal(prediction(base, cascade), middle)


@pytest.mark.usefixtures("untouched")
def test_base_weights_inside_using(cascade: Cascade):
    base = cascade.stages[0]
    plain = prediction(base, cascade)
    with base.base_weights():  # without tuned weights there is nothing to swap
        assert torch.equal(prediction(base, cascade), plain)
    with base.using(changed(base)):
        tuned = prediction(base, cascade)
        with base.base_weights():
            assert torch.equal(prediction(base, cascade), plain)
        assert torch.equal(prediction(base, cascade), tuned)
        with pytest.raises(KeyboardInterrupt), base.base_weights():
            raise KeyboardInterrupt
        assert torch.equal(prediction(base, cascade), tuned)


@pytest.mark.usefixtures("untouched")
def test_weights_of_another_model_are_refused(cascade: Cascade):
    base, sr = cascade.stages
    name = next(iter(changed(base)))
    for weights, message in (
        ({"base": {"nothing.weight": torch.ones(1)}}, "nothing.weight"),
        ({"base": {name: torch.ones(1)}}, "fit"),
        ({"sr1024": {}}, "sr1024"),
    ):
        with pytest.raises(Refused, match=message), cascade.using(Tuned(weights=weights)):
            raise AssertionError
    # The second stage's are wrong: the first stage's, already in, must come out again.
    with (
        pytest.raises(Refused),
        cascade.using(Tuned(weights={"base": changed(base), "sr256": {"nothing": torch.ones(1)}})),
    ):
        raise AssertionError
    assert set(changed(sr)) != set(changed(base))


def test_encode_caches_and_a_batch_does_not_change_it(cascade: Cascade, folder: Path):
    fresh = load(folder)
    calls: list[list[str]] = []
    encoder = fresh.encoder
    fresh.encoder = lambda texts: calls.append(list(texts)) or encoder(texts)
    together = fresh.encode(["a dog", "", "a dog", "beikkpic a cat"])
    assert (
        together.shape == (4, 77, tiny.WIDTH)
        and together.dtype == torch.float32
        and torch.equal(together[0], together[2])
    )
    assert calls == [["a dog"], [""], ["beikkpic a cat"]]
    assert torch.equal(fresh.encode(["beikkpic a cat"])[0], together[3]) and len(calls) == 3
    assert torch.equal(cascade.encode(["beikkpic a cat"])[0], together[3])
    assert not torch.equal(together[0], together[3])


def test_encode_lowers_and_strips_as_if_does(cascade: Cascade):
    assert torch.equal(cascade.encode([" A Dog "]), cascade.encode(["a dog"]))


def test_the_digest_follows_the_weights(folder: Path, cascade: Cascade, tmp_path: Path):
    assert load(folder).digest == cascade.digest
    other = tiny.floyd(tmp_path / "other", seed=1)
    assert load(other).digest != cascade.digest


def test_wrong_folders_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(Refused, match="no model folder"):
        load(tmp_path / "absent")
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / "sr256" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(Refused, match="scheduler_config"):
        load(tmp_path / "half")
    shutil.copytree(folder, tmp_path / "twice")
    shutil.rmtree(tmp_path / "twice" / "sr256")
    shutil.copytree(folder / "base", tmp_path / "twice" / "sr256")
    with pytest.raises(Refused, match="channels"):
        load(tmp_path / "twice")
    shutil.copytree(folder, tmp_path / "sample")
    file = tmp_path / "sample" / "base" / "scheduler" / "scheduler_config.json"
    for kind in (
        "sample",
        "flow_prediction",
    ):  # a flow's velocity means nothing on a schedule of betas
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": kind}))
        with pytest.raises(Refused, match="prediction type"):
            load(tmp_path / "sample")


def test_x_0_of_both_predictions(cascade: Cascade):
    """`predict` inverts `target`: a network that gives the target exactly gives x_0 exactly."""
    stage = cascade.stages[0]
    x_0, eps, t = (
        randn(3, 3, 16, 16, seed=0),
        randn(3, 3, 16, 16, seed=1),
        torch.tensor([5, 400, 900]),
    )
    x_t = stage.schedule.add_noise(x_0, eps, t)
    for kind in ("epsilon", "v_prediction"):
        perfect = UNetStage(
            "fake", 16, stage.network, stage.schedule, StageLoss(kind), stage.threshold
        )
        target = perfect.target(x_0, eps, t)
        perfect.output = lambda *_, target=target: target
        torch.testing.assert_close(
            perfect.predict(x_t, t, Condition(cascade.encode([""] * 3))), x_0, rtol=0, atol=1e-4
        )


def test_a_card_beside_weights_is_no_part_of_their_name(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    before = backend.files_digest([tmp_path])
    (tmp_path / "card.json").write_text('{"place": 0.9}')
    assert backend.files_digest([tmp_path]) == before
    (tmp_path / "loss.json").write_text("{}")
    assert backend.files_digest([tmp_path]) != before
