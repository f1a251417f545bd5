"""Bad input through the real command: one line, exit code 2, nothing written, no model loaded.

Every file is made here.
"""

import logging
import os
import pickle
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytest_socket
import torch
from hostile import BASE, SMALL, Payload, tiny_model
from PIL import Image

from unitune.models import cascade, parameters
from unitune.models import pocket as embedded
from unitune.models.files import Model
from unitune.storage import disk
from unitune.tuning.select import ParameterSelection
from unitune.types import Refused


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_model(tmp_path_factory.mktemp("hostile"))


def gradient(height: int = 40, width: int = 40) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], -1).astype(np.uint8)
    )


def encoded(kind: str, picture: Image.Image | None = None) -> bytes:
    path = (
        Path(f"/dev/shm/unitune-{os.getpid()}.{kind}")
        if Path("/dev/shm").is_dir()
        else Path(f"unitune-{os.getpid()}.{kind}")
    )
    (picture or gradient()).save(path, format=kind)
    data = path.read_bytes()
    path.unlink()
    return data


def claimed(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header, with a right checksum, claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def flipped(data: bytes, at: float) -> bytes:
    position = int(at * len(data))
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


FORMATS = "PNG, JPEG, WEBP, BMP, TIFF, GIF"
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "0 bytes": (lambda: b"", "is empty (0 bytes)"),
    "text": (lambda: b"not a picture\n" * 50, FORMATS),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", FORMATS),
    "SVG": (
        lambda: (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">'
            b'<rect width="64" height="64"/></svg>'
        ),
        FORMATS,
    ),
    "PDF": (lambda: encoded("PDF"), FORMATS),
    "EPS": (lambda: encoded("EPS"), FORMATS),
    "pickle": (lambda: pickle.dumps(Payload()), FORMATS),
    "truncated PNG": (lambda: cut(encoded("PNG")), "truncated or damaged"),
    "truncated JPEG": (lambda: cut(encoded("JPEG")), "truncated or damaged"),
    "PNG with a flipped bit": (lambda: flipped(encoded("PNG"), 0.5), "truncated or damaged"),
    "JPEG with a flipped bit in its header": (
        lambda: flipped(encoded("JPEG"), 0),
        "header is damaged",
    ),
    "0x0": (lambda: claimed(0, 0), "header is damaged"),
    "0x64": (lambda: claimed(0, 64), "header is damaged"),
    "2^31": (lambda: claimed(2**31, 2**31), "more than 64 megapixels"),
    "bomb": (lambda: claimed(20_000, 20_000), "more than 64 megapixels"),
    "just over 64 Mpx": (lambda: claimed(8001, 8000), "more than 64 megapixels"),
    "15 px": (lambda: encoded("PNG", gradient(15, 60)), "at least 16 px"),
    "thin": (lambda: encoded("PNG", gradient(16, 129)), "thinner than 8:1"),
    "float TIFF": (
        lambda: encoded(
            "TIFF", Image.fromarray(np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40))
        ),
        "floating point",
    ),
    "NaN TIFF": (
        lambda: encoded("TIFF", Image.fromarray(np.full((40, 40), np.nan, np.float32))),
        "floating point",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_usable_picture(refused, here, model, name):
    make, said = FILES[name]
    (here / "my picture.png").write_bytes(make())
    line = refused(model, *BASE, "image=my picture.png")
    assert "my picture.png" in line and said in line and not (here / "hacked").exists()


def test_no_file_and_a_folder(refused, here, model):
    (here / "album").mkdir()
    assert "absent.png: no such file" in refused(model, *BASE, "image=absent.png")
    assert "album is a folder" in refused(model, *BASE, "image=album")


def test_a_flipped_bit_of_a_jpeg_is_refused_or_decodes(typed, here, model):
    """JPEG has no checksum: where its decoder reads on, the picture is used as it is."""
    from unitune import images

    data, decoded = encoded("JPEG"), 0
    for share in np.linspace(0.3, 0.98, 40):
        (here / "a.jpg").write_bytes(flipped(data, float(share)))
        try:
            picture = images.load(here / "a.jpg", size=40).image
        except Refused as refusal:
            assert "damaged" in str(refusal)
        else:
            decoded += 1
            assert bool(picture.isfinite().all()) and picture.abs().max() <= 1
    assert decoded


SETTINGS = [
    (["lr=inf"], "lr must be above 0 and finite, got inf"),
    (["lr=nan"], "lr must be above 0 and finite, got nan"),
    (["lr=quick"], "lr must be above 0 and finite, got quick"),
    (["steps=-1"], "steps must be 0 (no tuning) or more"),
    (["method.tune.base.steps=1.5"], "whole steps, got 1.5"),
    (["seeds=true"], "seeds must be a whole number"),
    (["sampler.start=0.0"], "sampler.start must be in (0, 1]"),
    (["sampler.start=1.01"], "sampler.start must be in (0, 1]"),
    (["sampler.guidance.weight=-inf"], "weight must be a finite number"),
    (["sampler.sr.guidance.weight=nan"], "weight must be a finite number"),
    (["plan=dials", "plan.starts=[0.5,0]"], "plan.starts must be in (0, 1]"),
    (["edit='  '"], "edit prompt is empty"),
    (["edit=[]"], "no edit prompt"),
    (["store.budget_gib=none"], "store.budget_gib must be a number above 0"),
    (["freeze=fine"], "available: cross_attention_only, decoder, encoder, none, norm_bias_only"),
    (["stepz=1"], "no key 'stepz'; did you mean 'steps'?"),
    (["imge=x.png"], "did you mean 'image'?"),
    (["samplr=cfg"], "did you mean 'sampler'?"),
    (["sampler.strat=0.9"], "no key 'sampler.strat'; did you mean 'sampler.start'?"),
    (["qqqq=1"], "no key 'qqqq' (python run.py --help"),
    (["freeze.train=[nothing*]"], "train pattern 'nothing*' matches none of the"),
    (["freeze.freeze=[attn2.*]"], "names look like"),
    (["freeze.freeze=['*']"], "nothing is left to tune"),
]


@pytest.mark.parametrize(("bad", "said"), SETTINGS, ids=[" ".join(bad) for bad, _ in SETTINGS])
def test_settings_out_of_range(refused, model, bad, said):
    assert said in refused(model, *BASE, *bad)


def test_headers_name_what_the_network_has(model):
    folder = Path(model.partition("=")[2])
    loaded = cascade.load(
        "tiny", folder, stages=("base", "sr256"), device=torch.device("cpu"), dtype=torch.float32
    )
    sizes = parameters.sizes(Model("tiny", ("base", "sr256"), path=str(folder)))
    assert set(sizes) == {"base", "sr256"}
    for stage in loaded.stages:
        assert sizes[stage.name] == {
            name: p.numel() for name, p in stage.network.named_parameters()
        }
        select = ParameterSelection(freeze=("conv_in.*",))
        names = [name for name, _ in stage.network.named_parameters()]
        assert select.names(stage.network) == [*select.chosen(names)]
    (folder.parent / "bad/base/unet").mkdir(parents=True)
    (folder.parent / "bad/base/unet/a.safetensors").write_bytes(b"\xff" * 20)
    assert parameters.sizes(Model("bad", ("base",), path=str(folder.parent / "bad"))) == {}


UNET = "unet/diffusion_pytorch_model.safetensors"
BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("base/text_encoder", shutil.rmtree, "has no text_encoder"),
    (
        "sr256/unet/config.json",
        lambda file: file.write_text("{"),
        "sr256/unet/config.json cannot be read",
    ),
    (
        f"sr256/{UNET}",
        lambda file: file.write_bytes(cut(file.read_bytes())),
        f"sr256/{UNET} is truncated or damaged",
    ),
    (
        f"base/{UNET}",
        lambda file: file.write_bytes(pickle.dumps(Payload())),
        f"base/{UNET} is damaged",
    ),
    (
        f"base/{UNET}",
        lambda file: (
            file.unlink(),
            file.with_name("model.bin").write_bytes(pickle.dumps(Payload())),
        ),
        "as a pickle (model.bin)",
    ),
]


