"""Folders as people have them: run as the libraries would run them, or refused in one line.

The line names the part, key or tensor, and comes before anything is loaded.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile import SMALL, Payload
from safetensors.torch import load_file, save_file
from test_real_models import CONFIGS

from unitune.cli import doctor
from unitune.models import files, structure, tiny
from unitune.models.families import config_keys
from unitune.models.files import Model
from unitune.models.libraries import CLIPTokenizer, T5EncoderModel, UNet2DConditionModel
from unitune.types import Refused

UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
TEXT, T5 = "text_encoder/model", "base/text_encoder/model"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("folders")
    return {"sd": tiny.sd15(folder / "sd"), "if": tiny.floyd(folder / "if")}


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(made[name], tmp_path / f"my {name}"))


def model(folder: Path, variant: str = "") -> Model:
    if (folder / "base").is_dir():
        return Model("x", ("base", "sr256"), path=str(folder), variant=variant)
    return Model("x", ("base",), "stable_diffusion", str(folder), variant=variant)


def fault(folder: Path) -> str:
    with pytest.raises(Refused) as error:
        files.check(model(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def rewritten(file: str, change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / f"{file}.safetensors"
        save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path)

    return harm


def config(file: str, **keys: object) -> Callable[[Path], None]:
    """Set keys of a file of settings; ... takes one away."""

    def harm(folder: Path) -> None:
        held = json.loads((folder / file).read_text()) | keys
        left = {key: value for key, value in held.items() if value is not ...}
        (folder / file).write_text(json.dumps(left))

    return harm


def adapted(of: str) -> Callable[[Tensors], Tensors]:
    """As peft saves a network whose adapter was not merged."""

    def change(held: Tensors) -> Tensors:
        new: Tensors = {}
        for name, tensor in held.items():
            stem, _, kind = name.rpartition(".")
            wrapped = of in name and tensor.ndim < 3
            new[f"{stem}.base_layer.{kind}" if wrapped else name] = tensor
            if wrapped and kind == "weight":
                new[f"{stem}.lora_A.default_0.weight"] = torch.zeros(2, tensor.shape[1])
                new[f"{stem}.lora_B.default_0.weight"] = torch.zeros(tensor.shape[0], 2)
        return new

    return change


def only_an_adapter(folder: Path) -> None:
    (folder / f"{UNET}.safetensors").rename(folder / "unet/pytorch_lora_weights.safetensors")


def beside(file: str, text: str = "{}") -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda held: {name: tensor for name, tensor in held.items() if part not in name}


def under(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda held: {prefix + name: tensor for name, tensor in held.items()}


def stripped(held: Tensors) -> Tensors:
    return {name.removeprefix("encoder."): tensor for name, tensor in held.items()}


def with_a_learned_word(folder: Path) -> None:
    """A tokenizer to which textual inversion added a word that is saved elsewhere."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<cat-toy>"])
    tokenizer.save_pretrained(folder / "tokenizer")


