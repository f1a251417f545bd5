"""Where masks come from: the edit's own, DiffEdit's, a first sampling's difference, words.

And how our held region differs from diffusers'.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import FakeCascade, FakeStage, Gaussian, WordyCascade
from diffusers import DDPMScheduler, IFInpaintingPipeline

from unitune import images
from unitune.benchmarks.one_picture import OnePicture
from unitune.diffusion import hold
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.hold import Item, MaskRequest, MaskSource
from unitune.diffusion.interpolation import Interpolation
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.schedule import Schedule
from unitune.masks import sources as masks
from unitune.masks.attention import Attention
from unitune.masks.words import Words
from unitune.models import cascade as backend
from unitune.models import clipseg, tiny
from unitune.models.files import Model
from unitune.types import Draw, Example, Inactive, Refused, Request, Tuned

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
CORNER = torch.zeros(1, 1, 16, 16)
CORNER[..., :6, :5] = 1
DOG, FISH = Request("a dog", mask=CORNER), Request("a fish", mask=torch.ones(1, 1, 16, 16))
EXAMPLE = Example("one", IMAGE, (DOG, FISH), caption="a cat")


def where_told(schedule, x_t, t, condition):
    """Move the corner by what the text embeds as, and everything by a little of x_t."""
    return 0.1 * x_t + CORNER * condition.text[:, 0, 0][:, None, None, None]


def cascade() -> FakeCascade:
    return FakeCascade(
        [FakeStage(where_told, resolution=16)], {"a dog": 0.8, "a fish": -0.8, "a cat": 0.2}
    )


UNTOUCHED = Tuned(template="{edit}")


def sample(source, *, tuned: Tuned = UNTOUCHED, requests=(DOG, FISH), seeds=(0, 1)):
    sampler = Sampler("test", steps=3, guidance=Guidance(1.0), mask=source)
    return sampler(
        cascade(),
        EXAMPLE,
        tuned=tuned,
        draws=[Draw(request, seed) for request in requests for seed in seeds],
    )


def test_diffedit_finds_the_place_where_predictions_differ_and_one_mask_serves_all_seeds():
    for edit in sample(masks.DiffEdit()):
        assert edit.allowed is not None and torch.equal(edit.allowed, CORNER)
        assert torch.equal(edit.image[..., 6:, :], IMAGE[..., 6:, :]) and not torch.equal(
            edit.image[..., :6, :5], IMAGE[..., :6, :5]
        )


def test_diffedits_reference_is_the_tuning_prompt_else_the_caption_else_nothing():
    source = masks.DiffEdit()
    assert source.texts(EXAMPLE, about="beikkpic") == ["beikkpic"]
    assert source.texts(EXAMPLE, about="") == ["a cat"]
    assert source.texts(replace(EXAMPLE, caption=""), about="") == [""]
    assert masks.DiffEdit(reference="a {caption}").texts(EXAMPLE, about="x") == ["a a cat"]
    with pytest.raises(
        Refused,
        match=r"mask.reference 'a \{rare\} cat' has \{rare\}, which is a part of what was tuned "
        r"on; \{tuned\} is the whole",
    ):
        masks.DiffEdit(reference="a {rare} cat").texts(EXAMPLE, about="x")


def test_scale_and_guidance_do_not_change_diffedits_mask():
    """The difference of guided predictions is `weight` times that of plain ones.

    So is one of eps up to the level's factor.
    """
    asked = MaskRequest(EXAMPLE, [Item(DOG, 0, 1.0, 1.0, "a dog")], "", cascade(), lambda: IMAGE)
    strong = replace(asked, cascade=replace(cascade(), meaning={"a dog": 8.0, "a cat": 2.0}))
    assert torch.equal(masks.DiffEdit()(asked), masks.DiffEdit()(strong))
    torch.testing.assert_close(masks.DiffEdit().difference(asked, "a dog", "a cat"), 0.6 * CORNER)


def test_diffedit_grows_its_mask():
    grown = sample(masks.DiffEdit(grow=1 / 16))[0].allowed
    assert grown is not None and grown.sum() == 7 * 6


def test_diffedit_that_finds_nothing_stops_with_a_reason():
    with pytest.raises(Inactive, match=r"'a cat' and 'a cat' differ; set mask.reference"):
        sample(masks.DiffEdit(), requests=(Request("a cat"),))


@pytest.mark.parametrize(
    "wrong", [{"noises": 0}, {"start": 1.0}, {"threshold": 0.0}, {"clip": 0.0}, {"grow": -0.1}]
)
def test_diffedit_out_of_range_is_refused(wrong):
    with pytest.raises(
        Refused, match=f"mask.{next(iter(wrong))} must be .*, got {next(iter(wrong.values()))}"
    ):
        masks.DiffEdit(**wrong)


PLACE = {"a": 0, "cat": 1, "dog": 1}  # in "a cat", "a dog"


def attends(editor, x_t):
    """Denoise with two layers of attention, of 8 x 8 and 32 x 32 places.

    In the small one "dog" looks at the top left, in the large one elsewhere.
    """
    for side in (8, 32):
        M = torch.full((2, 3, side**2, 4), 0.1)
        M[1, :, 0 if side == 8 else side**2 - 1, PLACE["dog"]] = 0.7
        M[1, :, side - 1, PLACE["a"]] = 0.7
        M[0, :, side**2 - side, PLACE["cat"]] = 0.7
        assert torch.equal(editor.edit(M, text=4), M)
    return x_t


def asked(denoiser=attends, prompt: str = "a dog", example: Example = EXAMPLE) -> MaskRequest:
    stage = FakeStage(
        lambda schedule, x_t, t, condition: denoiser(stage.editor, x_t), resolution=32
    )
    items = [Item(Request(prompt), seed, 1.0, 1.0, f"beikkpic {prompt}") for seed in (0, 1)]
    example = replace(example, image=torch.zeros(1, 3, 64, 64))
    return MaskRequest(example, items, "beikkpic", WordyCascade([stage], 4), lambda: IMAGE)


def test_attention_finds_where_the_edits_own_words_look_in_layers_of_at_most_half_the_side():
    given = asked()
    first, second = Attention(noises=3)(given)
    assert first.shape == (1, 64, 64) and torch.equal(first, second)
    assert given.cascade.stages[0].calls == [2, 2, 2]
    # Both seeds share what is read: one place of 8 px, one further on the grid, and the edge of
    # bilinear interpolation between 1 and 0 above 0.3 of the range.
    assert (
        bool(first[:, :16, :16].all())
        and not bool(first[:, 20:].any())
        and not bool(first[:, :, 20:].any())
    )
    grown = Attention(noises=3, grow=1 / 8)(given)[0]
    assert bool(grown[:, :24, :24].all()) and not bool(grown[:, 28:].any())


def test_attention_of_an_edit_that_only_leaves_words_out_looks_for_those():
    def attends_to_cat(editor, x_t):
        M = torch.full((2, 1, 64, 4), 0.1)
        M[0, :, 0, PLACE["cat"]] = M[1, :, 63, PLACE["cat"]] = (
            0.7  # the caption's row; in the edit's there is padding
        )
        editor.edit(M, text=4)
        return x_t

    mask = Attention(noises=1)(asked(attends_to_cat, prompt="a"))
    assert bool(mask[..., :16, :16].all()) and not bool(mask[..., 20:, :].any())


def test_attention_averages_over_draws():
    """What one of four draws looks at is at a quarter of the range, below the threshold."""
    calls = []

    def wanders(editor, x_t):
        M = torch.full((2, 1, 64, 4), 0.1)
        M[1, :, 0, 1] = 0.9
        M[1, :, 63, 1] = 0.9 if not calls else 0.1
        calls.append(editor.edit(M, text=4))
        return x_t

    mask = Attention(noises=4)(asked(wanders))
    assert bool(mask[..., :16, :16].all()) and not bool(mask[..., 32:, 32:].any())
    calls.clear()
    assert bool(Attention(noises=3)(asked(wanders))[..., 60:, 60:].all())


@pytest.mark.parametrize("family", ["floyd", "sd15"])
def test_attention_on_networks_with_joint_and_separate_attention(family, tmp_path: Path):
    if family == "floyd":
        whole = backend.load(
            "tiny",
            tiny.floyd(tmp_path),
            stages=("base", "sr256"),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        whole = replace(whole, stages=whole.stages[:1])
    else:
        model = Model("sd15", ("base",), "stable_diffusion", str(tiny.sd15(tmp_path)))
        whole = backend.build(model, device=torch.device("cpu"), dtype=torch.float32)
    stage, example = (
        whole.stages[0],
        replace(
            EXAMPLE,
            image=torch.nn.functional.interpolate(IMAGE, (whole.resolution, whole.resolution)),
        ),
    )
    before = dict(stage.network.attn_processors)
    sampler = Sampler("test", steps=1, guidance=Guidance(1.0), mask=Attention(noises=2))
    edits = sampler(
        whole,
        example,
        tuned=Tuned("beikkpic"),
        draws=[Draw(request, seed) for request in (DOG, FISH) for seed in (0, 1)],
    )
    dog, again, fish, _ = (edit.allowed for edit in edits)
    assert dog is not None and again is not None and fish is not None
    assert (
        torch.equal(dog, again)
        and not torch.equal(dog, fish)
        and set(dog.unique().tolist()) == {0.0, 1.0}
    )
    if family == "floyd":  # what is held in latents is not so pixel by pixel
        assert torch.equal(edits[0].image * (1 - dog), example.image * (1 - dog))
    assert stage.evaluations == 2 * 2 * 2 + 4 and all(
        stage.network.attn_processors[name] is processor for name, processor in before.items()
    )


def test_attention_without_words_to_look_for_is_refused():
    source = Attention()
    source.check([EXAMPLE])
    assert source.texts(EXAMPLE, about="beikkpic") == ["a cat", "a dog", "a fish"]
    with pytest.raises(
        Refused, match=r"the base image's caption, and one has none; describe it: caption="
    ):
        source.check([replace(EXAMPLE, caption=" ")])
    with pytest.raises(
        Refused,
        match=r"words in which the edit 'A cat' and the caption 'a cat' differ, and there are none",
    ):
        source.check([replace(EXAMPLE, requests=(Request("A cat"),))])
    with pytest.raises(
        Refused,
        match=r"the edit 'a cat in a city' and the caption 'a cat in a' differ, and there are none",
    ):  # the network reads three pieces
        source(asked(prompt="a cat in a city", example=replace(EXAMPLE, caption="a cat in a")))


def test_attention_that_finds_nothing_stops_with_a_reason():
    with pytest.raises(Inactive, match="no attention layer of the first stage gave a map"):
        Attention()(asked(lambda editor, x_t: x_t))

    def even(editor, x_t):
        editor.edit(torch.full((2, 1, 64, 4), 0.25), text=4)
        return x_t

    with pytest.raises(
        Inactive,
        match=r"no place for the words in which 'a dog' and 'a cat' differ; use mask=diffedit",
    ):
        Attention()(asked(even))


@pytest.mark.parametrize(
    "wrong", [{"noises": 0}, {"start": 1.0}, {"threshold": 0.0}, {"grow": -0.1}]
)
def test_attention_out_of_range_is_refused(wrong):
    with pytest.raises(
        Refused, match=f"mask.{next(iter(wrong))} must be .*, got {next(iter(wrong.values()))}"
    ):
        Attention(**wrong)


def test_the_difference_mask_is_where_the_unmasked_samples_changed_the_picture():
    estimate = Interpolation(sigma=0.0, grow=0.0, low=0.1, high=0.3)
    free, held = sample(None), sample(masks.Difference(estimate=estimate))
    for a, b in zip(free, held, strict=True):
        expected = ((a.image - IMAGE).abs().mean(1, keepdim=True) >= 0.2).float()
        assert b.allowed is not None and torch.equal(b.allowed, expected)
        outside = (expected == 0).expand_as(IMAGE)
        assert torch.equal(b.image[outside], IMAGE[outside])


def test_every_source_says_which_it_is():
    sources = [
        masks.Given(),
        masks.DiffEdit(),
        masks.Difference(),
        Words("x", clipseg.ClipSeg("y")),
        Attention(),
    ]
    assert [source.name for source in sources] == [
        "file",
        "diffedit",
        "difference",
        "words",
        "attention",
    ]
    assert all(isinstance(source, MaskSource) for source in sources)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, "'a dog' of one has no mask; give mask_file=FILE"),
        (torch.ones(1, 1, 8, 16), "is 16x8 px, its picture 16x16 px"),
        (CORNER * 0, "black everywhere"),
    ],
)
def test_a_request_whose_mask_cannot_be_used_is_refused(mask, said):
    with pytest.raises(Refused, match=said):
        masks.Given().check([replace(EXAMPLE, requests=(Request("a dog", mask=mask),))])


def test_ones_own_mask_file_is_cut_as_the_picture_is(tmp_path: Path):
    picture, mask = torch.zeros(1, 3, 32, 48), torch.full((1, 3, 32, 48), -1.0)
    mask[..., 24:] = 1  # the right half; after the crop 16 of 32 columns
    images.save_png(picture, tmp_path / "p.png")
    images.save_png(mask, tmp_path / "m.png")
    (example,) = OnePicture(tmp_path / "p.png", ("a dog",), mask=tmp_path / "m.png").examples(16)
    assert example.requests[0].mask is not None
    assert torch.equal(
        example.requests[0].mask[0, 0], torch.cat([torch.zeros(16, 8), torch.ones(16, 8)], dim=1)
    )


@pytest.mark.parametrize(
    ("level", "shape", "said"),
    [
        (1.0, (32, 48), "white everywhere"),
        (-1.0, (32, 48), "black everywhere"),
        (1.0, (32, 32), "is 32x32 px, .* is 48x32 px"),
    ],
)
def test_ones_own_mask_that_cannot_be_used_is_refused(level, shape, said, tmp_path: Path):
    images.save_png(torch.zeros(1, 3, 32, 48), tmp_path / "p.png")
    images.save_png(torch.full((1, 3, *shape), level), tmp_path / "m.png")
    with pytest.raises(Refused, match=said):
        OnePicture(tmp_path / "p.png", ("a dog",), mask=tmp_path / "m.png").examples(16)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(Refused, match=r"text.png is not a picture"):
        OnePicture(tmp_path / "p.png", ("a dog",), mask=tmp_path / "text.png").examples(16)


def test_masks_through_the_command(typed, here: Path):
    images.save_png(torch.zeros(1, 3, 32, 32), here / "p.png")
    said = typed("image=p.png", "edit=a dog", "mask=file")
    assert said.code == 2 and "has no mask" in said.err
    said = typed("image=p.png", "edit=a dog", "mask=attention")
    assert said.code == 2 and "describe it: caption='a cat in a city'" in said.err
    said = typed("image=p.png", "edit=a dog", "mask_file=none.png")
    assert said.code == 2 and "none.png: no such file" in said.err
    said = typed("mask_file=p.png")
    assert said.code == 2 and "mask_file= takes effect with image=" in said.err


def test_words_that_find_nothing_and_a_clipseg_that_cannot_be_had_are_refused(
    tmp_path: Path, monkeypatch
):
    folder = str(tiny.clipseg(tmp_path / "clipseg"))
    example = replace(EXAMPLE, noun="cat")
    found = Words("{noun}", clipseg.ClipSeg(folder), threshold=0.5).mask(example, DOG)
    assert found.shape == (1, 1, 16, 16) and set(found.unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(
        clipseg.ClipSeg(folder)(IMAGE, "a cat"), clipseg.ClipSeg(folder)(IMAGE, "the sky")
    )
    monkeypatch.setattr(clipseg.ClipSeg, "__call__", lambda *_: torch.full((1, 1, 16, 16), 0.3))
    with pytest.raises(
        Refused,
        match=r"CLIPSeg finds no 'cat' in one .*at most 0.30, mask.threshold is 0.5.*mask.words=",
    ):
        Words("{noun}", clipseg.ClipSeg(folder)).check([example])
    monkeypatch.undo()
    for model, said in (
        (str(tmp_path), "no CLIPSeg can be read"),
        ("no/such-clipseg", "no/such-clipseg cannot be had"),
        ("a b", "neither a folder nor"),
    ):
        with pytest.raises(Refused, match=said):
            Words("a cat", clipseg.ClipSeg(model)).check([example])


def test_the_kept_picture_is_noised_as_diffusers_noises_it():
    """SDEdit's rule, as stock latent inpainting applies it too: m x_s + (1 - m) q(x_s | base)."""
    schedule, stock = Schedule.cosine(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x, base, noise = torch.randn(3, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    s = torch.tensor([400])
    expected = CORNER * x + (1 - CORNER) * stock.add_noise(base, noise, s)
    torch.testing.assert_close(
        hold.keep(schedule, x, base, CORNER, s=s, noise=noise), expected, rtol=1e-5, atol=1e-5
    )


def test_stock_if_inpainting_shows_the_network_a_clean_picture_and_we_a_noised_one(tmp_path: Path):
    """The documented difference; both results have the base image's pixels outside the mask."""
    pipe: Any = IFInpaintingPipeline.from_pretrained(
        tiny.floyd(tmp_path) / "base", safety_checker=None, feature_extractor=None, watermarker=None
    )
    pipe.set_progress_bar_config(disable=True)
    inputs: list[torch.Tensor] = []
    pipe.unet.register_forward_pre_hook(lambda _, given: inputs.append(given[0][:1].clone()))
    out = pipe(
        "a dog",
        image=IMAGE,
        mask_image=CORNER,
        num_inference_steps=3,
        guidance_scale=2.0,
        strength=1.0,
        output_type="pt",
    ).images
    outside = (CORNER == 0).expand_as(IMAGE)
    assert all(torch.equal(x[outside], IMAGE[outside]) for x in inputs) and torch.equal(
        out[outside], IMAGE[outside]
    )
    seen: list[torch.Tensor] = []
    stage = FakeStage(
        lambda schedule, x_t, t, condition: (
            seen.append(x_t) or Gaussian()(schedule, x_t, t, condition)
        ),
        resolution=16,
    )
    ours = Sampler("test", steps=3, guidance=Guidance(1.0), mask=masks.Given())(
        FakeCascade([stage]), EXAMPLE, tuned=Tuned(template="{edit}"), draws=[Draw(DOG, 0)]
    )
    assert all((x[outside] - IMAGE[outside]).abs().mean() > 0.05 for x in seen) and torch.equal(
        ours[0].image[outside], IMAGE[outside]
    )
