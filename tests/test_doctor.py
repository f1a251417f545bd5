"""Every check of the doctor can fail.

The command says so with its exit code, and leaves nothing behind.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from unitune.cli import doctor, estimate, installation
from unitune.errors import Refused, Unfit
from unitune.models import compat, machine, tiny
from unitune.tuning.adapters import Full, Lora
from unitune.tuning.select import ParameterSelection

ROOT = Path(__file__).parent.parent
for name in ("assets", "skimage", "noted"):
    OmegaConf.register_new_resolver(
        name, lambda path: str(ROOT / "src/unitune/assets" / path), replace=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.floyd(tmp_path_factory.mktemp("doctor") / "tiny")


@pytest.fixture
def settings(folder, tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(
            "doctor", overrides=[f"model.path={folder}", "metrics=none", "store.path=store"]
        )
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return plain


def on_hub(settings: dict) -> dict:
    repos = {"base": "DeepFloyd/IF-I-M-v1.0@main", "sr256": "DeepFloyd/IF-II-M-v1.0@main"}
    return settings | {
        "model": settings["model"] | {"path": None, "repos": repos, "text_encoder": {"keep": False}}
    }


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """An empty cache, no token, downloads allowed."""
    from huggingface_hub import constants, file_download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    return tmp_path / "hub"


def cached(hub: Path, repository: str, unet: Path) -> None:
    entry = hub / f"models--{repository.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs/main").write_text("0" * 40)
    shutil.copytree(unet, entry / "snapshots" / ("0" * 40) / "unet")


def test_all_is_well_and_nothing_is_written(settings, tmp_path):
    lines = list(doctor.run(**settings))
    assert [line.split()[1] for line in lines] == [check.__name__ for check in doctor.CHECKS]
    assert {line.split()[0] for line in lines} <= {"ok", "warn"} and list(tmp_path.iterdir()) == []


def test_failures_are_counted_after_all_lines(settings):
    lines = []
    with pytest.raises(Unfit, match=r"3 of 12 checks failed \(model, memory, store\)"):
        for line in doctor.run(**settings | {"model": settings["model"] | {"path": "nowhere"}}):
            lines.append(line)
    assert (
        len(lines) == len(doctor.CHECKS)
        and lines[5].startswith("fail  model")
        and "no model folder nowhere" in lines[5]
    )


def test_an_old_python(settings, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.10.2")
    finding = installation.python(settings)
    assert finding.level == "fail" and "3.10.2" in finding.found


def test_libraries_missing_out_of_range_or_moved(settings, monkeypatch):
    real = list(installation.importlib.metadata.distributions())

    class Other:
        def __init__(self, name, version):
            self.name, self.version = name, version

    def here(*changed: Other):
        names = {other.name for other in changed}
        monkeypatch.setattr(
            "importlib.metadata.distributions",
            lambda: [d for d in real if d.name not in names] + [o for o in changed if o.version],
        )

    here(Other("diffusers", "0.30.0"))
    finding = installation.libraries(settings)
    assert finding.level == "fail" and "0.30.0" in finding.found
    here(Other("diffusers", ""))
    assert installation.libraries(settings).level == "fail"
    here(Other("regex", "2020.1.1"))
    finding = installation.libraries(settings)
    assert finding.level == "warn" and "regex 2020.1.1" in finding.found


def test_a_torchvision_of_another_torch(settings, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    finding = installation.torchvision(settings)
    assert finding.level == "fail" and "torch==" in finding.found
    monkeypatch.undo()
    monkeypatch.setattr(compat, "is_loadable", lambda compiled: False)
    assert installation.torchvision(settings).level == "warn"
    monkeypatch.setattr(compat, "is_loadable", lambda compiled: True)
    assert installation.torchvision(settings).level == "ok"


def test_a_device_that_is_not_there(settings, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(Refused, match="use machine=cpu"):
        installation.device(settings | {"machine": settings["machine"] | {"device": "cuda"}})


def test_a_damaged_model(settings, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    given = settings | {"model": settings["model"] | {"path": str(copy)}}
    file = copy / "sr256/unet/diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:5], b"<html>" * 100, b""):
        file.write_bytes(damaged)
        with pytest.raises(Refused, match=r"sr256/unet/.* is (truncated or )?damaged"):
            doctor.model(given)
    file.unlink()
    with pytest.raises(Refused, match="sr256/unet has no weights"):
        doctor.model(given)
    shutil.rmtree(copy / "base/tokenizer")
    with pytest.raises(Refused, match="base has no tokenizer"):
        doctor.model(given)


def test_memory_that_is_taken_or_not_there(settings, monkeypatch):
    for free, total, level in (
        (2**40, 2**40, "ok"),
        (2**20, 2**40, "warn"),
        (2**20, 2**20, "fail"),
    ):
        monkeypatch.setattr(machine, "memory", lambda free=free, total=total: (free, total))
        assert doctor.memory(settings).level == level
    assert "batch_size" in doctor.memory(settings).advice


def test_memory_of_a_gpu(settings, monkeypatch):
    monkeypatch.setattr(machine, "device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(machine, "precision", lambda name, chosen: torch.bfloat16)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda chosen: (8 * 2**30, 8 * 2**30))
    assert doctor.memory(settings).level == "ok"
    large = doctor.memory(on_hub(settings))
    assert large.level == "fail" and "on the cuda" in large.found and "activations" in large.found


def test_an_untuned_method_needs_less(settings):
    tuned, untuned = (
        estimate.memory(estimate.networks(settings["model"]), plans, mixed=False)[0]
        for plans in (estimate.tunings(settings), {})
    )
    assert untuned < tuned and estimate.tunings(settings | {"method": {"name": "untuned"}}) == {}


def test_folders_that_cannot_be_made_or_are_full(settings, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path / "file/store", "cannot be made"),
        (tmp_path / "file", "cannot be written"),
    ):
        finding = doctor.store(settings | {"store": settings["store"] | {"path": str(path)}})
        assert finding.level == "fail" and said in finding.found
    assert doctor.outputs(settings | {"outputs": str(tmp_path / "file/x")}).level == "fail"

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert "Read-only" in doctor.store(settings).found and doctor.store(settings).level == "fail"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert (
        doctor.store(settings | {"store": settings["store"] | {"budget_gib": 1e-6}}).level == "warn"
    )
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2**30, 2**30 - 1, 1)
    )
    assert doctor.store(settings).level == doctor.outputs(settings).level == "fail"


def test_the_disk_that_a_tuning_takes_is_what_it_writes(settings, folder):
    """At most: 2 bytes a number and kept step, half of the tiny cascade's files in float32."""
    nets = estimate.networks(settings["model"])
    files = sum(
        file.stat().st_size
        for stage in ("base", "sr256")
        for file in (folder / stage / "unet").glob("*.safetensors")
    )
    plans = estimate.tunings(settings)
    assert estimate.disk(nets, plans)[0] == pytest.approx(files / 2, rel=0.1)
    tune = {name: {**one, "snapshots": [1, 2]} for name, one in settings["method"]["tune"].items()}
    asked = settings | {"method": settings["method"] | {"tune": tune}}
    thrice = estimate.disk(nets, estimate.tunings(asked))[0]
    assert thrice == 3 * estimate.disk(nets, plans)[0]


