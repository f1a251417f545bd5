"""Prompt-to-Prompt in the sampler: what it changes, leaves, must have done, and refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from analytic import FakeStage, Gaussian, WordyCascade

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.stage import reduced
from unitune.diffusion.steps import DDIM, DDPM
from unitune.methods.imagic import Imagic
from unitune.methods.textual_inversion import TextualInversion
from unitune.methods.untuned import Untuned
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade
from unitune.models.files import Model
from unitune.prompt_to_prompt import align, chains, inversion
from unitune.prompt_to_prompt.control import LocalBlend, PromptToPrompt, shared
from unitune.runs import experiment, preflight
from unitune.runs.plans import Seeds
from unitune.storage.store import Store
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Edit, Example, Inactive, Refused, Request, Tuned

CPU = torch.device("cpu")
IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EDITS = (Request("a dog in a city"), Request("a cat in a city at night"))
EXAMPLE = Example("one", IMAGE, EDITS, caption="a cat in a city")
SAME = replace(EXAMPLE, requests=(Request(EXAMPLE.caption),))
FROM_NOISE = PromptToPrompt(inversion="off")
SAMPLER = Sampler(
    "test",
    template="{edit}",
    start=0.7,
    steps=2,
    guidance=Guidance(3.0),
    step=DDIM(),
    control=FROM_NOISE,
    sr=SuperResolution(steps=1, start=0.5),
)
PLAIN = replace(SAMPLER, control=None)
UNTUNED = Tuned()


@pytest.fixture(scope="module", params=["floyd", "sd15"])
def cascade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "floyd":
        return first_stage(tiny.floyd(folder))
    return backend.build(
        Model("sd15", ("base",), "stable_diffusion", str(tiny.sd15(folder))),
        device=CPU,
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def floyd(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    return first_stage(tiny.floyd(tmp_path_factory.mktemp("floyd")))


def first_stage(folder: Path) -> Cascade:
    """The later ones have no part in it."""
    whole = backend.load("tiny", folder, stages=("base", "sr256"), device=CPU, dtype=torch.float32)
    return replace(whole, stages=whole.stages[:1])


def sample(
    cascade: Cascade | WordyCascade,
    sampler: Sampler = SAMPLER,
    example: Example = EXAMPLE,
    seeds: int = 1,
    tuned: Tuned = UNTUNED,
) -> list[Edit]:
    return sampler(
        cascade,
        example,
        tuned=tuned,
        draws=[Draw(request, seed) for request in example.requests for seed in range(seeds)],
    )


def first(edits: list[Edit]) -> torch.Tensor:
    """Pictures of the first stage."""
    return torch.cat([edit.stages["base"] for edit in edits])


def using(**changes: object) -> Sampler:
    return replace(SAMPLER, control=replace(FROM_NOISE, **changes))


@pytest.fixture(scope="module")
def edited(cascade: Cascade) -> torch.Tensor:
    return first(sample(cascade))


@pytest.fixture(scope="module")
def plain(cascade: Cascade) -> torch.Tensor:
    return first(sample(cascade, PLAIN))


def test_edits_change_and_an_edit_equal_to_the_source_does_not(
    cascade: Cascade, edited: torch.Tensor, plain: torch.Tensor
):
    assert float((edited - plain).abs().amax(dim=(1, 2, 3)).min()) > 1e-3
    torch.testing.assert_close(
        first(sample(cascade, example=SAME)),
        first(sample(cascade, PLAIN, example=SAME)),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("mode", ["auto", "refine"])
def test_no_share_of_the_steps_is_plain_sampling(cascade: Cascade, mode: str, plain: torch.Tensor):
    none = using(mode=mode, cross_share=0.0, self_share=0.0)
    torch.testing.assert_close(first(sample(cascade, none)), plain, rtol=0, atol=1e-4)


def test_reweighting_by_1_is_the_identity_and_by_2_is_not(cascade: Cascade, edited: torch.Tensor):
    one, two = (first(sample(cascade, using(reweight={"city": c}))) for c in (1.0, 2.0))
    assert torch.equal(edited, one) and float((edited - two).abs().max()) > 1e-3


def test_a_batch_equals_one_by_one(cascade: Cascade):
    together = sample(cascade, seeds=2)
    alone = [
        sample(
            cascade, replace(SAMPLER, max_pixels=1), replace(EXAMPLE, requests=(request,)), seeds=2
        )
        for request in EDITS
    ]
    torch.testing.assert_close(
        first(together), torch.cat([first(edits) for edits in alone]), rtol=0, atol=1e-3
    )


def test_edits_of_a_seed_share_one_source_chain_and_the_second_stage_has_none(
    monkeypatch: pytest.MonkeyPatch,
):
    stages = [
        FakeStage(Gaussian(), resolution=16),
        FakeStage(Gaussian(), name="sr256", resolution=32),
    ]
    monkeypatch.setattr(
        chains.Chains, "_check", lambda self, last: None
    )  # this network has no attention
    sample(
        WordyCascade(stages),
        replace(SAMPLER, template=""),
        seeds=2,
        tuned=Tuned("rare", template="{edit}"),
    )
    assert set(stages[0].calls) == {2 * (2 + 4)} and set(stages[1].calls) == {4}


def test_equal_keys_get_one_number():
    assert shared(["b", "a", "b", "c", "a"]) == ([0, 1, 3], [0, 1, 0, 2, 1])


def test_inversion_brings_the_base_image_back_where_blending_lets_nothing_change(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inversion, "RECONSTRUCTS", 5.0)  # a random network's steps are wild
    stage, sampler = (
        cascade.stages[0],
        using(inversion="auto", blend=LocalBlend(threshold=1.0, start=0.0)),
    )
    base = stage.decode(stage.encode(reduced(IMAGE, stage.resolution)))
    torch.testing.assert_close(
        first(sample(cascade, sampler)), base.expand(2, -1, -1, -1), rtol=0, atol=1e-5
    )


def test_blending_that_lets_everything_change_is_none(
    cascade: Cascade, edited: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    # Maps that are read are computed in another order than attention that nobody looks at.
    torch.testing.assert_close(
        first(sample(cascade, using(blend=LocalBlend(start=1.0)))), edited, rtol=0, atol=1e-3
    )
    monkeypatch.setattr(chains.Chains, "mask", lambda self, side: torch.ones(2, 1, side, side))
    torch.testing.assert_close(
        first(sample(cascade, using(blend=LocalBlend(start=0.0)))), edited, rtol=0, atol=1e-3
    )


def test_the_mask_is_where_the_words_are():
    made = replace(FROM_NOISE, blend=LocalBlend()).chains(
        "a cat",
        ["a dog", "a cat"],
        [0, 0],
        tokenize=lambda text: [f"▁{word}" for word in text.split()],
        offset=0,
        length=4,
    )
    made.begin(0, 1, side=32)
    M = torch.full((3, 1, 64, 4), 0.2)
    M[0, 0, 0, 1] = 1.0  # the cat of the source, top left
    M[1, 0, 63, 1] = 1.0  # the dog of the edit, bottom right
    M[:, 0, 7, 0] = 1.0  # "a", which both have
    made.edit(M, text=4)
    mask = made.mask(32)
    assert (
        bool(mask[0, 0, 0, 0])
        and bool(mask[0, 0, 31, 31])
        and not bool(mask[0, 0, 0, 31])
        and 0.05 < float(mask[0].mean()) < 0.5
    )
    assert not mask[1].any()  # no word differs


def test_inversion_is_made_once_for_all_chunks_and_edits(
    floyd: Cascade, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inversion, "RECONSTRUCTS", 5.0)
    stage, sampler = floyd.stages[0], using(inversion="auto", rounds=2)
    before = stage.evaluations
    sample(floyd, replace(sampler, max_pixels=1), seeds=2)
    assert (
        stage.evaluations - before == 2 * 2 + 2 + 2 * 4 * 2 * 2
    )  # two rounds of each step, sampled again; four chunks: source and edit, twice for guidance


CARRIES = Tuned(EXAMPLE.caption, weights={"base": {}})


@pytest.mark.parametrize(
    ("tuned", "source", "inverts"),
    [
        (Tuned(), EXAMPLE.caption, True),  # nothing was tuned
        (Tuned(EXAMPLE.caption), EXAMPLE.caption, True),  # in no steps
        (CARRIES, EXAMPLE.caption, False),
        (CARRIES, "A photo of a cat in a City, at noon", False),
        (
            Tuned("beikkpic", weights={"base": {}}),
            EXAMPLE.caption,
            True,
        ),  # the chain's prompt does not name the image
        (Tuned("beikkpic", weights={"base": {}}), f"beikkpic {EXAMPLE.caption}", False),
        (
            Tuned("cat", weights={"base": {}}),
            "a catalogue",
            True,
        ),  # a rare token inside a word names nothing
        (Tuned("", weights={"base": {}}), EXAMPLE.caption, True),
        (
            Tuned(EXAMPLE.caption, weights={"sr256": {}}),
            EXAMPLE.caption,
            True,
        ),  # the chains run in the first stage
    ],
)
def test_auto_inverts_unless_the_model_was_tuned_on_what_the_source_says(
    tuned: Tuned, source: str, inverts: bool
):
    assert PromptToPrompt().inverts(tuned, source, stage="base") == inverts
    assert PromptToPrompt(inversion="on").inverts(
        tuned, source, stage="base"
    ) and not FROM_NOISE.inverts(tuned, source, stage="base")


def test_chains_of_a_tuned_model_start_from_noise_where_their_prompt_names_the_image(
    floyd: Cascade, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inversion, "RECONSTRUCTS", 5.0)
    auto, one = using(inversion="auto"), replace(EXAMPLE, requests=EDITS[:1])
    for tuned in (Tuned(), Tuned("beikkpic", weights={"base": {}})):
        a, b = sample(floyd, auto, one, seeds=2, tuned=tuned)
        assert torch.equal(a.stages["base"], b.stages["base"])  # inversion leaves no chance
    a, b = sample(floyd, auto, one, seeds=2, tuned=CARRIES)
    assert not torch.equal(a.stages["base"], b.stages["base"])


def test_a_network_without_attention_is_said():
    with pytest.raises(Inactive, match="no attention layer of the first stage"):
        sample(WordyCascade([FakeStage(Gaussian(), resolution=32)]))


def test_a_hook_that_was_removed_is_said(cascade: Cascade, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cascade.stages[0].network, "set_attn_processor", lambda processors: None)
    with pytest.raises(Inactive, match="no attention layer of the first stage"):
        sample(cascade)


def test_a_hook_that_edits_nothing_is_said(cascade: Cascade, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(align, "refine", lambda M, M_star, A: M_star)
    for shares in ({"self_share": 0.0}, {"self_side": 0.0}):
        with pytest.raises(Inactive, match="those it would have had anyway"):
            sample(cascade, using(**shares))


def test_what_is_missing_or_cannot_be_aligned_is_refused(floyd: Cascade, tmp_path: Path):
    with pytest.raises(
        Refused, match=r"asks for {caption}, but the base image has none; give its description"
    ):
        SAMPLER.texts(
            replace(EXAMPLE, caption=""), [Draw(EDITS[0], 0)], tuned=Tuned(template="{edit}")
        )
    with pytest.raises(Refused, match=r"'a cat in a city' and 'two dogs' share no word"):
        sample(floyd, example=replace(EXAMPLE, requests=(Request("two dogs"),)))
    with pytest.raises(
        Refused, match=r"swap needs prompts of equally many tokens: .* 'a cat in a city at night'"
    ):
        sample(floyd, using(mode="swap"), replace(EXAMPLE, requests=EDITS[1:]))
    with pytest.raises(
        Refused, match=r"the word 'cow' of sampler.control is not in 'a dog in a city'"
    ):
        sample(floyd, using(reweight={"cow": 2.0}))
    with pytest.raises(
        Refused,
        match=r"the word 'cow' of sampler.control is not in 'a cat in a city / a dog in a city'",
    ):
        sample(floyd, using(blend=LocalBlend(words=("city", "cow"))))
    for learned in (
        Tuned(embedding=torch.zeros(1, 77, tiny.WIDTH)),
        Tuned(tokens={"beikkpic": torch.zeros(2, tiny.WIDTH)}),
    ):
        with pytest.raises(Refused, match="this method samples learned ones; use another sampler"):
            sample(floyd, tuned=learned)
    cat = replace(EXAMPLE, noun="cat")
    for method in (
        Imagic(Tuning(lr=1.0), {}, stages=()),
        TextualInversion(Tuning(lr=1.0)),
    ):  # before a model is loaded
        with pytest.raises(Refused, match=f"method={method.name} samples learned ones"):
            preflight.check(
                preflight.Inputs(
                    method, SAMPLER, Seeds(1), [cat], folder=tmp_path, store=tmp_path / "s"
                )
            )
    with pytest.raises(Refused, match="inversion needs the deterministic step"):
        sample(floyd, replace(using(inversion="auto"), step=DDPM()))


@pytest.mark.parametrize(
    ("control", "edit", "said"),
    [
        ({}, "two dogs", "share no word"),
        ({"mode": "swap"}, "a cat in a city at night", "swap needs prompts of equally many tokens"),
        (
            {"reweight": {"cow": 2.0}},
            "a dog in a city",
            "the word 'cow' of sampler.control is not in 'a dog in a city'",
        ),
        (
            {"blend": LocalBlend(words=("cow",))},
            "a dog in a city",
            "the word 'cow' of sampler.control is not in",
        ),
        ({}, "a dog in a city", "it was tuned"),
    ],
)
def test_what_cannot_be_aligned_is_refused_before_anything_is_tuned(
    floyd: Cascade,
    tmp_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    control: dict,
    edit: str,
    said: str,
):
    def never(*_: object, **__: object) -> Tuned:
        raise AssertionError("it was tuned")

    monkeypatch.setattr(experiment.make, "prepare", never)
    setting = experiment.Experiment(floyd, Untuned(), using(**control), [], tmp_store, Seeds(1))
    with pytest.raises(AssertionError if said == "it was tuned" else Refused, match=said):
        experiment.run(
            setting,
            [replace(EXAMPLE, image=IMAGE[..., :16, :16], requests=(Request(edit),))],
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "replace"}, "control.mode must be one of auto, swap, refine, got 'replace'"),
        ({"inversion": "yes"}, "control.inversion must be one of auto, on, off, got 'yes'"),
        ({"cross_share": 1.5}, r"control.cross_share must be in \[0, 1\], got 1.5"),
        ({"self_side": -0.1}, r"control.self_side must be in \[0, 1\], got -0.1"),
        (
            {"reweight": {"cat": 3.0}},
            r"control.reweight gives 'cat' 3.0; a word's factor must be in \[-2, 2\]",
        ),
        ({"rounds": 0}, "control.rounds must be a whole number of at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, said: str):
    with pytest.raises(Refused, match=said):
        PromptToPrompt(**wrong)
    with pytest.raises(Refused, match=r"control.blend.threshold must be in \[0, 1\], got 2.0"):
        LocalBlend(threshold=2.0)


def test_the_sources_text_is_embedded_with_the_others():
    texts = SAMPLER.texts(EXAMPLE, [Draw(EDITS[0], 0)], tuned=Tuned(template="{edit}"))
    assert {EXAMPLE.caption, EDITS[0].prompt, ""} == set(texts)
