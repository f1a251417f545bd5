"""The latent model is a cascade of one stage.

Parity with the stock pipelines, and every part of the loop in latents.
"""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from unitune import rng
from unitune.diffusion.guidance import Guidance, guide, rescale
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.stage import Condition
from unitune.diffusion.steps import DDIM, DDPM
from unitune.masks.sources import Given
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade
from unitune.models.families.stable_diffusion import Vae
from unitune.models.files import Model
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import fit, snapshot_file
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Edit, Example, Refused, Request, Tuned

CPU = torch.device("cpu")
PROMPTS = ("a dog in the snow", "Two cats, at night")
IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, tuple(Request(prompt) for prompt in PROMPTS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sd")
    return {"sd15": tiny.sd15(folder / "sd15"), "sd21": tiny.sd21(folder / "sd21")}


@pytest.fixture(scope="module")
def cascades(folders: dict[str, Path]) -> dict[str, Cascade]:
    return {
        name: backend.build(
            Model(name, ("base",), "stable_diffusion", str(folder)), device=CPU, dtype=torch.float32
        )
        for name, folder in folders.items()
    }


@pytest.fixture(params=["sd15", "sd21"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def sample(cascade: Cascade, sampler: Sampler, example: Example = EXAMPLE) -> list[Edit]:
    return sampler(
        cascade,
        example,
        tuned=Tuned("beikkpic"),
        draws=[Draw(request, seed) for seed, request in enumerate(example.requests)],
    )


def stock(kind: type, folder: Path):
    """The scheduler steps as ours does: evenly from the last level down to the clean latent."""
    pipe = kind.from_pretrained(folder, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def start_noise() -> torch.Tensor:
    return torch.cat(
        [
            rng.noise((1, 4, 16, 16), seed=seed, example="one", stage="base", role="start", step=0)
            for seed in range(2)
        ]
    )


@pytest.mark.parametrize("weight", [1.5, 7.5])
def test_parity_with_the_stock_pipeline(
    name: str, folders: dict[str, Path], cascades: dict[str, Cascade], weight: float
):
    edits = sample(
        cascades[name],
        Sampler("p", template="{edit}", steps=10, guidance=Guidance(weight), step=DDIM(0.0)),
    )
    call = {
        "num_inference_steps": 10,
        "guidance_scale": weight,
        "latents": start_noise(),
        "eta": 0.0,
        "output_type": "pt",
    }
    theirs = (
        stock(StableDiffusionPipeline, folders[name])(
            list(PROMPTS), height=32, width=32, **call
        ).images
        * 2
        - 1
    )
    mine = torch.cat([edit.image for edit in edits])
    assert mine.std() > 0.05 and (mine[0] - mine[1]).abs().max() > 1e-3
    torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-5)


def test_parity_with_the_stock_img2img_pipeline(
    name: str,
    folders: dict[str, Path],
    cascades: dict[str, Cascade],
    monkeypatch: pytest.MonkeyPatch,
):
    """Its strength counts steps: 0.6 of 10 begins at t = 599 with 6 steps left.

    Our start is the cosine time of that level's log-SNR.
    """
    cascade = cascades[name]
    stage = cascade.stages[0]
    start = next(u / 10000 for u in range(1, 10001) if stage.schedule.level(u / 10000) == 599)
    edits = sample(
        cascade,
        Sampler(
            "p", template="{edit}", start=start, steps=6, guidance=Guidance(5.0), step=DDIM(0.0)
        ),
    )
    pipe = stock(StableDiffusionImg2ImgPipeline, folders[name])
    monkeypatch.setattr(
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor",
        lambda *_, **__: start_noise(),
    )
    seen: list[int] = []

    def note(_pipe, _step: int, t: torch.Tensor, kept: dict) -> dict:
        seen.append(int(t))
        return kept

    call = {
        "strength": 0.6,
        "num_inference_steps": 10,
        "guidance_scale": 5.0,
        "eta": 0.0,
        "output_type": "pt",
        "callback_on_step_end": note,
    }
    theirs = (
        pipe(list(PROMPTS), image=stage.encode(IMAGE).expand(2, -1, -1, -1), **call).images * 2 - 1
    )
    assert seen == [599, 499, 399, 299, 199, 99]
    torch.testing.assert_close(torch.cat([edit.image for edit in edits]), theirs, rtol=0, atol=5e-5)


def test_embeddings_are_the_stock_pipelines(
    name: str, folders: dict[str, Path], cascades: dict[str, Cascade]
):
    wanted, empty = stock(StableDiffusionPipeline, folders[name]).encode_prompt(
        list(PROMPTS), "cpu", 1, True
    )
    torch.testing.assert_close(cascades[name].encode(list(PROMPTS)), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(cascades[name].encode(["", ""]), empty, rtol=0, atol=1e-5)
    assert cascades[name].max_tokens == 76 and cascades[name].tokenize("a Dog")[0] == "a</w>"


def test_the_border_is_the_vae_in_float32(folders: dict[str, Path], cascades: dict[str, Cascade]):
    stage = cascades["sd15"].stages[0]
    assert (
        stage.resolution,
        stage.loss.prediction,
        cascades["sd21"].stages[0].loss.prediction,
    ) == (32, "epsilon", "v_prediction")
    pipe = stock(StableDiffusionPipeline, folders["sd15"])
    images = torch.cat([IMAGE, -IMAGE])
    x_0 = stage.encode(images)
    with torch.no_grad():
        expected = (
            pipe.vae.encode(images).latent_dist.mean * 0.18215
        )  # the class's default: 1.5's file names no factor
        picture = pipe.vae.decode(x_0 / 0.18215).sample.clamp(-1, 1)
    torch.testing.assert_close(x_0, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(stage.decode(x_0), picture, rtol=0, atol=1e-5)
    assert (
        torch.equal(stage.encode(images)[1:], stage.encode(-IMAGE))
        and not stage.decode(x_0).requires_grad
    )
    half = backend.build(
        Model("x", ("base",), "stable_diffusion", str(folders["sd15"]), weights="machine"),
        device=CPU,
        dtype=torch.bfloat16,
    )
    codec = half.stages[0].codec
    assert (
        isinstance(codec, Vae)
        and codec.network.dtype == torch.float32
        and torch.equal(half.stages[0].encode(images), x_0)
    )


def test_start_is_converted_by_log_snr(cascades: dict[str, Cascade]):
    """The same signal-to-noise ratio lies elsewhere on Stable Diffusion's schedule.

    It ends before 0.98 of the cosine's.
    """
    schedule = cascades["sd15"].stages[0].schedule
    assert [schedule.level(start) for start in (0.8, 0.85, 0.95, 0.98, 1.0)] == [
        682,
        756,
        977,
        999,
        999,
    ]
    cosine, t = Schedule.cosine(), torch.tensor([schedule.level(0.85)])
    assert (
        abs(float(schedule.snr(t).log() - cosine.snr(torch.tensor([cosine.level(0.85)])).log()))
        < 0.02
    )


def test_interpolation_masks_and_prompt_guidance_work_in_latents(
    cascades: dict[str, Cascade], monkeypatch: pytest.MonkeyPatch
):
    cascade = cascades["sd15"]
    stage = cascade.stages[0]
    plain = sample(cascade, Sampler("p", steps=2, guidance=Guidance(3.0)))
    assert torch.equal(plain[0].stages["base"], plain[0].image) and plain[0].image.shape == (
        1,
        3,
        32,
        32,
    )
    away = sample(cascade, Sampler("p", steps=2, guidance=Guidance(3.0, reference="{rare}")))
    assert not torch.equal(away[0].image, plain[0].image)

    blended = sample(
        cascade,
        Sampler(
            "p",
            steps=2,
            guidance=Guidance(3.0),
            interpolation=Interpolation("on", low=10.0, high=20.0),
        ),
    )
    assert torch.equal(
        blended[0].image, IMAGE
    )  # no change is that large, so the base image itself comes back, not its reconstruction

    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :9] = 1  # 4 and a half places of the latent: 5 may change
    held = Example("one", IMAGE, (Request(PROMPTS[0], mask=mask),))
    seen: list[torch.Tensor] = []
    decode = stage.decode
    monkeypatch.setattr(stage, "decode", lambda x_0: seen.append(x_0) or decode(x_0))
    sample(cascade, Sampler("p", steps=2, guidance=Guidance(3.0), mask=Given()), held)
    (x_0,) = seen
    changed = (x_0 - stage.encode(IMAGE)).abs().amax(dim=(0, 1, 2))
    assert bool((changed[:5] > 0).all()) and bool((changed[5:] == 0).all())


def test_an_item_is_the_same_alone_and_in_a_batch(cascades: dict[str, Cascade]):
    sampler = Sampler("p", start=0.9, steps=3, guidance=Guidance(3.0, rescale=0.7), step=DDPM())
    together = sample(cascades["sd21"], sampler)
    alone = sampler(
        cascades["sd21"], EXAMPLE, tuned=Tuned("beikkpic"), draws=[Draw(EXAMPLE.requests[1], 1)]
    )
    torch.testing.assert_close(together[1].image, alone[0].image, rtol=0, atol=1e-5)


def test_rescale_restores_the_spread():
    x_cond, x_ref = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    guided = guide(x_cond, x_ref, torch.tensor([1.0, 8.0, 20.0]))
    assert rescale(guided, x_cond, 0.0) is guided
    whole, part = rescale(guided, x_cond, 1.0), rescale(guided, x_cond, 0.7)
    std = {
        name: x.flatten(1).std(dim=1)
        for name, x in (("cond", x_cond), ("guided", guided), ("whole", whole), ("part", part))
    }
    torch.testing.assert_close(std["whole"], std["cond"])
    torch.testing.assert_close(
        std["part"], 0.7 * std["cond"] + 0.3 * std["guided"]
    )  # eq. 16, of one direction
    assert std["guided"][2] > 5 * std["cond"][2]
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(Refused, match=r"guidance\.rescale"):
            Guidance(rescale=bad)


def test_rescale_reaches_the_loop(cascades: dict[str, Cascade]):
    off, on = (
        sample(cascades["sd15"], Sampler("p", steps=2, guidance=Guidance(12.0, rescale=share)))[
            0
        ].image
        for share in (0.0, 0.7)
    )
    assert not torch.equal(off, on)


def test_tuning_learns_the_latent(name: str, cascades: dict[str, Cascade], tmp_path: Path):
    """The target of every row is that of the picture's latent; tuned weights sample otherwise."""
    cascade = cascades[name]
    stage = cascade.stages[0]
    tuning = Tuning(lr=1e-3, steps=2, crop=8, snapshots=())
    data = OneImage(stage, EXAMPLE, cascade.encode(["beikkpic"]), 0, tuning)
    batch, x_0 = data.batch(0), stage.encode(IMAGE)
    assert batch.x_t.shape == (4, 4, 16, 16) and data.x_0 is data.x_0
    back = PREDICTIONS[stage.loss.prediction].x_0(stage.schedule, batch.x_t, batch.target, batch.t)
    torch.testing.assert_close(back, x_0.expand_as(back), rtol=0, atol=1e-4)
    fit(data, folder=tmp_path)
    tuned = load_file(snapshot_file(tmp_path, "base", 2))
    condition = Condition(cascade.encode(list(PROMPTS)))
    before = stage.predict(start_noise(), torch.tensor([500, 900]), condition)
    with cascade.using(Tuned(weights={"base": tuned})):
        assert not torch.equal(
            stage.predict(start_noise(), torch.tensor([500, 900]), condition), before
        )
    assert torch.equal(stage.predict(start_noise(), torch.tensor([500, 900]), condition), before)