def test_frozen_layers_need_less(settings):
    nets = estimate.networks(settings["model"])
    base = nets["base"]
    assert (
        0
        < base.tuned(Full(), ParameterSelection(freeze=["down_blocks.*"]))
        < base.tuned(Full(), ParameterSelection())
        == base.parameters
    )
    assert (
        estimate.HUB["DeepFloyd/IF-I-M-v1.0"].tuned(Full(), ParameterSelection(["*norm*"]))
        == 371_605_830
    )


def test_a_low_rank_change_needs_less(settings):
    lora = {
        "_target_": "unitune.tuning.adapters.Lora",
        "rank": 2,
        "alpha": 2,
        "targets": ["*attentions.*"],
    }
    tune = {
        stage: tuning | {"adapter": lora} for stage, tuning in settings["method"]["tune"].items()
    }
    nets, plans = (
        estimate.networks(settings["model"]),
        estimate.tunings(settings | {"method": settings["method"] | {"tune": tune}}),
    )
    assert plans["base"].adapter == Lora(2, 2, ["*attentions.*"])
    assert (
        0
        < nets["base"].tuned(plans["base"].adapter, plans["base"].select)
        == Lora(2, 2).size(nets["base"].tensors, ParameterSelection())
        < nets["base"].parameters
    )
    assert estimate.disk(nets, plans)[0] < estimate.disk(nets, estimate.tunings(settings))[0]
    assert estimate.HUB["DeepFloyd/IF-I-M-v1.0"].tuned(Lora(4), ParameterSelection()) == round(
        0.02 * 371_605_830
    )