NET, PLAN = "unet/config.json", "scheduler/scheduler_config.json"
REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "adapter in the UNet": ("sd", rewritten(UNET, adapted("attn")), "unet: an adapter was left"),
    "adapter in CLIP": ("sd", rewritten(TEXT, adapted("_proj")), "text_encoder: an adapter was"),
    "adapter in T5": ("if", rewritten(T5, adapted("SelfAttention.q")), "base/text_encoder: an ad"),
    "adapter alone": ("sd", only_an_adapter, "those of an adapter (pytorch_lora_weights.safet"),
    "adapter beside": ("sd", beside("text_encoder/adapter_config.json"), "an adapter beside its"),
    "UNet in part": ("sd", rewritten(UNET, without("mid_block")), "unet: the weights lack mid_b"),
    "VAE in part": ("sd", rewritten(VAE, without("decoder.mid")), "vae: the weights lack decoder"),
    "T5 in part": ("if", rewritten(T5, without("SelfAttention.q")), "weights lack encoder.block"),
    "no token table": ("if", rewritten(T5, without("shared")), "lack encoder.embed_tokens.weight"),
    "CLIP prefix": ("sd", rewritten(TEXT, under("clip.")), "under the foreign prefix 'clip.'"),
    "T5 prefix": ("if", rewritten(T5, under("t5.")), "under the foreign prefix 't5.'"),
    "T5 no prefix": ("if", rewritten(T5, stripped), "tensors lack the prefix 'encoder.'"),
    "UNet prefix": ("sd", rewritten(UNET, under("unet.")), "under the foreign prefix 'unet.'"),
    "more tensors": ("sd", rewritten(VAE, lambda t: {**t, "loss.w": torch.ones(1)}), "loss.w"),
    "other shape": ("sd", config(NET, cross_attention_dim=32, norm_num_groups=2,
                                 block_out_channels=[8, 32]), "do not fit its config.json at"),
    "no such block": ("sd", config(NET, up_block_types=["Up", "Up"]), "does not describe"),
    "TAESD": ("sd", config("vae/config.json", _class_name="AutoencoderTiny"), "AutoencoderTiny"),
    "VAE shift": ("sd", config("vae/config.json", shift_factor=0.1), "shift_factor: 0.1"),
    "SDXL": ("sd", config(NET, addition_embed_type="text_time"), "addition_embed_type: 'text_t"),
    "LCM": ("sd", config(NET, time_cond_proj_dim=256), "time_cond_proj_dim: 256"),
    "unCLIP": ("sd", config(NET, class_embed_type="projection"), "class_embed_type: 'projection'"),
    "upscaler": ("sd", config(NET, num_class_embeds=1000), "num_class_embeds: 1000"),
    "IP-Adapter": ("sd", config(NET, encoder_hid_dim_type="ip_image_proj"), "'ip_image_proj'"),
    "inpainting": ("sd", config(NET, in_channels=9), "in_channels: 9, not 4"),
    "IF-II's label": ("if", config(f"sr256/{NET}", class_embed_type=None), "'timestep' is expec"),
    "IF-II as IF-I": ("if", config(f"base/{NET}", in_channels=6), "in_channels: 6, not 3"),
    "wide texts": ("sd", config(NET, cross_attention_dim=64), "cross_attention_dim: 64, the wid"),
    "wide T5": ("if", config(f"sr256/{NET}", encoder_hid_dim=64), "encoder_hid_dim: 64, the wid"),
    "no side": ("sd", config(NET, sample_size=None), "sets sample_size: None; it must be"),
    "side left out": ("sd", config(NET, sample_size=...), "has no sample_size; it must be"),
    "sides": ("sd", config(NET, sample_size=[16, 16]), "sets sample_size: [16, 16]; it must be"),
    "EDM": ("sd", config(PLAN, _class_name="EDMEulerScheduler"), "names EDMEulerScheduler"),
    "flow": ("sd", config(PLAN, _class_name="FlowMatchEulerDiscreteScheduler"), "names FlowMatch"),
    "sample": ("sd", config(PLAN, prediction_type="sample"), "prediction_type: 'sample'"),
    "zero SNR": ("sd", config(PLAN, rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
    "loss": ("sd", beside("loss.json", '{"version": 1, "tuning": {"x": 1}}'), "loss.json"),
    "a word too many": ("sd", with_a_learned_word, "pieces, but"),
    "tokenizer cut": ("sd", beside("tokenizer/tokenizer.json", "{"), "tokenizer cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_run_as_it_is_meant_is_one_line(copy: Callable[[str], Path], case: str):
    name, harm, said = REFUSED[case]
    folder = copy(name)
    harm(folder)
    line = fault(folder)
    assert any(one in line for one in said.split("|")) and str(folder) in line, line


def test_a_run_and_the_doctor_say_the_same(refused, copy: Callable[[str], Path]):
    folder = copy("sd")
    rewritten(TEXT, adapted("_proj"))(folder)
    small = [one for one in SMALL if not one.startswith(("method", "sampler.sr"))]
    chosen = ["model=sd15", f"model.path='{folder}'", "stage=base", "edit=a dog"]
    line = refused(*chosen, *small).removeprefix("unitune: ")
    assert "text_encoder: an adapter was left" in line
    described = {"family": "stable_diffusion", "name": "sd15", "stages": ["base"]}
    with pytest.raises(Refused) as asked:
        doctor.model({"model": {**described, "path": str(folder)}})
    assert str(asked.value) == line


def test_nothing_is_loaded_that_would_stay_random(copy: Callable[[str], Path]):
    """Also where nobody looked before: the libraries would have filled the rest at random."""
    folder = copy("if")
    rewritten(T5, stripped)(folder)
    rewritten(f"sr256/{UNET}", without("conv_out"))(folder)
    with pytest.raises(Refused, match=r"lack the prefix 'encoder\.'"):
        structure.load(T5EncoderModel, folder / "base/text_encoder")
    with pytest.raises(Refused, match=r"the weights lack conv_out\.bias"):
        structure.load(UNet2DConditionModel, folder / "sr256/unet")


def test_a_pickle_with_code_in_it_is_not_run(copy: Callable[[str], Path], here: Path):
    folder = copy("sd")
    (folder / f"{UNET}.safetensors").unlink()
    (folder / f"{UNET}.bin").write_bytes(pickle.dumps({"conv_in.weight": Payload()}))
    assert "which cannot be read as tensors alone" in fault(folder)
    torch.save({"conv_in.weight": Payload()}, folder / f"{UNET}.bin")
    os.utime(folder / f"{UNET}.bin", (0, 0))
    assert "which cannot be read as tensors alone" in fault(folder)
    assert not (here / "hacked").exists()


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the real models' config files are not here")
def test_published_settings_are_accepted_and_other_families_refused_by_key():
    found = {}
    for name in sorted(folder.name for folder in CONFIGS.iterdir() if (folder / "unet").is_dir()):
        label = "timestep" if name.startswith("IF-II") else None
        lines = [*config_keys.unet(CONFIGS / name / "unet", labels=label)]
        if (CONFIGS / name / "text_encoder").is_dir():
            kind = "t5" if name.startswith("IF") else "clip_text_model"
            unet, encoder = CONFIGS / name / "unet", CONFIGS / name / "text_encoder"
            lines += config_keys.text(unet, encoder, [kind])
        found[name] = lines[0].partition(" sets ")[2].partition(":")[0] if lines else ""
    assert {key for key in found.values() if key} == {"addition_embed_type", "num_class_embeds"}
    assert [found[name] for name in found if name.startswith("IF")] == [""] * 6
    assert not any(found[f"stable-diffusion-{one}"] for one in ("v1-5", "2-1", "2-1-base"))
