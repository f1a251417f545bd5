"""DreamBooth: class pictures are made once per class; without them it is plain tuning."""

import json
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from stores import stored

from unitune import prompts
from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.masks.sources import DiffEdit
from unitune.methods.dreambooth import DreamBooth
from unitune.methods.unitune import UniTune
from unitune.methods.untuned import Untuned
from unitune.models import cascade as backend
from unitune.models.cascade import weights_digest
from unitune.runs import experiment, preflight
from unitune.runs.plans import Seeds
from unitune.storage.store import Store
from unitune.tuning import make, naming, work
from unitune.tuning.class_images import ClassImages
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Example, Inactive, Refused, Request

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a cat in the snow"),), noun="cat")
TUNING = Tuning(lr=1e-2, steps=2, batch_size=2, snapshots=())
OF_CLASS = ClassImages(count=3, steps=2, sr=SuperResolution(steps=1))
METHOD = DreamBooth(
    {"base": TUNING, "sr256": replace(TUNING, low_level=1e-5)}, class_images=OF_CLASS
)
BASE_ONLY = replace(METHOD, stages=("base",))


def prepare(method, cascade, store, *, example=EXAMPLE, seed=0, at=None):
    return make.prepare(method.recipe(example), cascade, example, store=store, seed=seed, at=at)


def test_class_images_are_the_untouched_models_and_made_once_per_class(
    cascade, tmp_store, monkeypatch
):
    sampled = []
    run = Sampler.__call__
    monkeypatch.setattr(
        Sampler,
        "__call__",
        lambda self, *a, **k: sampled.append(len(k["draws"])) or run(self, *a, **k),
    )
    before = [weights_digest(stage.network) for stage in cascade.stages]
    first = prepare(METHOD, cascade, tmp_store)
    assert sampled == [3] and first.prompt == "beikkpic" and first.steps == 2
    other = prepare(
        METHOD, cascade, Store(tmp_store.path), example=replace(EXAMPLE, image=-IMAGE, id="two")
    )
    assert sampled == [3], "another image of the class shares them"
    assert not torch.equal(
        first.weights["base"]["conv_in.weight"], other.weights["base"]["conv_in.weight"]
    )
    prepare(METHOD, cascade, tmp_store, example=replace(EXAMPLE, noun="dog"))
    assert sampled == [3, 3], "another class has its own"
    assert [weights_digest(stage.network) for stage in cascade.stages] == before
    (entry, _) = sorted(tmp_store.path.glob("class_images-*"))
    held = load_file(entry / "pictures.safetensors")
    assert {name: tuple(p.shape) for name, p in held.items()} == {
        "base": (3, 3, 16, 16),
        "sr256": (3, 3, 32, 32),
    }
    request = Request("a cat")
    plain = replace(OF_CLASS.sampler, name="x")
    nothing = Example("class images", torch.zeros(1, 3, 32, 32), (request,))
    untuned = prepare(Untuned(), cascade, tmp_store)
    edits = plain(cascade, nothing, tuned=untuned, draws=[Draw(request, k) for k in range(3)])
    made, cost = OF_CLASS.pictures(
        cascade, "a cat", stages=["base", "sr256"], store=tmp_store, seed=0
    )
    for k, edit in enumerate(edits):
        torch.testing.assert_close(
            made["base"][k : k + 1], edit.stages["base"].clamp(-1, 1), rtol=0, atol=1 / 250
        )
        torch.testing.assert_close(
            made["sr256"][k : k + 1], edit.image.clamp(-1, 1), rtol=0, atol=1 / 250
        )
    assert cost.network_evaluations == 3 * (
        2 * 2 + 1
    )  # guidance doubles the base's two steps; one step of super-resolution without


def test_costs_count_class_rows_and_class_images(cascade, tmp_store):
    tuned = prepare(BASE_ONLY, cascade, tmp_store)
    assert (
        tuned.cost.optimizer_steps == 2
        and tuned.cost.network_evaluations == 2 * (2 + 2) + 3 * 2 * 2
    )
    assert prepare(BASE_ONLY, cascade, Store(tmp_store.path)).cost == tuned.cost
    other = prepare(BASE_ONLY, cascade, tmp_store, example=replace(EXAMPLE, image=-IMAGE))
    assert other.cost.network_evaluations == tuned.cost.network_evaluations, (
        "what the store spared is still part of what it takes"
    )
    (images,) = tmp_store.path.glob("class_images-*/pictures.safetensors")
    weights_file = next(tmp_store.path.glob("tuned-*/base-2.safetensors"))
    assert tuned.cost.stored_bytes >= images.stat().st_size + weights_file.stat().st_size


def test_without_a_prior_it_is_plain_tuning_on_the_prompt(cascade, tmp_store):
    alone = prepare(replace(BASE_ONLY, prior=0), cascade, tmp_store)
    assert not list(tmp_store.path.glob("class_images-*"))
    plain = prepare(
        UniTune({"base": TUNING}, stages=("base",), prompt="a beikkpic cat"), cascade, tmp_store
    )
    with_prior = prepare(BASE_ONLY, cascade, tmp_store)
    for name, weight in plain.weights["base"].items():
        assert torch.equal(weight, alone.weights["base"][name])
    assert any(
        not torch.equal(weight, with_prior.weights["base"][name])
        for name, weight in plain.weights["base"].items()
    )


