"""Tuned weights as they are stored: small, and the pictures are those of the tuned weights."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.methods.unitune import UniTune
from unitune.models import cascade as backend
from unitune.storage import compression
from unitune.storage.compression import compressed, restored
from unitune.storage.store import Store
from unitune.tuning import make, work
from unitune.tuning.adapters import Full, Lora
from unitune.tuning.finetune import fit, snapshot_file
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Draw, Example, Request, Tuned

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.rand(1, 3, 32, 32, generator=GENERATOR) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
TUNING = Tuning(lr=3e-3, steps=4, batch_size=2)
STAGES = {"base": TUNING, "sr256": replace(TUNING, crop=16)}
METHOD = UniTune(STAGES)
SAMPLER = Sampler("quick", steps=4, guidance=Guidance(4.0), sr=SuperResolution(steps=2))


def size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=GENERATOR)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e30])
@pytest.mark.parametrize(
    ("shape", "kind"),
    [((64, 32, 3, 3), torch.int8), ((64, 128), torch.int8), ((64,), torch.half)],
)
def test_a_change_of_any_size_is_stored_to_the_stated_error(shape, kind, scale):
    base, change = normal(*shape), normal(*shape, scale=scale)
    stored = compressed({"w": change}, {})
    assert stored["change:w"].dtype == kind
    found = restored(stored, {})["w"]
    assert found.dtype == torch.float32
    assert (found - change).double().norm() <= compression.ERROR * change.double().norm()
    tuned = base + change
    change = tuned - base  # as float32 can tell
    again = restored(compressed({"w": tuned}, {"w": base}), {"w": base})["w"]
    digits = torch.finfo(torch.float32).eps * base.double().norm()
    error = compression.ERROR * change.double().norm()
    assert (again - tuned).double().norm() <= error + 2 * digits


def test_a_matrix_takes_a_byte_a_number_and_one_with_a_rare_large_change_two():
    even = normal(64, 1024)
    spiked = 1e-3 * even
    spiked[:, 0] = 1.0
    assert size(compressed({"w": even}, {})) == 64 * 1024 + 4 * 64
    stored = compressed({"w": spiked}, {})
    assert size(stored) == 2 * 64 * 1024 + 4
    assert (restored(stored, {})["w"] - spiked).norm() < 1e-3 * spiked.norm()


@pytest.mark.parametrize("scale", [1e-42, 1e-25, 1e20, 1e37])
def test_the_error_is_that_of_the_change_however_large_or_small(scale):
    """A rare large change needs more than 8 bits, which squares beyond float32 would hide."""
    spiked = 1e-3 * torch.ones(64, 1024)
    spiked[:, 0] = 1.0
    change = scale * spiked
    found = restored(compressed({"w": change}, {}), {})["w"]
    assert (found - change).double().norm() < 1e-3 * change.double().norm()


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3)])
def test_a_tensor_without_numbers_comes_back(shape):
    empty = {"w": torch.zeros(shape)}
    for base in ({}, empty):
        found = restored(compressed(empty, base), base)["w"]
        assert found.shape == shape and found.dtype == torch.float32


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(), (4,), (4, 4)])
def test_what_is_not_finite_is_not_stored(value, shape):
    with pytest.raises(ValueError, match="the change of w is not finite"):
        compressed({"w": torch.full(shape, value)}, {})


def test_what_did_not_move_comes_back_bitwise():
    base = {"w": normal(8, 16), "b": normal(8)}
    assert all(torch.equal(restored(compressed(base, base), base)[n], base[n]) for n in base)
    half_still = base["w"].clone()
    half_still[:4] += 1
    found = restored(compressed({"w": half_still}, base), base)["w"]
    assert torch.equal(found[4:], base["w"][4:])


@pytest.fixture(scope="module")
def exact(cascade: backend.Cascade, tmp_path_factory) -> Tuned:
    """The weights of both stages as they were tuned, uncompressed."""
    folder, weights = tmp_path_factory.mktemp("exact"), {}
    for name, tuning in STAGES.items():
        text = cascade.encode(["beikkpic"])
        fit(work.OneImage(cascade.stage(name), EXAMPLE, text, 0, tuning), folder=folder)
        weights[name] = load_file(snapshot_file(folder, name, tuning.steps))
    return Tuned("beikkpic", weights)


def sampled(cascade: backend.Cascade, tuned: Tuned) -> dict[str, torch.Tensor]:
    draws = [Draw(EXAMPLE.requests[0], seed) for seed in range(3)]
    with cascade.using(tuned):
        edits = SAMPLER(cascade, EXAMPLE, tuned=tuned, draws=draws)
    pictures = {name: torch.cat([edit.stages[name] for edit in edits]) for name in STAGES}
    return {name: picture.clamp(-1, 1) for name, picture in pictures.items()}


def db(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max(1e-12, float(((a - b) / 2).square().mean())))


def test_pictures_of_stored_weights_are_those_of_the_tuned_ones(cascade, tmp_store, exact):
    """Of each stage, to 50 dB and more; the untuned weights give others."""
    recipe = METHOD.recipe(EXAMPLE)
    stored = make.prepare(recipe, cascade, EXAMPLE, store=tmp_store)
    wanted, found = sampled(cascade, exact), sampled(cascade, stored)
    untuned = sampled(cascade, Tuned("beikkpic"))
    for name in STAGES:
        assert db(found[name], wanted[name]) > 50 > 35 > db(untuned[name], wanted[name])
    again = make.prepare(recipe, cascade, EXAMPLE, store=Store(tmp_store.path))
    assert all(torch.equal(picture, found[n]) for n, picture in sampled(cascade, again).items())


def test_an_entry_holds_the_last_step_in_about_a_byte_a_number(cascade, tmp_store):
    tuned = make.prepare(METHOD.recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store)
    for name, entry in tuned.stored.items():
        (file,) = (tmp_store.path / entry).glob("*.safetensors")
        assert file.name == f"{name}-4.safetensors"
        numbers = sum(p.numel() for p in cascade.stage(name).network.parameters())
        assert numbers < size(load_file(file)) < 1.4 * numbers, "a tiny network has many vectors"
    assert not list((tmp_store.path / ".work").iterdir()), "nothing of the optimiser stays"


def test_snapshots_are_kept_where_they_are_asked_for(cascade, tmp_store):
    method = UniTune({"base": replace(TUNING, snapshots=(2,))}, stages=("base",))
    tuned = make.prepare(method.recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store, at=2)
    kept = sorted(file.name for file in tmp_store.path.glob("tuned-*/*.safetensors"))
    assert kept == ["base-2.safetensors", "base-4.safetensors"] and tuned.steps == 2


@pytest.mark.parametrize(
    "select",
    [
        ParameterSelection(),
        ParameterSelection(train=["conv_in.*"]),
        ParameterSelection(train=["*norm*"], freeze=["down_blocks.*"]),
    ],
    ids=["all", "one layer", "norms"],
)
def test_of_the_untouched_weights_those_are_read_that_were_tuned(cascade, tmp_store, select):
    network = cascade.stage("base").network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    base = Full().base(network, select)
    assert sorted(base) == sorted(select.chosen(list(before)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.items())
    assert Lora().base(network, select) == {}
    method = UniTune({"base": replace(TUNING, select=select)}, stages=("base",))
    tuned = make.prepare(method.recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store)
    found = tuned.weights["base"]
    assert sorted(found) == sorted(base)


def test_an_adapter_is_stored_in_a_byte_a_number_too(cascade, tmp_store):
    lora = UniTune({"base": replace(TUNING, lr=1e-2, adapter=Lora(2))}, stages=("base",))
    tuned = make.prepare(lora.recipe(EXAMPLE), cascade, EXAMPLE, store=tmp_store)
    (file,) = tmp_store.path.glob("tuned-*/*.safetensors")
    stored = load_file(file)
    trained = restored(stored, {})
    assert size(stored) < 2 * sum(tensor.numel() for tensor in trained.values())
    assert all(name.endswith(("lora_A", "lora_B")) for name in trained) and tuned.weights["base"]
