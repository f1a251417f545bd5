"""Imagic: the embedding moves, then the weights around it, for every edit prompt anew."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.texts import Mix
from unitune.methods.imagic import Imagic
from unitune.models.cascade import Cascade, weights_digest
from unitune.runs import experiment
from unitune.runs.experiment import Experiment
from unitune.runs.plans import Seeds
from unitune.storage.store import Store
from unitune.tuning import make, work
from unitune.tuning.data import OneImage
from unitune.tuning.recipe import Tuning
from unitune.types import Draw, Example, Inactive, Refused, Request, Tuned

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TWO = replace(EXAMPLE, requests=(Request("a dog"), Request("a cat")))
TUNING = Tuning(lr=1e-3, steps=4, batch_size=1, snapshots=(1,))
METHOD = Imagic(Tuning(lr=1e-1, steps=4, batch_size=1), {"base": TUNING, "sr256": TUNING})
SAMPLER = Sampler("quick", steps=2, guidance=Guidance(weight=2.0), sr=SuperResolution(steps=2))


def prepare(
    method: Imagic,
    cascade: Cascade,
    store: Store,
    *,
    at: int | None = None,
    example: Example = EXAMPLE,
) -> Tuned:
    return make.prepare(method.recipe(example), cascade, example, store=store, at=at)


@pytest.fixture(scope="module")
def tuned(cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return prepare(METHOD, cascade, Store(tmp_path_factory.mktemp("store")))


def told(
    cascade: Cascade, tuned: Tuned, mix: float, monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """The text that each stage is given when it samples."""
    texts: dict[str, torch.Tensor] = {}
    for stage in cascade.stages:
        predict = stage.predict

        def noted(x, t, condition, *, predict=predict, name=stage.name):
            texts[name] = condition.text[:1]
            return predict(x, t, condition)

        monkeypatch.setattr(stage, "predict", noted)
    replace(SAMPLER, text=Mix(mix))(
        cascade, EXAMPLE, tuned=tuned, draws=[Draw(EXAMPLE.requests[0], 0)]
    )
    return texts


def test_embedding_then_weights_in_one_budget(cascade: Cascade, tuned: Tuned, tmp_path: Path):
    assert tuned.embedding is not None and tuned.start is not None
    assert torch.equal(tuned.start, cascade.encode(["a dog"])) and not torch.equal(
        tuned.embedding, tuned.start
    )
    assert (
        set(tuned.weights) == {"base", "sr256"}
        and tuned.tokens == {}
        and tuned.template == "{edit}"
    )
    assert make.inactive(METHOD.recipe(EXAMPLE), cascade, tuned) == ""
    # One step of the embedding and three of the weights in the base stage, four in the next.
    assert (
        tuned.cost.optimizer_steps == 8
        and tuned.cost.network_evaluations == 8
        and tuned.cost.stored_bytes > 0
    )


def test_what_is_told_while_the_weights_are_tuned(
    cascade: Cascade, tmp_store: Store, monkeypatch: pytest.MonkeyPatch
):
    """The base stage sees the optimised embedding and later noise, the next the prompt's own."""
    seen: dict[str, OneImage] = {}
    fit = work.fit
    monkeypatch.setattr(
        work,
        "fit",
        lambda data, **more: seen.update({data.stage.name: data}) or fit(data, **more),
    )
    tuned = prepare(METHOD, cascade, tmp_store)
    assert tuned.embedding is not None
    for stage, text, first in (
        ("base", tuned.embedding, 1),
        ("sr256", cascade.encode(["a dog"]), 0),
    ):
        assert torch.equal(seen[stage].batch(0).condition.text, text) and seen[stage].first == first


@pytest.mark.parametrize("mix", [0.0, 1.0, 0.25, 1.2])
def test_the_mix_is_what_the_first_stage_is_told(
    cascade: Cascade, tuned: Tuned, mix: float, monkeypatch: pytest.MonkeyPatch
):
    assert tuned.embedding is not None
    e_tgt = cascade.encode(["a dog"])
    texts = told(cascade, tuned, mix, monkeypatch)
    if mix in (0.0, 1.0):
        assert torch.equal(texts["base"], tuned.embedding if mix == 0 else e_tgt)
    torch.testing.assert_close(texts["base"], mix * e_tgt + (1 - mix) * tuned.embedding)
    assert torch.equal(texts["sr256"], e_tgt)


def test_the_mix_means_nothing_without_an_embedding(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
):
    assert torch.equal(
        told(cascade, Tuned(template="{edit}"), 0.0, monkeypatch)["base"], cascade.encode(["a dog"])
    )


@pytest.mark.parametrize("mix", [float("nan"), float("inf")])
def test_a_mix_that_is_no_number_is_refused(mix):
    with pytest.raises(Refused, match=r"sampler\.text\.eta must be a finite number"):
        replace(SAMPLER, text=Mix(mix))


def test_every_prompt_is_tuned_once_and_the_mix_tunes_nothing(
    cascade: Cascade, tmp_store: Store, tmp_path: Path
):
    before = [weights_digest(stage.network) for stage in cascade.stages]
    method = replace(METHOD, stages=("base",))
    setting = Experiment(cascade, method, SAMPLER, [], tmp_store, Seeds(1))
    for mix, name in ((0.7, "a"), (0.0, "b")):
        (tmp_path / name).mkdir()
        done = experiment.run(
            replace(setting, sampler=replace(SAMPLER, text=Mix(mix))), [TWO], folder=tmp_path / name
        )
        edits = [record for record in done if record.row == "edit"]
        assert (
            [record.prompt for record in edits]
            == [record.text for record in edits]
            == ["a dog", "a cat"]
        )
        assert all(record.cost["optimizer_steps"] == 4 for record in edits)
        assert (
            len(list(tmp_store.path.glob("tuned-*")))
            == len(list(tmp_store.path.glob("embedding-*")))
            == 2
        )
    assert (tmp_path / "a" / edits[0].image).read_bytes() != (
        tmp_path / "b" / edits[0].image
    ).read_bytes()
    assert [weights_digest(stage.network) for stage in cascade.stages] == before