def test_what_changes_the_class_images_tunes_again(cascade, tmp_store, monkeypatch):
    fits = []
    fit = work.fit
    monkeypatch.setattr(work, "fit", lambda data, **more: fits.append(1) or fit(data, **more))
    short = replace(
        BASE_ONLY,
        tune={"base": replace(TUNING, steps=1)},
        class_images=replace(OF_CLASS, steps=1, weight=1.0),
    )
    prepare(short, cascade, tmp_store)
    for other in (
        replace(short, prior=0.5),
        replace(short, class_images=replace(short.class_images, count=2)),
        replace(short, class_prompt="{noun}"),
    ):
        before = len(fits)
        prepare(other, cascade, tmp_store)
        assert len(fits) == before + 1
    before = len(fits)
    prepare(
        replace(short, name="mine"),
        cascade,
        tmp_store,
        example=replace(EXAMPLE, requests=(Request("a dog"),), id="x"),
    )
    prepare(short, cascade, tmp_store, at=0)
    assert len(fits) == before


def test_the_first_stage_is_shared_by_choices_of_later_ones(cascade, tmp_store, monkeypatch):
    fits = []
    fit = work.fit
    monkeypatch.setattr(
        work,
        "fit",
        lambda data, **more: fits.append(data.stage.name) or fit(data, **more),
    )
    alone, both = prepare(BASE_ONLY, cascade, tmp_store), prepare(METHOD, cascade, tmp_store)
    assert fits == ["base", "sr256"] and both.cost.network_evaluations == 2 * (2 + 2) * 2 + 3 * (
        2 * 2 + 1
    )
    assert set(alone.weights) == {"base"} and set(both.weights) == {"base", "sr256"}
    other = replace(OF_CLASS, sr=SuperResolution(steps=2))
    prepare(replace(METHOD, class_images=other), cascade, tmp_store)
    assert fits == ["base", "sr256", "sr256"]


def test_the_edit_names_the_image_before_its_noun(cascade, tmp_store):
    tuned = prepare(METHOD, cascade, tmp_store, at=0)
    assert not list(tmp_store.path.glob("*-*")), "untouched weights need no class images"
    texts = Sampler("x").texts(EXAMPLE, [Draw(EXAMPLE.requests[0], 0)], tuned=tuned)
    assert texts[0] == "a beikkpic cat in the snow"
    assert make.texts(METHOD.recipe(EXAMPLE), cascade, EXAMPLE, seed=0) == [
        "a beikkpic cat",
        "a cat",
        "",
    ]
    assert [
        naming.named(one.recipe(EXAMPLE), cascade, EXAMPLE, seed=0).about
        for one in (METHOD, Untuned())
    ] == ["a beikkpic cat", ""]
    random = replace(METHOD, token="{random}")
    assert naming.named(
        random.recipe(EXAMPLE), cascade, EXAMPLE, seed=3
    ).prompt == prompts.random_rare_token(cascade.pieces, seed=3)
    assert make.texts(replace(METHOD, prior=0).recipe(EXAMPLE), cascade, EXAMPLE, seed=0) == [
        "a beikkpic cat"
    ]


def test_the_text_that_is_tuned_on_is_named(cascade, tmp_store, tmp_path, caplog):
    sampler = Sampler("x", steps=1, sr=SuperResolution(steps=1))
    with caplog.at_level("INFO"):
        experiment.run(
            experiment.Experiment(cascade, METHOD, sampler, [], tmp_store, Seeds(1), snapshot=0),
            [EXAMPLE],
            folder=tmp_path,
        )
    assert "the tuning prompt is 'a beikkpic cat'" in caplog.text


def test_guidance_and_masks_compare_with_the_text_that_was_tuned_on(
    cascade, tmp_store, tmp_path, monkeypatch
):
    encoded: list[str] = []
    encode = backend.Cascade.encode
    monkeypatch.setattr(experiment, "_visible", lambda *_: None)  # which encodes it, too
    monkeypatch.setattr(
        backend.Cascade, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts)
    )
    sampler = Sampler(
        "x",
        steps=1,
        sr=SuperResolution(steps=1),
        guidance=Guidance(2.0, reference="{tuned}"),
        mask=DiffEdit(threshold=1e-6, noises=1),
    )
    experiment.run(
        experiment.Experiment(
            cascade, replace(METHOD, prior=0), sampler, [], tmp_store, Seeds(1), snapshot=0
        ),
        [EXAMPLE],
        folder=tmp_path,
    )
    assert (
        encoded.count("a beikkpic cat") == 2 and "beikkpic" not in encoded
    )  # once for the mask, once for guidance


