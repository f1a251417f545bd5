"""The sampler: an item is the same alone or in a batch, noise has names, masks hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic import FakeCascade, FakeStage, Gaussian, Points

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.stage import reduced
from unitune.diffusion.steps import DDIM, DDPM
from unitune.masks.sources import Given
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.types import Draw, Edit, Example, Refused, Request, Tuned

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
HALF = torch.zeros(1, 1, 32, 32)
HALF[..., 16:] = 1
REQUESTS = (
    Request("a dog", composed_alike=True, mask=HALF),
    Request("a bird in the snow", composed_alike=False, mask=torch.ones(1, 1, 32, 32)),
)
EXAMPLE = Example("one", IMAGE, REQUESTS, caption="a cat in the city")
TUNED = Tuned("beikkpic")
MEANING = {"beikkpic a dog": 0.4, "beikkpic a bird in the snow": -0.3}
SAMPLER = Sampler(
    "test", steps=4, guidance=Guidance(3.0), sr=SuperResolution(steps=3, guidance=Guidance(2.0))
)
DRAWS = [
    Draw(REQUESTS[0], 0),
    Draw(REQUESTS[0], 1),
    Draw(REQUESTS[1], 0),
    Draw(REQUESTS[1], 1, weight=1.0),
    Draw(REQUESTS[0], 0, start=0.8),
    Draw(REQUESTS[1], 2, weight=9.0, start=0.3),
]


@pytest.fixture(scope="module")
def tiny_cascade(tmp_path_factory: pytest.TempPathFactory) -> backend.Cascade:
    folder: Path = tiny.floyd(tmp_path_factory.mktemp("tiny"))
    return backend.load(
        "tiny", folder, stages=("base", "sr256"), device=torch.device("cpu"), dtype=torch.float32
    )


def fake() -> FakeCascade:
    return FakeCascade(
        [
            FakeStage(Gaussian(), resolution=16),
            FakeStage(Gaussian(sigma=0.3), name="sr256", resolution=32),
        ],
        MEANING,
    )


def sample(
    cascade,
    draws: list[Draw],
    sampler: Sampler = SAMPLER,
    tuned: Tuned = TUNED,
    example: Example = EXAMPLE,
) -> list[Edit]:
    return sampler(cascade, example, tuned=tuned, draws=draws)


def pictures(edits: list[Edit]) -> torch.Tensor:
    return torch.cat([edit.image for edit in edits])


@pytest.mark.parametrize("step", [DDPM(), DDIM()])
@pytest.mark.parametrize("mask", [None, Given()])
def test_a_batch_equals_one_by_one(step, mask: Given | None, tiny_cascade: backend.Cascade):
    sampler = replace(SAMPLER, step=step, mask=mask, interpolation=Interpolation("auto"))
    # A random network's x_0 is huge near pure noise and thresholding cuts it, which magnifies
    # float32's last digit: it starts late.
    late = replace(sampler, start=0.7, sr=replace(sampler.sr, start=0.7))
    for cascade, chosen, tolerance in ((fake(), sampler, 1e-5), (tiny_cascade, late, 1e-3)):
        together = sample(cascade, DRAWS, chosen)
        alone = [sample(cascade, [draw], chosen)[0] for draw in DRAWS]
        torch.testing.assert_close(pictures(together), pictures(alone), rtol=0, atol=tolerance)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a.stages["base"], b.stages["base"], rtol=0, atol=tolerance)
            assert (a.prompt, a.weight, a.start, a.seed) == (b.prompt, b.weight, b.start, b.seed)


def test_same_seed_twice_is_bitwise_the_same(tiny_cascade: backend.Cascade):
    first = pictures(sample(tiny_cascade, DRAWS[:3]))
    torch.manual_seed(99)
    torch.randn(5)
    assert torch.equal(first, pictures(sample(tiny_cascade, DRAWS[:3])))


def test_sampling_touches_no_global_generator():
    state = torch.get_rng_state()
    sample(fake(), DRAWS)
    assert torch.equal(state, torch.get_rng_state())


def test_another_seed_differs_in_every_stage(tiny_cascade: backend.Cascade):
    for cascade in (fake(), tiny_cascade):
        a, b = sample(cascade, [Draw(REQUESTS[0], 0), Draw(REQUESTS[0], 1)])
        for stage in ("base", "sr256"):
            assert (a.stages[stage] - b.stages[stage]).abs().mean() > 0.05


def test_noise_is_named_by_the_seed_not_by_the_prompt():
    """Two prompts of one meaning give the same picture: all are compared on the same noise."""
    meaning = {"beikkpic a dog": 0.2, "beikkpic a bird in the snow": 0.2, "a dog": 0.2}
    cascade = replace(fake(), meaning=meaning)
    a, b = pictures(sample(cascade, [Draw(REQUESTS[0], 5), Draw(REQUESTS[1], 5)]))
    assert torch.equal(a, b)
    untuned = replace(SAMPLER, name="other", template="{edit}")
    assert torch.equal(
        pictures(sample(cascade, [Draw(REQUESTS[0], 5)], untuned, Tuned()))[0],
        pictures(sample(cascade, [Draw(REQUESTS[0], 5)]))[0],
    )


def test_noise_is_named_by_the_example():
    a = sample(fake(), DRAWS[:1])[0]
    b = sample(fake(), DRAWS[:1], example=replace(EXAMPLE, id="two"))[0]
    assert (a.image - b.image).abs().mean() > 0.05


@pytest.mark.parametrize("max_pixels", [1, 2 * 32**2, 5 * 16**2])
def test_chunks_do_not_change_the_result(max_pixels: int, tiny_cascade: backend.Cascade):
    for cascade, tolerance in ((fake(), 1e-5), (tiny_cascade, 1e-3)):
        whole = sample(cascade, DRAWS)
        parts = sample(cascade, DRAWS, replace(SAMPLER, max_pixels=max_pixels))
        torch.testing.assert_close(pictures(parts), pictures(whole), rtol=0, atol=tolerance)


def test_chunks_are_as_large_as_max_pixels_allows():
    cascade = fake()
    sample(cascade, DRAWS, replace(SAMPLER, max_pixels=4 * 16**2))
    assert set(cascade.stages[0].calls) == {8, 4} and set(cascade.stages[1].calls) == {
        2
    }  # guidance doubles the rows; 4 of 6, then 2; one by one


@pytest.mark.parametrize("step", [DDPM(), DDIM(eta=1.0)])
def test_masked_sampling_holds_the_base_bitwise_outside_the_mask(
    step, tiny_cascade: backend.Cascade
):
    sampler = replace(SAMPLER, mask=Given(), step=step)
    for cascade in (fake(), tiny_cascade):
        left, everywhere = sample(cascade, [Draw(REQUESTS[0], 0), Draw(REQUESTS[1], 0)], sampler)
        for name, side in (("base", 16), ("sr256", 32)):
            base = reduced(IMAGE, side)
            assert torch.equal(left.stages[name][..., : side // 2], base[..., : side // 2])
            assert (
                left.stages[name][..., side // 2 :] - base[..., side // 2 :]
            ).abs().mean() > 0.05
            assert (everywhere.stages[name] - base).abs().mean() > 0.05


def test_a_low_resolution_pixel_may_change_if_any_part_of_it_may():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 7, 9] = 1
    request = Request("a dog", mask=mask)
    edit = sample(fake(), [Draw(request, 0)], replace(SAMPLER, mask=Given()))[0]
    changed = (edit.stages["base"] != reduced(IMAGE, 16)).any(1)[0].nonzero().tolist()
    assert changed == [[3, 4]]


def test_masked_sampling_knows_what_is_held():
    """Two pictures are the data; the held half tells which, so the free half must follow."""
    data = torch.cat([torch.full((1, 3, 16, 16), 0.7), torch.full((1, 3, 16, 16), -0.7)])
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    for base in data:
        example = Example("one", base[None], (Request("a dog", mask=mask),))
        edit = sample(
            FakeCascade([FakeStage(Points(data), resolution=16)]),
            [Draw(example.requests[0], 3)],
            replace(SAMPLER, mask=Given(), steps=20),
            example=example,
        )[0]
        torch.testing.assert_close(edit.image[0], base, rtol=0, atol=0.02)


def test_interpolation_brings_the_base_back_where_the_edit_changes_little():
    cascade = FakeCascade([FakeStage(Points(IMAGE + 0.05), resolution=32)])
    sampler = replace(SAMPLER, interpolation=Interpolation("auto"))
    aligned, unaligned = sample(cascade, [Draw(REQUESTS[0], 0), Draw(REQUESTS[1], 0)], sampler)
    assert (
        torch.equal(aligned.image, IMAGE) and aligned.mask is not None and aligned.mask.max() == 0
    )
    torch.testing.assert_close(unaligned.image, IMAGE + 0.05, rtol=0, atol=1e-4)
    assert unaligned.mask is None  # nothing of it was interpolated
    assert sample(cascade, [Draw(REQUESTS[0], 0)])[0].mask is None


def test_edits_carry_what_was_sampled():
    edits = sample(fake(), DRAWS)
    assert [e.weight for e in edits] == [3.0, 3.0, 3.0, 1.0, 3.0, 9.0]
    assert [e.start for e in edits] == [1.0, 1.0, 1.0, 1.0, 0.8, 0.3]
    assert [e.seed for e in edits] == [0, 1, 0, 1, 0, 2]
    assert [e.prompt for e in edits] == ["beikkpic " + d.request.prompt for d in DRAWS]
    for edit, draw in zip(edits, DRAWS, strict=True):
        assert edit.request is draw.request and edit.example is EXAMPLE
        assert edit.image.shape == (1, 3, 32, 32) and list(edit.stages) == ["base", "sr256"]
        assert edit.stages["base"].shape == (1, 3, 16, 16) and torch.equal(
            edit.stages["sr256"], edit.image
        )


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{edit}", "a dog"),
        ("{rare} {edit}", "beikkpic a dog"),
        ("{caption}, {edit}", "a cat in the city, a dog"),
    ],
)
def test_the_template_makes_the_prompt(template: str, prompt: str):
    cascade = fake()
    edit = sample(cascade, DRAWS[:1], replace(SAMPLER, template=template))[0]
    assert edit.prompt == prompt and set(cascade.seen) == {prompt, ""}


def test_super_resolution_sees_the_noised_low_resolution_picture():
    cascade = fake()
    edits = sample(
        cascade, DRAWS[:2], replace(SAMPLER, sr=SuperResolution(steps=3, noise_level=0.25))
    )
    stage, condition = cascade.stages[1], cascade.stages[1].conditions[0]
    assert (
        condition.low is not None
        and condition.level is not None
        and condition.level.tolist() == [250, 250]
    )
    a = float(stage.schedule.alpha_bar[250])
    low = torch.cat([stage.upsampled(edit.stages["base"]) for edit in edits])
    noise = (condition.low - a**0.5 * low) / (1 - a) ** 0.5
    assert abs(float(noise.mean())) < 0.06 and float(noise.std()) == pytest.approx(1, abs=0.05)
    assert all(
        c.low is condition.low or torch.equal(c.low, condition.low) for c in stage.conditions
    )  # one draw of noise for all steps
    assert cascade.stages[0].conditions[0].low is None


@pytest.mark.parametrize(("noise_level", "level"), [(0.0, 0), (1.0, 999)])
def test_noise_level_at_the_ends(noise_level: float, level: int):
    cascade = fake()
    sample(
        cascade, DRAWS[:1], replace(SAMPLER, sr=SuperResolution(steps=1, noise_level=noise_level))
    )
    assert cascade.stages[1].conditions[0].level.tolist() == [level]


def test_progress_is_told():
    told: list[tuple[str, int, int]] = []
    SAMPLER(
        fake(), EXAMPLE, tuned=Tuned(), draws=DRAWS[:1], progress=lambda *done: told.append(done)
    )
    assert told == [("base", k, 4) for k in (1, 2, 3, 4)] + [("sr256", k, 3) for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": 0.0}, r"\(0, 1\]"),
        ({"start": 1.1}, r"\(0, 1\]"),
        ({"start": float("nan")}, r"\(0, 1\]"),
        ({"steps": 0}, "at least 1"),
        ({"steps": -1}, "at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str):
    with pytest.raises(Refused, match=message):
        replace(SAMPLER, **wrong)


@pytest.mark.parametrize("wrong", [{"noise_level": -0.1}, {"noise_level": 1.1}, {"steps": 0}])
def test_super_resolution_out_of_range_is_refused(wrong: dict[str, float]):
    with pytest.raises(Refused, match="sr"):
        SuperResolution(**wrong)


@pytest.mark.parametrize("start", [0.0, 1.1])
def test_a_draws_start_out_of_range_is_refused(start: float):
    with pytest.raises(Refused, match="start"):
        sample(fake(), [Draw(REQUESTS[0], 0, start=start)])


def test_a_missing_mask_is_refused_before_anything_runs():
    cascade = fake()
    with pytest.raises(Refused, match="'a fish'"):
        sample(cascade, [DRAWS[0], Draw(Request("a fish"), 0)], replace(SAMPLER, mask=Given()))
    assert cascade.stages[0].calls == []


def test_an_unknown_placeholder_is_refused():
    with pytest.raises(Refused, match="placeholder"):
        sample(fake(), DRAWS[:1], replace(SAMPLER, template="{what} {edit}"))