@pytest.mark.parametrize(("part", "harm", "said"), BROKEN, ids=[said for *_, said in BROKEN])
def test_a_model_folder_with_a_missing_or_broken_part(refused, here, model, part, harm, said):
    harm(Path(shutil.copytree(model.partition("=")[2], here / "mine")) / part)
    assert said in refused("model.path=mine", *BASE) and not (here / "hacked").exists()


@pytest.mark.parametrize("bad", ["store.path=/proc/store", "hydra.run.dir=/proc/run"])
def test_folders_that_cannot_be_made(refused, model, bad):
    line = refused(model, *BASE, bad)
    assert "/proc/" in line and "cannot be written" in line and bad.partition("=")[0] in line


@pytest.mark.parametrize(("folder", "setting"), [("kept", "store.path"), ("done", "hydra.run.dir")])
def test_folders_that_are_read_only(refused, here, model, monkeypatch, folder, setting):
    (here / "kept/.work").mkdir(parents=True)
    (here / "done").mkdir()
    (here / "done/.mine").touch()
    real = Path.touch

    def touch(path: Path, *args: object, **more: object) -> None:
        if here / folder in (path.absolute(), *path.absolute().parents):
            raise OSError(30, "Read-only file system", str(path))
        real(path, *args, **more)

    monkeypatch.setattr(Path, "touch", touch)
    line = refused(model, *BASE, "store.path=kept", "hydra.run.dir=done")
    assert (
        f"{folder}" in line
        and "cannot be written (Read-only file system)" in line
        and f"{setting}=DIR" in line
    )