def test_an_image_without_a_noun_is_refused_before_a_model_is_loaded(tmp_path):
    with pytest.raises(
        Refused,
        match="method=dreambooth needs the class noun of every image, and none is known of 'two': "
        "give noun=cat beside image=",
    ):
        preflight.check(
            preflight.Inputs(
                METHOD,
                Sampler("x"),
                Seeds(1),
                [EXAMPLE, replace(EXAMPLE, id="two", noun=" ")],
                folder=tmp_path,
                store=tmp_path / "s",
            )
        )


def test_the_command_refuses_it(typed):
    answer = typed("method=dreambooth", "edit=a cat in the snow", "metrics=none")
    assert (
        answer.code == 2
        and "needs the class noun" in answer.err
        and "noun=cat" in answer.err
        and answer.err.strip().count("\n") == 0
    )


def test_an_empty_class_set_stops(cascade, tmp_store):
    """A sabotaged store: an entry that holds no picture."""
    key = OF_CLASS.key(cascade, "a cat", stages=["base"], seed=0)

    def nothing(folder) -> None:
        save_file(
            {"base": torch.zeros(0, 3, 16, 16, dtype=torch.uint8)}, folder / "pictures.safetensors"
        )
        (folder / "cost.json").write_text(json.dumps({}))

    stored(tmp_store, "class_images", key, nothing)
    with pytest.raises(Inactive, match="there is no picture of 'a cat'"):
        prepare(BASE_ONLY, cascade, tmp_store)
    assert not list(tmp_store.path.glob("tuned-*"))


def test_class_images_that_are_all_the_same_stop(cascade, tmp_store, monkeypatch):
    """A sabotaged sampler: every seed draws the same noise."""
    monkeypatch.setattr("unitune.rng.noise", lambda shape, **_: torch.zeros(shape))
    with pytest.raises(Inactive, match="all 3 pictures of 'a cat' are the same"):
        prepare(BASE_ONLY, cascade, tmp_store)


def test_a_rate_that_moves_nothing_is_reported(cascade, tmp_store):
    still = replace(BASE_ONLY, tune={"base": replace(TUNING, lr=1e-30)})
    tuned = prepare(still, cascade, tmp_store)
    assert (
        make.inactive(still.recipe(EXAMPLE), cascade, tuned)
        == "no weight of base moved in 2 steps; use a larger lr"
    )
    moved = prepare(BASE_ONLY, cascade, tmp_store)
    assert make.inactive(BASE_ONLY.recipe(EXAMPLE), cascade, moved) == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior": -1.0}, "method.prior"),
        ({"prior": float("nan")}, "method.prior"),
        ({"stages": ("base", "sr1024")}, "sr1024"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(Refused, match=message):
        replace(METHOD, **wrong)


def test_no_class_images_are_refused():
    with pytest.raises(
        Refused,
        match=r"class_images.count must be a whole number of at least 1, got 0; "
        r"method.prior=0 tunes without",
    ):
        ClassImages(count=0)
    with pytest.raises(Refused, match=r"sampler\.steps"):
        ClassImages(steps=0)


METHODS = ["unitune", "untuned", "dreambooth"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", ["equal", "paper"])
def test_budgets_compose_for_every_method(method, budget, run):
    from test_conf import composed

    cfg = composed(f"method={method}", f"budget={budget}")
    made = run.make(cfg.method)
    assert made.name == method
    expected = (
        {"unitune": (128, 4), "untuned": (0, 1), "dreambooth": (1000, 1)}[method]
        if budget == "paper"
        else (128, 4)
    )
    assert (cfg.steps, cfg.batch_size) == expected
    if method != "untuned":
        assert {(t.steps, t.batch_size) for t in made.tune.values()} == {expected}
        assert budget == "paper" or all(t.steps * t.batch_size == 512 for t in made.tune.values())
    OmegaConf.clear_cache(cfg)


def test_no_steps_and_the_bare_prompt_are_sdedit(cascade, tmp_store):
    """Methods that tune nothing give the untuned model's pictures to the bit."""
    sampler = Sampler("sdedit", start=0.8, steps=3, sr=SuperResolution(steps=2, start=0.8))
    none = replace(TUNING, steps=0)
    results = []
    for method in (
        UniTune({"base": none, "sr256": none}, template="{edit}"),
        replace(METHOD, tune={"base": none, "sr256": none}, template="{edit}"),
        Untuned(),
    ):
        tuned = prepare(method, cascade, tmp_store)
        draws = [Draw(request, seed) for request in EXAMPLE.requests for seed in range(2)]
        with cascade.using(tuned):
            results.append(sampler(cascade, EXAMPLE, tuned=tuned, draws=draws))
    for edits in results[:2]:
        assert (
            [edit.prompt for edit in edits]
            == [edit.prompt for edit in results[2]]
            == ["a cat in the snow"] * 2
        )
        assert all(
            torch.equal(edit.image, other.image)
            for edit, other in zip(edits, results[2], strict=True)
        )
    assert not torch.equal(results[2][0].image, results[2][1].image)
