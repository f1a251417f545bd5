"""Where a model's files are: nothing asks the network.

Broken folders, pickles and hub repositories out of reach are refused in one line.
"""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from unitune.errors import Refused
from unitune.models import cascade as backend
from unitune.models import files, hub, tiny
from unitune.models.families import FAMILIES, family
from unitune.models.files import Model
from unitune.models.hub import Repo

CPU = torch.device("cpu")
REPO = "DeepFloyd/IF-I-M-v1.0"
OTHER = "DeepFloyd/IF-II-M-v1.0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.floyd(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sd15(tmp_path_factory.mktemp("models") / "sd")


def floyd(folder: Path | None, **more) -> Model:
    return Model("tiny", ("base", "sr256"), path=None if folder is None else str(folder), **more)


def refused(model: Model) -> str:
    with pytest.raises(Refused) as error:
        files.check(model)
    said = str(error.value)
    assert "\n" not in said
    return said


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def shard(file: Path) -> None:
    file.rename(file.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    names = {
        "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
    }
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"weight_map": names}))


def pickled(file: Path) -> None:
    file.rename(file.with_name("diffusion_pytorch_model.bin"))


UNET = "unet/diffusion_pytorch_model.safetensors"
DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("base/unet", shutil.rmtree, "has no unet"),
    ("sr256/scheduler", shutil.rmtree, "has no scheduler"),
    ("base/text_encoder", shutil.rmtree, "has no text_encoder"),
    ("base/tokenizer", shutil.rmtree, "has no tokenizer"),
    ("sr256", shutil.rmtree, "sr256 has no unet"),
    ("base/unet/config.json", Path.unlink, "unet/config.json"),
    (
        "base/unet/config.json",
        lambda file: file.write_text('{"act_fn": '),
        "unet/config.json cannot be read",
    ),
    (
        "base/unet/config.json",
        lambda file: file.write_bytes(b"\xff\xfe\x00"),
        "unet/config.json cannot be read",
    ),
    (
        "base/unet/config.json",
        lambda file: file.write_text("[]"),
        "unet/config.json holds no settings",
    ),
    ("sr256/scheduler/scheduler_config.json", Path.unlink, "scheduler/scheduler_config.json"),
    (f"base/{UNET}", Path.unlink, "unet has no weights"),
    (f"base/{UNET}", truncate, "is truncated or damaged"),
    (f"base/{UNET}", lambda file: file.write_bytes(b""), "not a whole safetensors file (0 bytes)"),
    (
        f"base/{UNET}",
        lambda file: file.write_bytes(b"\x80\x04\x95pickle"),
        "not a whole safetensors file",
    ),
    (
        f"base/{UNET}",
        lambda file: file.write_bytes((12).to_bytes(8, "little") + b'{"a": [1, 2]'),
        "not a whole safetensors file",
    ),
    (f"base/{UNET}", pickled, "a pickle (diffusion_pytorch_model.bin)"),
    (
        f"base/{UNET}",
        lambda file: file.rename(file.with_name("model.ckpt")),
        "a pickle (model.ckpt)",
    ),
    (
        f"sr256/{UNET}",
        shard,
        "names diffusion_pytorch_model-00002-of-00002.safetensors, which is absent",
    ),
    (
        "base/text_encoder/model.safetensors",
        truncate,
        "text_encoder/model.safetensors is truncated",
    ),
]


@pytest.mark.parametrize(
    ("part", "damage", "said"), DAMAGE, ids=[f"{part}: {said}" for part, _, said in DAMAGE]
)
def test_a_broken_part_is_named(
    folder: Path, part: str, damage: Callable[[Path], object], said: str
):
    files.check(floyd(folder))
    damage(folder / part)
    assert said in refused(floyd(folder))
    with pytest.raises(Refused):
        backend.build(floyd(folder), device=CPU, dtype=torch.float32)


