"""LoRA: only an adapter is trained and stored; what is sampled is what was trained."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unitune.methods.unitune import UniTune
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import weights_digest
from unitune.models.files import Model
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.adapters import Full, Lora
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import checkpoint_file, fit, snapshot_file
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Example, Refused, Request, Stopped

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
LORA = Lora(rank=2, alpha=8.0)
TUNING = Tuning(lr=1e-2, steps=3, snapshots=(1,), adapter=LORA)
KINDS = {"floyd": ("base", "sr256"), "sd15": ("base",), "sd21": ("base",)}


@pytest.fixture(scope="module")
def cascades(tmp_path_factory: pytest.TempPathFactory) -> dict[str, backend.Cascade]:
    def built(kind: str) -> backend.Cascade:
        folder = tmp_path_factory.mktemp(kind)
        {"floyd": tiny.floyd, "sd15": tiny.sd15, "sd21": tiny.sd21}[kind](folder)
        model = Model(
            kind,
            KINDS[kind],
            path=str(folder),
            family="floyd" if kind == "floyd" else "stable_diffusion",
        )
        return backend.build(model, device=torch.device("cpu"), dtype=torch.float32)

    return {kind: built(kind) for kind in KINDS}


@pytest.fixture(
    params=[(kind, stage) for kind, stages in KINDS.items() for stage in stages], ids="-".join
)
def one(request: pytest.FixtureRequest, cascades: dict[str, backend.Cascade]) -> OneImage:
    kind, stage = request.param
    cascade = cascades[kind]
    return OneImage(cascade.stage(stage), EXAMPLE, cascade.encode(["beikkpic"]), 0, TUNING)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_adapter_alone_is_stored_and_the_network_is_as_before(one: OneImage, tmp_path: Path):
    network, before = one.stage.network, weights_digest(one.stage.network)
    modules = {name: type(module) for name, module in network.named_modules()}
    fit(one, folder=tmp_path)
    assert (
        weights_digest(network) == before
        and {name: type(module) for name, module in network.named_modules()} == modules
    )
    assert not any(p.requires_grad for p in network.parameters()) and "peft_config" not in vars(
        network
    )
    stored = load_file(snapshot_file(tmp_path, one.stage.name, 3))
    layers = {name.rpartition(".")[0] for name in stored}
    assert layers and set(stored) == {
        f"{name}.{part}" for name in layers for part in ("lora_A", "lora_B")
    }
    assert all("attentions." in name for name in layers) and all(
        bool(stored[f"{name}.lora_B"].any()) for name in layers
    )
    if "num_class_embeds" not in network.config or network.config.addition_embed_type == "text":
        assert any(name.endswith("add_k_proj") for name in layers)


def test_merged_weights_predict_as_the_adapter_does(one: OneImage):
    """The layers of peft, with A and B of our choice, against scale * B A added to the weights."""
    network, batch = one.stage.network, one.batch(0)
    with LORA.attached(network, ParameterSelection()) as parameters, torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        adapted = one.stage.output(batch.x_t, batch.t, batch.condition)
        stored = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    with torch.no_grad():
        plain = one.stage.output(batch.x_t, batch.t, batch.condition)
        with one.stage.using(LORA.merged(stored, network)):
            merged = one.stage.output(batch.x_t, batch.t, batch.condition)
    assert float((adapted - plain).abs().max()) > 1e-2
    torch.testing.assert_close(merged, adapted, rtol=1e-3, atol=1e-4)


def test_a_convolution_is_adapted_too():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 1)).requires_grad_(False)
    lora, x = (
        Lora(rank=2, alpha=6.0, targets=("*",)),
        torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)),
    )
    with lora.attached(network, ParameterSelection()) as parameters, torch.no_grad():
        for parameter in parameters.values():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
        adapted, stored = (
            network(x),
            {name: parameter.detach().clone() for name, parameter in parameters.items()},
        )
    for name, weight in lora.merged(stored, network).items():
        network.get_parameter(name).data = weight
    torch.testing.assert_close(network(x), adapted, rtol=1e-4, atol=1e-4)


def test_the_network_is_as_before_also_on_error(one: OneImage, tmp_path: Path):
    before = weights_digest(one.stage.network)

    def fail(*_: object) -> None:
        raise KeyError("stop here")

    with pytest.raises(KeyError):
        fit(one, folder=tmp_path, report=fail)
    assert weights_digest(one.stage.network) == before and not any(
        p.requires_grad for p in one.stage.network.parameters()
    )


def test_interrupted_and_resumed_is_as_undisturbed(
    cascades: dict[str, backend.Cascade], tmp_path: Path
):
    cascade = cascades["floyd"]
    one = OneImage(cascade.stage("base"), EXAMPLE, cascade.encode(["beikkpic"]), 0, TUNING)
    whole, often = tmp_path / "whole", tmp_path / "often"
    whole.mkdir()
    often.mkdir()
    fit(one, folder=whole)

    with pytest.raises(Stopped):
        fit(
            one,
            folder=often,
            report=lambda *told: os.kill(os.getpid(), signal.SIGTERM) if told[1] == 2 else None,
        )
    size = checkpoint_file(often, "base").stat().st_size
    assert size < 4 * sum(p.numel() for p in one.stage.network.parameters()), (
        "a checkpoint holds the adapter, not the network"
    )
    fit(one, folder=often)
    assert same(
        load_file(snapshot_file(whole, "base", 3)), load_file(snapshot_file(often, "base", 3))
    )


def test_the_first_adapter_depends_on_its_layer_alone(cascades: dict[str, backend.Cascade]):
    network, state = cascades["floyd"].stage("base").network, torch.random.get_rng_state()
    found = []
    for _ in range(2):
        with LORA.attached(network, ParameterSelection()) as parameters:
            found.append(
                {name: parameter.detach().clone() for name, parameter in parameters.items()}
            )
        torch.rand(1)
    assert same(*found) and not any(
        bool(value.any()) for name, value in found[0].items() if name.endswith("lora_B")
    )
    firsts = [value for name, value in found[0].items() if name.endswith("lora_A")]
    assert not torch.equal(*[value for value in firsts if value.shape == firsts[0].shape][:2])
    torch.random.set_rng_state(state)


def test_the_method_samples_merged_weights_and_stores_little(
    cascades: dict[str, backend.Cascade], tmp_store: Store
):
    cascade = cascades["floyd"]
    method = UniTune({"base": TUNING, "sr256": TUNING})
    tuned = make.prepare(method.recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store)
    for stage in cascade.stages:
        base, weights = dict(stage.network.named_parameters()), tuned.weights[stage.name]
        assert weights and all(
            w.shape == base[name].shape and not torch.equal(w, base[name])
            for name, w in weights.items()
        )
    assert make.inactive(method.recipe(EXAMPLE), cascade, tuned) == ""
    entries = list(tmp_store.path.glob("tuned-*"))
    assert len(entries) == len(cascade.stages)
    files = sum(file.stat().st_size for entry in entries for file in entry.glob("*.safetensors"))
    assert tuned.cost.stored_bytes >= files > 0
    full = replace(TUNING, adapter=Full())
    other = make.prepare(
        UniTune({"base": full, "sr256": full}).recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store
    )
    assert (
        files < 0.25 * other.cost.stored_bytes and len(list(tmp_store.path.glob("tuned-*"))) == 4
    )  # tiny matrices are hardly larger than their adapters
    keys = [json.loads((entry / "manifest.json").read_text())["key"] for entry in entries]
    assert all(key["tune"]["kinds"] == ["AdamW", "Lora"] for key in keys) and sorted(
        key["stage"] for key in keys
    ) == ["base", "sr256"]


def test_an_adapter_that_cannot_move_is_reported(
    cascades: dict[str, backend.Cascade], tmp_store: Store
):
    still = UniTune({"base": replace(TUNING, lr=1e-30)}, stages=("base",))
    tuned = make.prepare(still.recipe(EXAMPLE), cascades["floyd"], EXAMPLE, store=tmp_store)
    assert "no weight of base moved in 3 steps; use a larger lr" in make.inactive(
        still.recipe(EXAMPLE), cascades["floyd"], tuned
    )


def test_layers_that_were_taken_out_again_do_not_train(
    cascades: dict[str, backend.Cascade], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A sabotaged adapter, which the network does not use, must not end as a result."""
    import peft

    cascade = cascades["floyd"]
    one = OneImage(cascade.stage("base"), EXAMPLE, cascade.encode(["beikkpic"]), 0, TUNING)
    inject = peft.inject_adapter_in_model

    def silent(config, network):
        inject(config, network)
        for module in network.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module._disable_adapters = True
        return network

    monkeypatch.setattr(peft, "inject_adapter_in_model", silent)
    with pytest.raises(RuntimeError, match="does not require grad"):
        fit(one, folder=tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_sizes_before_a_model_is_loaded(one: OneImage, rank: int):
    """Exact where layers have a bias, as in IF; else not below the truth."""
    network, lora = one.stage.network, Lora(rank=rank)
    counts = {name: p.numel() for name, p in network.named_parameters()}
    with lora.attached(network, ParameterSelection()) as parameters:
        true = sum(p.numel() for p in parameters.values())
    assert true <= lora.size(counts, ParameterSelection()) <= 4 * true + 256
    if network.config.addition_embed_type == "text":
        assert lora.size(counts, ParameterSelection()) == true
    assert Full().size(counts, ParameterSelection()) == sum(counts.values())


def test_the_pocket_cascade_takes_less_than_two_percent():
    """By the shapes in the files' headers: rank 4 against every weight in float32."""
    from unitune.models import parameters as files

    pocket = Path(backend.__file__).parent.parent / "assets/pocket"
    sizes = files.sizes(Model("pocket", ("base", "sr256"), path=str(pocket)))
    method = UniTune(
        {stage: Tuning(lr=1e-3, snapshots=(), adapter=Lora(rank=4)) for stage in sizes}
    )
    kept, _ = make.room(method.recipe(EXAMPLE), sizes, at=None)
    assert 0 < kept < 0.02 * 4 * sum(sum(counts.values()) for counts in sizes.values())


def test_freezing_holds_for_adapters_too(cascades: dict[str, backend.Cascade]):
    network = cascades["floyd"].stage("base").network
    with LORA.attached(network, ParameterSelection(freeze=("down_blocks.*",))) as parameters:
        assert parameters and not any(name.startswith("down_blocks.") for name in parameters)
    with (
        pytest.raises(Refused, match=r"nothing is left to adapt.*freeze="),
        LORA.attached(network, ParameterSelection(train=("*norm*",))),
    ):
        pass


@pytest.mark.parametrize("targets", [("*attn3*",), ("*attentions.*", "*to_kk")])
def test_a_target_without_a_match_is_refused_with_near_names(
    cascades: dict[str, backend.Cascade], targets: tuple[str, ...]
):
    lora, network = Lora(targets=targets), cascades["floyd"].stage("base").network
    said = (
        r"adapter.targets pattern '\*(attn3\*|to_kk)' matches none of the \d+ layers; "
        r"names look like .*(attentions|to_k)"
    )
    with pytest.raises(Refused, match=said), lora.attached(network, ParameterSelection()):
        pass
    with pytest.raises(Refused, match="matches none of"):
        lora.size({name: p.numel() for name, p in network.named_parameters()}, ParameterSelection())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 1.5}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"targets": ()}, "targets"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, message: str):
    with pytest.raises(Refused, match=f"adapter.{message}"):
        Lora(**wrong)


def test_weights_of_another_model_are_refused(cascades: dict[str, backend.Cascade]):
    with pytest.raises(Refused, match=r"'other\.to_q', which this network lacks"):
        LORA.merged(
            {"other.to_q.lora_A": torch.ones(2, 4), "other.to_q.lora_B": torch.ones(4, 2)},
            cascades["floyd"].stage("base").network,
        )
