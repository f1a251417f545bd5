"""Networks beside the model that are read from folders: all their weights are there, or one line.

CLIPSeg finds masks, DINO, CLIP and the judge score; none of them runs in part on random weights.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTModel

from unitune.metrics.clip import load_clip
from unitune.metrics.judge import load_judge
from unitune.metrics.structure import load as load_vit
from unitune.models import clipseg, pocket, tiny
from unitune.types import Refused

Tensors = dict[str, torch.Tensor]


def rewrite(file: Path, change: Callable[[str], str]) -> None:
    """Give each tensor another name; "" leaves it out."""
    held = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in held.items() if name}, file)


def without(part: str) -> Callable[[str], str]:
    return lambda name: "" if part in name else name


HARM: dict[str, tuple[Callable[[str], str], str]] = {
    "in part": (without("layers.0.self_attn.k_proj"), "the weights lack "),
    "foreign prefix": (lambda name: f"module.{name}", "under the foreign prefix 'module.'"),
    "adapter": (
        lambda name: name.replace("q_proj.", "q_proj.base_layer."),
        "an adapter was left in the weights",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_clipseg(tmp_path: Path, harm: str):
    folder = tiny.clipseg(tmp_path / "clipseg")
    change, said = HARM[harm]
    assert clipseg.load(str(folder))[1].training is False
    rewrite(folder / "model.safetensors", change)
    clipseg.load.cache_clear()
    with pytest.raises(Refused) as refused:
        clipseg.load(str(folder))
    line = str(refused.value)
    assert said in line and "no CLIPSeg can be read" in line and "\n" not in line


def test_clipseg_of_torchs_own_format(tmp_path: Path):
    folder = tiny.clipseg(tmp_path / "clipseg")
    plain = clipseg.load(str(folder))[1].state_dict()
    file = folder / "model.safetensors"
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()
    clipseg.load.cache_clear()
    found = clipseg.load(str(folder))[1].state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def vit(folder: Path, *, pooled: bool) -> Path:
    shape = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(shape, add_pooling_layer=pooled).save_pretrained(folder)
    return folder


def test_dino(tmp_path: Path):
    """A layer that pools, which no score reads, may be there or not."""
    assert load_vit(str(vit(tmp_path / "pooled", pooled=True)))
    folder = vit(tmp_path / "plain", pooled=False)
    file = folder / "model.safetensors"
    assert load_vit(str(folder))
    whole = load_file(file)
    first = sorted(whole)[0]
    for held, said in (
        (whole | {"extra.weight": torch.ones(1)}, "hold extra.weight, for which ViTModel has"),
        ({name: whole[name] for name in sorted(whole)[1:]}, f"the weights lack {first}"),
        (whole | {first: torch.ones(3)}, f"do not fit its config.json at {first}"),
    ):
        save_file(held, file, metadata={"format": "pt"})
        load_vit.cache_clear()
        with pytest.raises(Refused) as refused:
            load_vit(str(folder))
        assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "file", "load"),
    [("clip", "open_clip_model", load_clip), ("judge", "model", load_judge)],
)
def test_the_embedded_clip_and_judge(tmp_path: Path, name: str, file: str, load: Callable):
    folder = Path(shutil.copytree(pocket.FOLDER / name, tmp_path / name))
    assert load(folder)
    weights = folder / f"{file}.safetensors"
    first = sorted(load_file(weights))[0]
    rewrite(weights, without(first))
    with pytest.raises(Refused, match=rf"{file}\.safetensors does not hold the weights of its"):
        load(folder)