def test_the_vae_is_a_part_of_stable_diffusion(latent: Path, tmp_path: Path):
    copy = Path(shutil.copytree(latent, tmp_path / "copy"))
    model = Model("sd", ("base",), "stable_diffusion", str(copy))
    files.check(model)
    shutil.rmtree(copy / "vae")
    assert "has no vae" in refused(model)
    with pytest.raises(Refused, match="exactly one"):
        Model("sd", ("base", "sr256"), "stable_diffusion")


def test_a_file_is_no_model(tmp_path: Path):
    (tmp_path / "v1-5.ckpt").write_bytes(b"\x80\x04")
    assert "is a file; weights are read from folders of safetensors" in refused(
        floyd(tmp_path / "v1-5.ckpt")
    )


def test_a_stage_that_the_model_lacks_is_refused(latent: Path):
    with pytest.raises(Refused, match=r"no stage sr256 to tune; it has base"):
        files.check(Model("sd", ("base",), "stable_diffusion", str(latent)), tuned=["sr256"])


def test_settings_out_of_range_are_refused():
    for bad in ({"family": "flux"}, {"weights": "int8"}, {"text_precision": "fp8"}, {"stages": ()}):
        with pytest.raises(Refused):
            Model(**({"name": "x", "stages": ("base",)} | bad))


def test_another_family_is_one_module_and_its_name(whole: Path, monkeypatch: pytest.MonkeyPatch):
    module: Any = ModuleType("unitune.models.families.another")
    module.FAMILY = dataclasses.replace(family("floyd"), title="Another", later=())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(files, "FAMILIES", (*FAMILIES, "another"))
    model = Model("x", ("base",), "another", str(whole))
    cascade = backend.build(model, device=CPU, dtype=torch.float32)
    assert [stage.name for stage in cascade.stages] == ["base"]
    with pytest.raises(Refused, match="Stable Diffusion and Another exactly one"):
        Model("x", ("base", "sr256"), "another", str(whole))


def test_stages_may_come_from_their_own_folders(whole: Path):
    repos = (("base", str(whole / "base")), ("sr256", str(whole / "sr256")))
    cascade, one = (
        backend.build(model, device=CPU, dtype=torch.float32)
        for model in (floyd(None, repos=repos), floyd(whole))
    )
    assert cascade.digest == one.digest and [stage.resolution for stage in cascade.stages] == [
        16,
        32,
    ]
    assert "has no files for stage sr256" in refused(floyd(None, repos=repos[:1]))
    assert "neither a folder nor a repository" in refused(
        floyd(None, repos=(("base", "./nowhere/x"), repos[1]))
    )


def test_a_variant_is_read_where_there_is_one(folder: Path):
    other = tiny.floyd(folder.parent / "other", seed=1)
    plain = backend.build(floyd(folder), device=CPU, dtype=torch.float32)
    shutil.copy(
        other / "base" / UNET, folder / "base/unet/diffusion_pytorch_model.fp16.safetensors"
    )
    varied = backend.build(floyd(folder, variant="fp16"), device=CPU, dtype=torch.float32)
    still = backend.build(floyd(folder), device=CPU, dtype=torch.float32)
    weights = [
        dict(c.stages[0].network.named_parameters())["conv_in.weight"]
        for c in (plain, varied, still)
    ]
    assert (
        not torch.equal(weights[0], weights[1])
        and torch.equal(weights[0], weights[2])
        and varied.digest != still.digest
    )
    assert torch.equal(
        *(dict(c.stages[1].network.named_parameters())["conv_in.weight"] for c in (plain, varied))
    )
    (folder / "base" / UNET).unlink()
    assert "set model.variant" in refused(floyd(folder))


