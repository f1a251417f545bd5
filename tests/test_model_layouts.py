"""Layouts in which models are spread: each gives the networks and texts of the plain folder."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from unitune.models import cascade as backend
from unitune.models import files, tiny
from unitune.models.cascade import Cascade
from unitune.models.files import Model
from unitune.types import Refused

TEXT = ["a dog in the snow", "two cats, at night"]
UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
ENCODER, PICKLED = "text_encoder/model", "text_encoder/pytorch_model"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sd15(tmp_path_factory.mktemp("layouts") / "sd")


@pytest.fixture(scope="module")
def loaded(plain: Path) -> Cascade:
    return build(plain)


def build(folder: Path, variant: str = "") -> Cascade:
    model = Model("x", ("base",), "stable_diffusion", str(folder), variant=variant)
    if (folder / "base").is_dir():
        model = Model("x", ("base", "sr256"), path=str(folder))
    files.check(model)
    return backend.build(model, device=torch.device("cpu"), dtype=torch.float32)


def halved(folder: Path) -> None:
    """As a download of the variant fp16: no plain file is there."""
    for name in (UNET, VAE, ENCODER):
        file = folder / f"{name}.safetensors"
        half = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(half, folder / f"{name}.fp16.safetensors", metadata={"format": "pt"})
        file.unlink()


def pickled(folder: Path) -> None:
    for name, other in ((UNET, UNET), (VAE, VAE), (ENCODER, PICKLED)):
        file = folder / f"{name}.safetensors"
        torch.save(load_file(file), folder / f"{other}.bin")
        file.unlink()


def sharded(name: str, mark: str = "") -> Callable[[Path], None]:
    def spread(folder: Path) -> None:
        file = folder / f"{name}.safetensors"
        held, where = load_file(file), {}
        for k, keys in enumerate((sorted(held)[:5], sorted(held)[5:]), 1):
            shard = file.with_name(f"{file.stem}{mark}-{k:05}-of-00002.safetensors")
            save_file({key: held[key] for key in keys}, shard, metadata={"format": "pt"})
            where |= dict.fromkeys(keys, shard.name)
        index = file.with_name(f"{file.name}.index{mark}.json")
        index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
        file.unlink()

    return spread


def slow_tokenizer(folder: Path) -> None:
    """Vocabulary and merges apart, as Stable Diffusion 1.5 has them."""
    file = folder / "tokenizer/tokenizer.json"
    held = json.loads(file.read_text())["model"]
    file.with_name("vocab.json").write_text(json.dumps(held["vocab"]))
    file.with_name("merges.txt").write_text("#version: 0.2\n")
    file.unlink()


def without_tokenizer_config(folder: Path) -> None:
    (folder / "tokenizer/tokenizer_config.json").unlink()


def bare_slow_tokenizer(folder: Path) -> None:
    slow_tokenizer(folder)
    without_tokenizer_config(folder)


def old_names(folder: Path) -> None:
    """The VAE's attention as it was named at first, CLIP below text_model with its positions."""
    file = folder / f"{VAE}.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    held = {}
    for name, tensor in load_file(file).items():
        for now, then in new.items():
            name = name.replace(f"attentions.0.{now}", f"attentions.0.{then}")
        held[name] = tensor
    assert any("proj_attn" in name for name in held)
    save_file(held, file)
    file = folder / f"{ENCODER}.safetensors"
    under = {
        f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(file).items()
    }
    under["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(under, file, metadata={"format": "pt"})


def tokenizer_settings(text: str) -> Callable[[Path], object]:
    """Settings of a tokenizer that name no class, as older libraries wrote them."""
    return lambda folder: (folder / "tokenizer/tokenizer_config.json").write_text(text)


def whole(**more: torch.Tensor) -> Callable[[Path], None]:
    """The encoder within the larger model that it is a part of: nothing of it is missing."""

    def put(folder: Path) -> None:
        file = folder / f"{ENCODER}.safetensors"
        added = {name.replace("__", "."): one.clone() for name, one in more.items()}
        save_file(load_file(file) | added, file, metadata={"format": "pt"})

    return put


ONE = torch.ones(2, 2)


def sidecars(folder: Path) -> None:
    """What a Mac and a hurried person leave behind."""
    (folder / f"unet/._{Path(UNET).name}.safetensors").write_bytes(b"\0\5\x16\7" * 20)
    shutil.copy(folder / f"{UNET}.safetensors", folder / "unet/model.safetensors")


LAYOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "fp16 alone": (halved, "fp16"),
    "pickles": (pickled, ""),
    "shards": (sharded(UNET), ""),
    "shards of the encoder": (sharded(ENCODER), ""),
    "shards of a variant": (sharded(UNET, ".fp16"), "fp16"),
    "slow tokenizer": (slow_tokenizer, ""),
    "no tokenizer_config": (without_tokenizer_config, ""),
    "slow, no tokenizer_config": (bare_slow_tokenizer, ""),
    "old names": (old_names, ""),
    "sidecars": (sidecars, ""),
    "tokenizer without settings": (tokenizer_settings("{}"), ""),
    "tokenizer without class": (tokenizer_settings('{"model_max_length": 77}'), ""),
    "tokenizer of class null": (tokenizer_settings('{"tokenizer_class": null}'), ""),
    "CLIP with a projection": (whole(text_projection__weight=ONE), ""),
    "CLIP with pictures": (
        whole(vision_model__a__weight=ONE, visual_projection__weight=ONE, logit_scale=ONE[0, 0]),
        "",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_plain_folders_model(
    plain: Path, loaded: Cascade, tmp_path: Path, layout: str
):
    spread, variant = LAYOUTS[layout]
    folder = Path(shutil.copytree(plain, tmp_path / "sd"))
    spread(folder)
    found, close = build(folder, variant), 2e-3 if layout == "fp16 alone" else 0.0
    torch.testing.assert_close(found.encode(TEXT), loaded.encode(TEXT), rtol=close, atol=close)
    for one, other in zip(networks(found), networks(loaded), strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], rtol=close, atol=close)


def networks(cascade: Cascade) -> list[dict[str, torch.Tensor]]:
    stage = cascade.stages[0]
    codec = getattr(stage.codec, "network", None)
    return [network.state_dict() for network in (stage.network, codec) if network is not None]


def test_other_weights_or_pieces_are_another_model(plain: Path, tmp_path: Path):
    """Whatever file they lie in: tunings of one must not be found for the other."""
    folder = Path(shutil.copytree(plain, tmp_path / "sd"))
    pickled(folder)
    bare_slow_tokenizer(folder)
    before = [backend.files_digest([folder])]
    held = torch.load(folder / f"{UNET}.bin", weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in held.items()}, folder / f"{UNET}.bin")
    before.append(backend.files_digest([folder]))
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\nc a\n")
    before.append(backend.files_digest([folder]))
    (folder / "tokenizer/spiece.model").write_bytes(b"x")
    before.append(backend.files_digest([folder]))
    assert len({*before}) == 4


