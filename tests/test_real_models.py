"""What large models need, and the keys of the tiny folders.

Encoders are freed, weights lie in half precision with float32 copies of what is tuned, gradients
are checkpointed.
"""

import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import T5EncoderModel

from unitune.diffusion.stage import Condition
from unitune.models import cascade as backend
from unitune.models import tiny
from unitune.models.cascade import Cascade, weights_digest
from unitune.models.files import Model
from unitune.storage.store import Store
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import fit, snapshot_file
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Example, Request, Tuned

CPU = torch.device("cpu")
IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
EXAMPLE = Example("one", IMAGE, (Request("a dog"),))
CONFIGS = Path(
    os.environ.get("UNITUNE_MODEL_CONFIGS")
    or Path(__file__).parent.parent.parent / "shared/data/model-configs"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.floyd(tmp_path_factory.mktemp("real") / "tiny")


def build(
    folder: Path, *, dtype: torch.dtype = torch.float32, store: Store | None = None, **more
) -> Cascade:
    return backend.build(
        Model("tiny", ("base", "sr256"), path=str(folder), **more),
        device=CPU,
        dtype=dtype,
        store=store,
    )


def gradients(cascade: Cascade, stage: str) -> dict[str, torch.Tensor]:
    tuning = Tuning(lr=1e-6, batch_size=2)
    data = OneImage(cascade.stage(stage), EXAMPLE, cascade.encode(["beikkpic"]), 0, tuning)
    batch, network = data.batch(0), cascade.stage(stage).network
    network.requires_grad_(True)
    torch.nn.functional.mse_loss(
        cascade.stage(stage).output(batch.x_t, batch.t, batch.condition), batch.target
    ).backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    network.requires_grad_(False)
    return found


@pytest.mark.parametrize("stage", ["base", "sr256"])
def test_gradient_checkpointing_changes_no_gradient(
    folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch
):
    plain = gradients(build(folder), stage)
    recomputed: list[int] = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint,
        "checkpoint",
        lambda *args, **more: recomputed.append(1) or real(*args, **more),
    )
    checkpointed = build(folder, gradient_checkpointing=True)
    found = gradients(checkpointed, stage)
    assert (
        len(recomputed) > 2
        and set(found) == set(plain)
        and any(g.abs().max() > 1e-4 for g in plain.values())
    )
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    recomputed.clear()
    checkpointed.stages[0].predict(
        torch.zeros(1, 3, 16, 16), torch.tensor([5]), Condition(checkpointed.encode([""]))
    )
    assert not recomputed


def test_an_encoder_that_is_not_kept_is_freed_and_its_texts_stay(
    folder: Path, tmp_store: Store, monkeypatch: pytest.MonkeyPatch
):
    reads: list[Path] = []
    real = T5EncoderModel.from_pretrained
    monkeypatch.setattr(
        T5EncoderModel,
        "from_pretrained",
        # None: the class is asked for its shape, before anything is read.
        lambda path, **more: (path and reads.append(path)) or real(path, **more),
    )
    texts = ["a dog", "", "beikkpic"]
    kept = build(folder).encode(texts)
    assert len(reads) == 1
    lazy = build(folder, store=tmp_store, keep_text_encoder=False)
    assert len(reads) == 1 and lazy.tokenize("a dog")
    assert torch.equal(lazy.encode(texts), kept) and len(reads) == 2
    encoder = lazy.encoder.__self__
    assert encoder._network is None
    again = build(folder, store=tmp_store, keep_text_encoder=False)
    assert (
        torch.equal(again.encode([" A Dog", ""]), kept[:2]) and len(reads) == 2
    )  # as the encoder is asked: lower case, no outer spaces
    other = build(
        tiny.floyd(tmp_store.path.parent / "other", seed=1),
        store=tmp_store,
        keep_text_encoder=False,
    )
    assert not torch.equal(other.encode(texts), kept) and len(reads) == 3
    assert len(list(tmp_store.path.glob("embedding-*"))) == 6


def test_half_stored_weights_tune_in_float32(folder: Path, tmp_path: Path):
    """Matrices lie in bf16, vectors and whatever is tuned in float32.

    A small step survives, and the stored weights are untouched.
    """
    half, whole = (
        build(folder, dtype=torch.bfloat16, weights="machine"),
        build(folder, dtype=torch.bfloat16),
    )
    stage = half.stages[0]
    assert {(p.ndim > 1, p.dtype) for p in stage.network.parameters()} == {
        (True, torch.bfloat16),
        (False, torch.float32),
    }
    assert stage.arithmetic != whole.stages[0].arithmetic == str(torch.bfloat16)
    before = weights_digest(stage.network)
    select = ParameterSelection(train=("mid_block.*",))
    tuning = Tuning(lr=1e-6, steps=2, batch_size=2, snapshots=(), select=select)
    fit(OneImage(stage, EXAMPLE, half.encode(["beikkpic"]), 0, tuning), folder=tmp_path)
    assert weights_digest(stage.network) == before
    tuned = load_file(snapshot_file(tmp_path, "base", 2))
    base = dict(stage.network.named_parameters())
    moved = {name: (w - base[name].float()).abs().max() for name, w in tuned.items()}
    assert {w.dtype for w in tuned.values()} == {torch.float32} and all(
        0 < m < 1e-5 for m in moved.values()
    )
    with half.using(Tuned(weights={"base": tuned})):
        assert all(
            dict(stage.network.named_parameters())[name].dtype == torch.float32 for name in tuned
        )
        out = stage.predict(
            torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
            torch.tensor([500]),
            Condition(half.encode([""])),
        )
    assert bool(out.isfinite().all()) and weights_digest(stage.network) == before