@pytest.mark.parametrize(
    "change", [{"share": 0.5}, {"embedding": Tuning(lr=2e-1, steps=4, batch_size=1)}]
)
def test_what_changes_the_embedding_tunes_again(change: dict, cascade: Cascade, tmp_store: Store):
    method = replace(METHOD, stages=("base",))
    first, other = (
        prepare(method, cascade, tmp_store),
        prepare(replace(method, **change), cascade, tmp_store),
    )
    assert (
        len(list(tmp_store.path.glob("tuned-*"))) == 2
        and first.embedding is not None
        and other.embedding is not None
    )
    assert not torch.equal(first.embedding, other.embedding)


def test_what_changes_the_embedding_leaves_later_stages_alone(cascade: Cascade, tmp_store: Store):
    prepare(METHOD, cascade, tmp_store)
    prepare(replace(METHOD, share=0.5), cascade, tmp_store)
    made = [
        json.loads(file.read_text())["key"]["stage"]
        for file in tmp_store.path.glob("tuned-*/manifest.json")
    ]
    assert sorted(made) == ["base", "base", "sr256"]


def test_no_steps_and_a_snapshot_of_none_are_the_untouched_model(
    cascade: Cascade, tmp_store: Store
):
    none = replace(TUNING, steps=0)
    method = Imagic(replace(METHOD.embedding, steps=0), {"base": none, "sr256": none})
    for tuned in (prepare(method, cascade, tmp_store), prepare(METHOD, cascade, tmp_store, at=0)):
        assert (
            tuned.weights == {}
            and tuned.embedding is None
            and make.inactive(method.recipe(EXAMPLE), cascade, tuned) == ""
        )


def test_a_snapshot_that_the_embedding_left_no_steps_for_is_refused_before_anything_is_learned(
    cascade: Cascade, tmp_store: Store
):
    """Of 4 steps of the base one is the embedding's: 3 is its last, and 4 it never has."""
    sizes = {
        stage.name: {name: p.numel() for name, p in stage.network.named_parameters()}
        for stage in cascade.stages
    }
    base = replace(METHOD, stages=("base",))
    make.room(base.recipe(EXAMPLE), sizes, at=3)
    said = r"no snapshot of base at 4 steps; there are 0, 1, 3: change snapshot="
    with pytest.raises(Refused, match=said):
        make.room(base.recipe(EXAMPLE), sizes, at=4)
    with pytest.raises(Refused, match=said):
        prepare(METHOD, cascade, tmp_store, at=4)
    assert not [*tmp_store.path.glob("embedding-*"), *tmp_store.path.glob("tuned-*")]


def test_shares_at_the_ends(cascade: Cascade, tmp_store: Store):
    only_weights = prepare(replace(METHOD, share=0.0, stages=("base",)), cascade, tmp_store)
    only_embedding = prepare(replace(METHOD, share=1.0, stages=("base",)), cascade, tmp_store)
    assert (
        only_weights.embedding is None
        and set(only_weights.weights) == {"base"}
        and only_weights.cost.optimizer_steps == 4
    )
    assert (
        only_embedding.embedding is not None
        and only_embedding.weights == {}
        and only_embedding.cost.optimizer_steps == 4
    )


@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        (
            {"embedding": replace(METHOD.embedding, lr=1e-30)},
            "the embedding of the edit prompt did not move; use a larger method.embedding.lr",
        ),
        ({"tune": {"base": replace(TUNING, lr=1e-30)}}, "no weight of base moved in"),
    ],
)
def test_standing_still_stops_the_run(
    sabotage: dict, said: str, cascade: Cascade, tmp_store: Store, tmp_path: Path
):
    method = replace(METHOD, stages=("base",), **sabotage)
    with pytest.raises(Inactive, match=f"imagic did nothing for one: {said}"):
        experiment.run(
            Experiment(cascade, method, SAMPLER, [], tmp_store, Seeds(1)),
            [EXAMPLE],
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"share": 1.5}, r"share must be in \[0, 1\].*got 1.5"), ({"stages": ("sr1024",)}, "sr1024")],
)
def test_settings_out_of_range_are_refused(wrong: dict, said: str):
    with pytest.raises(Refused, match=said):
        replace(METHOD, **wrong)


def test_room_is_more_than_what_is_stored(cascade: Cascade, tuned: Tuned):
    sizes = {
        stage.name: {name: p.numel() for name, p in stage.network.named_parameters()}
        for stage in cascade.stages
    }
    kept, working = make.room(METHOD.recipe(EXAMPLE), sizes, at=None)
    assert tuned.cost.stored_bytes < kept < working and make.room(
        METHOD.recipe(EXAMPLE), sizes, at=0
    ) == (0, 0)


@pytest.mark.parametrize(
    ("model", "steps", "of_embedding"),
    [("pocket", 1600, 100), ("if_m", 1600, 100), ("sd15", 2500, 1000)],
)
def test_the_published_budget_is_that_of_the_kind_of_model(
    model: str, steps: int, of_embedding: int
):
    from test_conf import composed

    cfg = composed("method=imagic", "budget=paper", f"model={model}")
    assert (
        cfg.steps == cfg.method.tune.base.steps == steps
        and cfg.method.share * steps == of_embedding
    )
    assert cfg.method.tune.sr256.steps == 1500 and cfg.batch_size == 1
    OmegaConf.clear_cache(cfg)