def test_a_whole_t5_is_its_encoder(tmp_path: Path):
    """With its decoder and head; an adapter of the head is still refused."""
    folder = tiny.floyd(tmp_path / "if")
    plain = build(folder).encode(TEXT)
    whole(lm_head__weight=ONE, decoder__block__0__weight=ONE)(folder / "base")
    assert torch.equal(build(folder).encode(TEXT), plain)
    whole(lm_head__lora_A__weight=ONE)(folder / "base")
    with pytest.raises(Refused, match=r"an adapter was left in the weights \(lm_head\.lora_A"):
        build(folder)


def test_a_sentencepiece_file_alone_is_a_tokenizer(tmp_path: Path):
    """As in many copies of T5; the package sentencepiece reads it."""
    folder = tiny.floyd(tmp_path / "if")
    tokenizer, written = folder / "base/tokenizer", io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a dog in the snow", "two cats at night"] * 20),
        model_writer=written, vocab_size=20, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    (tokenizer / "spiece.model").write_bytes(written.getvalue())
    (tokenizer / "tokenizer.json").unlink()
    cascade = build(folder)
    pieces = cascade.tokenize("a dog")
    assert "".join(pieces).replace("\u2581", " ").strip() == "a dog" and len(pieces) > 1
    theirs = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ids = cascade.text_encoder.tokenizer("a dog in the snow").input_ids
    assert ids == [*theirs.encode("a dog in the snow"), 1]