NEWER = {
    "addition_time_embed_dim",
    "num_attention_heads",
    "transformer_layers_per_block",
}  # of diffusers, in some files of the hub
SIZES = {
    "block_out_channels", "cross_attention_dim", "attention_head_dim",
    "addition_embed_type_num_heads", "encoder_hid_dim", "layers_per_block", "norm_num_groups",
    "down_block_types", "up_block_types", "sample_size", "time_embedding_dim", "hidden_size",
    "intermediate_size", "num_attention_heads", "num_hidden_layers", "projection_dim", "vocab_size",
}  # fmt: skip
UNNAMED = {"architectures", "model_type", "torch_dtype", "transformers_version"}
TINY: list[tuple[str, Mapping[str, object]]] = [
    ("IF-I-XL/unet", tiny.IF_I),
    ("IF-I-M/unet", tiny.IF_I),
    ("IF-II-L/unet", tiny.IF_II | {"only_cross_attention": False}),
    ("IF-II-M/unet", tiny.IF_II),
    ("stable-diffusion-v1-5/unet", tiny.SD_15),
    ("stable-diffusion-2-1/unet", tiny.SD_21 | {"upcast_attention": True}),
    ("stable-diffusion-2-1-base/unet", tiny.SD_21),
    ("stable-diffusion-v1-5/vae", tiny.VAE),
    ("stable-diffusion-2-1/vae", tiny.VAE),
    ("stable-diffusion-v1-5/text_encoder", tiny.CLIP),
    ("stable-diffusion-2-1/text_encoder", tiny.CLIP | {"hidden_act": "gelu"}),
]


@pytest.mark.skipif(
    not CONFIGS.is_dir(),
    reason="the real models' config files are not here (UNITUNE_MODEL_CONFIGS names their folder)",
)
@pytest.mark.parametrize(("name", "ours"), TINY, ids=[name for name, _ in TINY])
def test_tiny_folders_have_the_real_keys(name: str, ours: Mapping[str, object]):
    """Every key, and outside of sizes every value."""
    real = json.loads((CONFIGS / name / "config.json").read_text())
    keys = (
        {key for key in real if not key.startswith("_")}
        - UNNAMED
        - (NEWER if name.endswith("unet") else set())
    )
    assert keys - {"sample_size", "vocab_size"} == set(ours) - {"sample_size"}
    assert {key: real[key] for key in keys - SIZES} == {key: ours[key] for key in keys - SIZES}


@pytest.mark.skipif(
    not CONFIGS.is_dir(),
    reason="the real models' config files are not here (UNITUNE_MODEL_CONFIGS names their folder)",
)
def test_tiny_schedules_are_the_real_ones(tmp_path: Path):
    for name, folder in (
        ("stable-diffusion-v1-5", tiny.sd15(tmp_path / "a")),
        ("stable-diffusion-2-1", tiny.sd21(tmp_path / "b")),
    ):
        real, ours = (
            json.loads((root / "scheduler/scheduler_config.json").read_text())
            for root in (CONFIGS / name, folder)
        )
        assert {
            key: value
            for key, value in real.items()
            if key not in ("_diffusers_version", "clip_sample", "skip_prk_steps")
        }.items() <= ours.items()


@pytest.fixture(scope="module")
def if_on_cpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "if_on_cpu", Path(__file__).parent.parent / "experiments/bench/if_on_cpu.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stage", ["base", "sr256"])
def test_random_weights_of_a_shape_tune(folder: Path, if_on_cpu: ModuleType, stage: str):
    made = if_on_cpu.tune(
        json.loads((folder / stage / "unet/config.json").read_text()), batch_size=2
    )
    assert (
        made["parameters"] > 10_000
        and len(made["losses"]) == 2
        and all(math.isfinite(loss) for loss in made["losses"])
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not CONFIGS.is_dir(),
    reason="the real models' config files are not here (UNITUNE_MODEL_CONFIGS names their folder)",
)
def test_the_shape_of_if_i_m_tunes_on_a_processor(
    if_on_cpu: ModuleType, capsys: pytest.CaptureFixture[str]
):
    made = if_on_cpu.tune(json.loads((CONFIGS / "IF-I-M/unet/config.json").read_text()))
    with capsys.disabled():
        print(
            f"\nIF-I-M: {made['parameters']} parameters, 2 steps x batch 4 in "
            f"{made['seconds']:.1f} s, peak memory {made['peak_mib']:.0f} MiB"
        )
    assert made["parameters"] == 371_605_830 and all(math.isfinite(loss) for loss in made["losses"])


@pytest.mark.skipif(
    not CONFIGS.is_dir(),
    reason="the real models' config files are not here (UNITUNE_MODEL_CONFIGS names their folder)",
)
@pytest.mark.parametrize(
    ("name", "count"),
    [("IF-I-XL", 4_304_695_110), ("IF-I-M", 371_605_830), ("IF-II-L", 1_243_277_190)],
)
def test_the_real_shapes_are_stages(if_on_cpu: ModuleType, name: str, count: int):
    """Without memory for weights: every parameter exists, the network takes what a stage gives."""
    network = if_on_cpu.random_stage(
        json.loads((CONFIGS / name / "unet/config.json").read_text()), "meta"
    ).network
    side, channels = network.config.sample_size, network.config.in_channels
    x, text = (
        torch.zeros(1, channels, side, side, device="meta"),
        torch.zeros(1, 77, 4096, device="meta"),
    )
    with torch.no_grad():
        out = network(
            x,
            torch.zeros(1, device="meta"),
            text,
            class_labels=torch.zeros(1, device="meta") if channels == 6 else None,
        ).sample
    assert sum(p.numel() for p in network.parameters()) == count and out.shape == (1, 6, side, side)