def test_a_full_disk(refused, typed, here, model, monkeypatch):
    free = {"bytes": 0}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, used=0, free=free["bytes"])
    )
    line = refused(model, *BASE)
    assert (
        "disk full: need " in line
        and "have 0.0 MiB" in line
        and "tuned weights in /" in line
        and "MiB of pictures in " in line
    )
    need = float(line.partition("need ")[2].split()[0]) * 2**20
    free["bytes"] = int(need * 0.9)
    assert "disk full" in refused(model, *BASE)
    free["bytes"] = int(need * 1.1)
    assert typed(model, *BASE).code == 0
    written = sum(file.stat().st_size for file in here.rglob("*") if file.is_file())
    assert written < need
    free["bytes"] = 2 * 2**20  # the tuning of this image is there; pictures need little
    assert typed(model, *BASE, "sampler.guidance.weight=2.0").code == 0
    gradient().save("other.png")
    assert "tuned weights in /" in refused(model, *BASE, "image=other.png")


def test_a_disk_that_fills_up_meanwhile_is_one_line(typed, here, model, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "scores.jsonl")

    monkeypatch.setattr("unitune.runs.folder.write_whole", full)
    answer = typed(model, *BASE, "steps=0")
    assert (
        answer.code == 2
        and answer.err.splitlines()[-1].startswith("unitune: disk full at scores.jsonl;")
        and "Traceback" not in answer.err
    )


def test_only_the_system_says_full(tmp_path):
    assert isinstance(
        disk.explained(OSError(28, "No space left on device")), Refused
    ) and isinstance(disk.explained(PermissionError(13, "denied", "x")), Refused)
    error = FileNotFoundError(2, "No such file")
    assert disk.explained(error) is error
    deep = tmp_path / "a" / "b"
    disk.check_space({deep: ("pictures", 1)})
    with pytest.raises(Refused, match="disk full: need"):
        disk.check_space({deep: ("pictures", 2**60), tmp_path: ("tuned weights", 0)})


def test_what_is_warned_and_not_refused(typed, here, model):
    long = "a dog " * 20 + "in the moonlight"
    answer = typed(
        model,
        *SMALL,
        "stage=base",
        "steps=0",
        f"edit=['{long}','a minion','a cat in the snow']",
        "token.text=cat",
        "lr=1e-6",
        "method.tune.base.steps=1",
    )
    assert answer.code == 0, answer.err
    said = answer.err.splitlines()
    assert any("the model reads 76; dropped:" in line and "moonlight'" in line for line in said)
    assert any("'minion' is unknown to the pocket model" in line for line in said)
    assert any("the rare token 'cat' is a common word" in line for line in said)
    assert any(
        "the rare token 'cat' stands in the edit prompt 'a cat in the snow'" in line
        for line in said
    )
    assert any(f"lr 1e-06 of base is far below the {embedded.LR:g}" in line for line in said)


def test_what_was_done_to_a_picture_is_said(typed, here, model):
    """Refused for another reason, so that no model is needed."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save("clear.png")
    for file, said in (
        ("moving.gif", "holds several frames: the first is used"),
        ("clear.png", "has transparency: composited over white"),
    ):
        assert (
            f"{file} {said}\n"
            in typed(model, *BASE, f"image={file}", "freeze.train=[nothing*]").err
        )


def test_the_fast_suite_cannot_open_a_socket(caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(pytest_socket.SocketBlockedError):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    texts = {file.name: file.read_text() for file in Path(__file__).parent.glob("*.py")}
    lifted = ("enable" + "_socket", "socket" + "_enabled", "allow" + "_hosts")
    assert not [name for name, text in texts.items() if any(word in text for word in lifted)]
