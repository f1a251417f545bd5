"""UniTune tunes once and then reads the store; the key holds what matters and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unitune.methods.unitune import UniTune
from unitune.methods.untuned import Untuned
from unitune.models import cascade as backend
from unitune.storage.store import Store
from unitune.tuning import make, naming, work
from unitune.tuning.finetune import curve_file, snapshot_file
from unitune.tuning.optimizers import Adafactor, AdamW
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Example, Refused, Request, Tuned

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),), caption="a cat in the city")
TUNING = Tuning(lr=1e-2, steps=3, snapshots=(1,))
METHOD = UniTune({"base": TUNING, "sr256": TUNING})


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were tuned, in order."""
    counted: list[str] = []
    fit = work.fit
    monkeypatch.setattr(
        work,
        "fit",
        lambda data, **more: counted.append(data.stage.name) or fit(data, **more),
    )
    return counted


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of tuning: one small file per snapshot."""
    from safetensors.torch import save_file

    counted: list[str] = []

    def fit(data, *, folder: Path, **_) -> None:
        counted.append(data.stage.name)
        for step in data.tuning.kept:
            save_file(
                {"conv_in.bias": torch.full((8,), float(step))},
                snapshot_file(folder, data.stage.name, step),
            )
        curve_file(folder, data.stage.name).write_text(
            '{"losses": [], "evaluations": 4, "seconds": 1, "peak_mib": 1}'
        )

    monkeypatch.setattr(work, "fit", fit)
    return counted


def prepare(
    method: UniTune,
    cascade: backend.Cascade,
    store: Store,
    *,
    seed: int = 0,
    at: int | None = None,
    example: Example = EXAMPLE,
) -> Tuned:
    return make.prepare(method.recipe(example), cascade, example, store=store, seed=seed, at=at)


def test_tuned_once_then_read(cascade: backend.Cascade, tmp_store: Store, fits: list[str]):
    first = prepare(METHOD, cascade, tmp_store)
    assert (
        fits == ["base", "sr256"]
        and first.prompt == "beikkpic"
        and first.steps == 3
        and first.cost.optimizer_steps == 6
    )
    again = prepare(METHOD, cascade, Store(tmp_store.path))
    assert fits == ["base", "sr256"] and again.cost == first.cost
    for stage in cascade.stages:
        names = {name for name, _ in stage.network.named_parameters()}
        assert set(first.weights[stage.name]) == names == set(again.weights[stage.name])
        assert all(
            torch.equal(first.weights[stage.name][n], again.weights[stage.name][n]) for n in names
        )
        base = dict(stage.network.named_parameters())
        assert all(
            w.dtype == torch.float32 and not torch.equal(w, base[n])
            for n, w in first.weights[stage.name].items()
        )
    with cascade.using(first):
        assert torch.equal(
            dict(cascade.stages[0].network.named_parameters())["conv_in.weight"],
            first.weights["base"]["conv_in.weight"],
        )


def test_snapshots_come_from_the_same_tuning(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    found = [
        float(prepare(METHOD, cascade, tmp_store, at=at).weights["base"]["conv_in.bias"][0])
        for at in (None, 1, 3)
    ]
    assert found == pytest.approx([3, 1, 3], rel=1e-3) and found[0] == found[2]
    assert quick == ["base", "sr256"]
    assert prepare(METHOD, cascade, tmp_store, at=1).steps == 1


def test_at_zero_is_the_untouched_model_and_tunes_nothing(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    tuned = prepare(METHOD, cascade, tmp_store, at=0)
    assert tuned == Tuned("beikkpic", about="beikkpic") and quick == []


def test_an_unknown_snapshot_is_refused_with_those_that_exist(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    with pytest.raises(
        Refused, match=r"no snapshot of base at 2 steps; there are 0, 1, 3: change snapshot="
    ):
        prepare(METHOD, cascade, tmp_store, at=2)
    assert not quick and not list(tmp_store.path.glob("tuned-*")), "refused before it was tuned"
    with pytest.raises(Refused, match=r"no snapshot of base at 2 steps"):
        make.room(METHOD.recipe(EXAMPLE), {}, at=2)


def test_a_tuning_prompt_cannot_name_itself(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    with pytest.raises(
        Refused,
        match=r"the tuning prompt 'a \{rare\} cat' asks for \{rare\}, "
        "which is what it names itself; write the rare token out",
    ):
        prepare(replace(METHOD, prompt="a {rare} cat"), cascade, tmp_store)
    assert not quick


def test_the_precision_of_texts_is_in_the_key(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str], monkeypatch: pytest.MonkeyPatch
):
    prepare(METHOD, cascade, tmp_store)
    monkeypatch.setattr(type(cascade.text_encoder), "arithmetic", "bf16")
    prepare(METHOD, cascade, tmp_store)
    assert quick == ["base", "sr256"] * 2


def test_no_steps_is_legal(cascade: backend.Cascade, tmp_store: Store, fits: list[str]):
    none = replace(TUNING, steps=0)
    tuned = prepare(UniTune({"base": none, "sr256": none}), cascade, tmp_store)
    assert tuned.weights == {} and tuned.steps == 0 and tuned.prompt == "beikkpic"
    only_base = prepare(
        UniTune({"base": replace(TUNING, steps=1), "sr256": none}), cascade, tmp_store
    )
    assert set(only_base.weights) == {"base"}


def test_only_the_stages_asked_for(cascade: backend.Cascade, tmp_store: Store, quick: list[str]):
    assert set(prepare(replace(METHOD, stages=("base",)), cascade, tmp_store).weights) == {
        "base"
    } and quick == ["base"]
    assert set(prepare(METHOD, cascade, tmp_store).weights) == {"base", "sr256"} and quick == [
        "base",
        "sr256",
    ], "a stage is tuned once for all choices"


def with_base(**more: object) -> UniTune:
    return replace(METHOD, tune={"base": replace(TUNING, **more), "sr256": TUNING})


OTHER_KEYS = {
    "lr": (with_base(lr=2e-2), {}),
    "steps": (with_base(steps=4), {}),
    "batch_size": (with_base(batch_size=2), {}),
    "optimizer": (with_base(optimizer=Adafactor()), {}),
    "beta": (with_base(optimizer=AdamW(beta_2=0.99)), {}),
    "select": (with_base(select=ParameterSelection(freeze=("down_blocks.*",))), {}),
    "crop": (with_base(crop=8), {}),
    "prompt": (replace(METHOD, prompt="sks"), {}),
    "seed": (METHOD, {"seed": 1}),
    "image": (METHOD, {"example": replace(EXAMPLE, image=-IMAGE)}),
}
SAME_KEYS = {
    "requests": (
        METHOD,
        {"example": replace(EXAMPLE, requests=(Request("a bird"), Request("a fish")))},
    ),
    "id": (METHOD, {"example": replace(EXAMPLE, id="two")}),
    "caption": (METHOD, {"example": replace(EXAMPLE, caption="")}),
    "snapshot": (METHOD, {"at": 1}),
    "name": (replace(METHOD, name="mine"), {}),
    "stages": (replace(METHOD, stages=("base",)), {}),
    "unused": (replace(METHOD, tune={**METHOD.tune, "sr1024": replace(TUNING, lr=1.0)}), {}),
    "lists": (with_base(snapshots=[1]), {}),
}


@pytest.mark.parametrize("what", OTHER_KEYS)
def test_what_changes_the_tuning_tunes_again(
    what: str, cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    prepare(METHOD, cascade, tmp_store)
    done = len(quick)
    method, more = OTHER_KEYS[what]
    prepare(method, cascade, tmp_store, **more)
    assert len(quick) > done


@pytest.mark.parametrize("what", SAME_KEYS)
def test_what_does_not_change_the_tuning_reads_the_store(
    what: str, cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    """Prompts, names and the snapshot reach `prepare`, and must not tune again."""
    prepare(METHOD, cascade, tmp_store)
    done = len(quick)
    method, more = SAME_KEYS[what]
    prepare(method, cascade, tmp_store, **more)
    assert len(quick) == done


def test_other_base_weights_tune_again(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    prepare(METHOD, cascade, tmp_store)
    prepare(METHOD, replace(cascade, digest="0" * 64), tmp_store)
    assert len(quick) == 4


def test_the_caption_can_be_the_tuning_prompt(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    method = replace(METHOD, prompt="{caption}")
    assert prepare(method, cascade, tmp_store).prompt == "a cat in the city"
    prepare(method, cascade, tmp_store, example=replace(EXAMPLE, caption="a cat"))
    assert len(quick) == 4  # another prompt, another tuning
    with pytest.raises(Refused, match="caption"):
        prepare(method, cascade, tmp_store, example=replace(EXAMPLE, caption=""))


def test_the_random_prompt_follows_the_seed(
    cascade: backend.Cascade, tmp_store: Store, quick: list[str]
):
    method = replace(METHOD, prompt="{random}")
    prompts = [prepare(method, cascade, tmp_store, seed=seed).prompt for seed in (0, 0, 1)]
    assert [
        naming.named(method.recipe(EXAMPLE), cascade, EXAMPLE, seed=seed).about
        for seed in (0, 0, 1)
    ] == prompts
    assert prompts[0] == prompts[1] != prompts[2] and prompts[0].isalpha() and len(quick) == 4
    assert prepare(method, cascade, tmp_store, seed=0, at=0).prompt == prompts[0]


def test_the_text_that_is_tuned_on_is_the_prompt(
    cascade: backend.Cascade, tmp_store: Store, monkeypatch: pytest.MonkeyPatch
):
    texts: list[torch.Tensor] = []
    fit = work.fit
    monkeypatch.setattr(
        work,
        "fit",
        lambda data, **more: texts.append(data.text) or fit(data, **more),
    )
    prepare(
        UniTune({"base": replace(TUNING, steps=1)}, stages=("base",), prompt="sks"),
        cascade,
        tmp_store,
    )
    assert len(texts) == 1 and torch.equal(texts[0], cascade.encode(["sks"]))


def test_a_failed_tuning_leaves_no_entry(
    cascade: backend.Cascade, tmp_store: Store, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("stop here")

    monkeypatch.setattr(work, "fit", fail)
    with pytest.raises(KeyError):
        prepare(METHOD, cascade, tmp_store)
    assert list(tmp_store.path.glob("tuned-*")) == []


def test_missing_settings_are_refused(cascade: backend.Cascade, tmp_store: Store):
    with pytest.raises(Refused, match="sr256"):
        UniTune({"base": TUNING})
    with pytest.raises(Refused, match="sr1024"):
        prepare(
            UniTune({"base": TUNING, "sr1024": TUNING}, stages=("base", "sr1024")),
            cascade,
            tmp_store,
        )


def test_untuned_changes_nothing(cascade: backend.Cascade, tmp_store: Store):
    assert make.prepare(Untuned().recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store) == Tuned(
        template="{edit}"
    )
    assert list(tmp_store.path.glob("tuned-*")) == []