def test_a_model_of_the_hub(settings, hub, folder, monkeypatch, tmp_path):
    from huggingface_hub import constants

    asks = doctor.model(on_hub(settings))
    assert asks.level == "fail" and "licence" in asks.found and "hf auth login" in asks.advice
    (tmp_path / "token").write_text("hf_secret")
    allowed = doctor.model(on_hub(settings))
    assert allowed.level == "warn" and "not in the cache" in allowed.found
    assert "a token is there" in doctor.hub(on_hub(settings)).found and "hf_secret" not in str(
        (allowed, doctor.hub(on_hub(settings)))
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (
        doctor.model(on_hub(settings)).level == "fail"
        and "HF_HUB_OFFLINE" in doctor.model(on_hub(settings)).found
    )
    for repository, stage in (
        ("DeepFloyd/IF-I-M-v1.0", "base"),
        ("DeepFloyd/IF-II-M-v1.0", "sr256"),
    ):
        cached(hub, repository, folder / stage / "unet")
    assert doctor.model(on_hub(settings)).level == "ok"
    next(hub.rglob("*.safetensors")).write_bytes(b"cut")
    part = doctor.model(on_hub(settings))
    assert part.level == "fail" and "in part" in part.found


def test_a_hub_model_of_unknown_size(settings):
    with pytest.raises(Refused, match="not known here"):
        estimate.networks(
            settings["model"]
            | {"path": None, "repos": {"base": "someone/model", "sr256": "DeepFloyd/IF-II-M-v1.0"}}
        )


def test_loggers(settings, monkeypatch, tmp_path):
    wandb = {"_target_": "pytorch_lightning.loggers.WandbLogger", "offline": False}
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    without = doctor.logger(settings | {"logger": wandb})
    assert without.level == "warn" and "no key: runs stay offline" in without.found
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert doctor.logger(settings | {"logger": wandb}).level == "ok"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert doctor.logger(settings | {"logger": wandb}).level == "warn"
    monkeypatch.delenv("WANDB_MODE")
    assert "offline" in doctor.logger(settings | {"logger": wandb | {"offline": True}}).found
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    board = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger"}
    assert (
        doctor.logger(settings | {"logger": board}).level == "fail"
        and doctor.logger(settings).level == "ok"
    )


def test_metrics_that_lack_their_files(settings, monkeypatch):
    use = [{"_target_": "unitune.metrics.success.EditSuccess", "folder": "nowhere"}]
    with pytest.raises(Refused, match="nowhere"):
        doctor.metrics(settings | {"metrics": {"use": use}})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match="stlpips-pytorch"):
        doctor.metrics(
            settings | {"metrics": {"use": [{"_target_": "unitune.metrics.perceptual.STLPIPS"}]}}
        )


@pytest.mark.parametrize(
    ("extra", "code"), [((), 0), (("store.path=file/store", "logger=tensorboard"), 1)]
)
def test_the_command_on_the_pocket_model(tmp_path, extra, code):
    """Every word of the main job is taken; the table is printed, and the folder stays as it was."""
    (tmp_path / "file").touch()
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "--config-name",
        "doctor",
        "edit=a dog, red",
        "sampler=cfg",
        *extra,
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert len(done.stdout.splitlines()) == len(doctor.CHECKS) and all(
        line.split()[0] in ("ok", "warn", "fail") for line in done.stdout.splitlines()
    )
    assert ("unitune: 1 of 12 checks failed (store)" in done.stderr) == bool(
        code
    ) and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_stage_may_be_a_folder_beside_one_of_the_hub(settings, folder):
    """As `Model.source` has it."""
    mixed = {
        "path": None,
        "repos": {"base": str(folder / "base"), "sr256": "DeepFloyd/IF-II-M-v1.0"},
    }
    given = settings | {"model": settings["model"] | mixed}
    nets = estimate.networks(given["model"])
    assert (
        nets["base"].tensors == estimate.networks(settings["model"])["base"].tensors
        and nets["sr256"] == estimate.HUB["DeepFloyd/IF-II-M-v1.0"]
    )
    assert (
        "DeepFloyd/IF-II-M-v1.0" in doctor.model(given).found
        and str(folder) not in doctor.model(given).found
    )


def test_a_checkpoint_holds_what_is_tuned(settings):
    net, plan = estimate.networks(settings["model"])["base"], estimate.tunings(settings)["base"]
    part = dataclasses.replace(plan, select=ParameterSelection(freeze=["down_blocks.*"]))
    tuned = [net.tuned(one.adapter, one.select) for one in (plan, part)]
    assert (
        estimate.checkpoint(net, part) / estimate.checkpoint(net, plan)
        == pytest.approx(tuned[1] / tuned[0])
        and tuned[1] < tuned[0]
    )


def test_prior_preservation_doubles_the_rows(settings):
    rows = [
        estimate.tunings(settings | {"method": settings["method"] | {"prior": prior}})["base"].rows
        for prior in (0.0, 1.0)
    ]
    assert rows == [4, 8]