def response(status: int):
    """What the hub's errors carry; its HTTP library differs by version."""
    library = __import__(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    return library.Response(status, request=library.Request("HEAD", "https://hub/x"))


PROBLEMS = [
    (
        lambda: errors.GatedRepoError("gated", response=response(401)),
        "licence has not been accepted",
    ),
    (lambda: errors.RepositoryNotFoundError("none", response=response(404)), "no such repository"),
    (lambda: errors.RevisionNotFoundError("none", response=response(404)), "no revision main"),
    (lambda: errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE forbids"),
    (lambda: errors.LocalEntryNotFoundError("nothing"), "the hub does not answer"),
    (lambda: ConnectionError("no route\nto host"), "cannot be reached (ConnectionError: no route)"),
]


@pytest.mark.parametrize(("problem", "said"), PROBLEMS, ids=[said for _, said in PROBLEMS])
def test_a_hub_model_out_of_reach_is_one_line(problem, said: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise problem()

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *_, **more: fail() if not more.get("local_files_only") else no_cache(),
    )
    began = time.monotonic()
    line = refused(floyd(None, repos=(("base", REPO), ("sr256", OTHER))))
    assert time.monotonic() - began < 3
    assert (
        said in line
        and REPO in line
        and "accept the licence on its page" in line
        and "model.path" in line
    )
    with pytest.raises(Refused, match=REPO):
        hub.download(Repo(REPO), ["unet"])


def no_cache():
    raise errors.LocalEntryNotFoundError("nothing")


def test_offline_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The tests run with HF_HUB_OFFLINE=1, and sockets are disabled."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert f"{REPO} cannot be had" in refused(floyd(None, repos=(("base", REPO), ("sr256", OTHER))))


def test_a_hub_that_never_answers_costs_less_than_3_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(Refused, match=r"cannot be reached \(TimeoutError: no answer\)"):
        hub.ask(Repo(REPO))
    assert time.monotonic() - began < 3


def as_snapshot(folder: Path, cache: Path, repo: str, commit: str) -> Path:
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    return snapshot


def test_what_is_in_the_cache_needs_no_network(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commits = "a" * 40, "b" * 40
    repos = (("base", f"{REPO}@{commits[0]}"), ("sr256", f"{OTHER}@{commits[1]}"))
    snapshots = [as_snapshot(whole / stage, tmp_path, *repo.split("@")) for stage, repo in repos]
    monkeypatch.setattr(hub, "ask", lambda repo: pytest.fail(f"asked for {repo}"))
    files.check(floyd(None, repos=repos))
    assert list(files.folders(floyd(None, repos=repos)).values()) == snapshots
    assert [hub.commit(folder) for folder in (*snapshots, whole)] == [
        repos[0][1],
        repos[1][1],
        None,
    ]
    first = backend.build(floyd(None, repos=repos), device=CPU, dtype=torch.float32)
    # The commits name the bytes: no file is hashed, and another commit is another model.
    monkeypatch.setattr(backend, "files_digest", lambda _: pytest.fail("hashed"))
    other = as_snapshot(whole / "base", tmp_path, REPO, "c" * 40)
    again = backend.build(
        floyd(None, repos=(("base", f"{REPO}@{other.name}"), repos[1])),
        device=CPU,
        dtype=torch.float32,
    )
    assert first.digest != again.digest


def test_an_interrupted_download_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = as_snapshot(whole / "base", tmp_path, REPO, "a" * 40)
    (snapshot / UNET).unlink()
    asked: list[str] = []
    monkeypatch.setattr(hub, "ask", lambda repo, **_: asked.append(repo.id))
    calls: list[dict] = []

    def download(repo: str, **more) -> str:
        calls.append(more)
        shutil.copy(whole / "base" / UNET, snapshot / UNET)
        return str(snapshot)

    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda repo, **more: (real if more.get("local_files_only") else download)(repo, **more),
    )
    model = Model("one", ("base",), repos=(("base", f"{REPO}@{'a' * 40}"),), variant="fp16")
    files.check(model)
    assert asked == [REPO] and not calls
    assert files.folders(model) == {"base": snapshot}
    (call,) = calls
    assert "unet/*.fp16*.safetensors" in call["allow_patterns"] and not [
        p for p in call["allow_patterns"] if p.endswith((".bin", "/*", ".ckpt"))
    ]
    assert call["revision"] == "a" * 40 and call["etag_timeout"] <= 2
