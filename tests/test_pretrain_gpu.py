"""Training on a GPU, tried at small size on a CPU: pictures, losses and optimiser are those of the CPU's training, and what comes back loads."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from unitune.metrics import clip as metrics_clip
from unitune.metrics.judge import load_judge, read_facts
from unitune.pretrain import data as cpu_data
from unitune.pretrain import networks
from unitune.pretrain.gpu import data as gpu_data
from unitune.pretrain.gpu import towers
from unitune.pretrain.gpu.files import FILES, unpack
from unitune.pretrain.gpu.learners import TextLearner, denoise_loss
from unitune.pretrain.gpu.optim import BatchedMuon, MeanWeights
from unitune.pretrain.gpu.render import build_banks, render
from unitune.pretrain.gpu.train import Training
from unitune.pretrain.gpu.world import Part, Phase, Plan, make_world
from unitune.pretrain.muon import MuonAndAdamW
from unitune.pretrain.scoring import ClipTask
from unitune.pretrain.tasks import DenoiseTask, TextTask, save_text_encoder
from unitune.scenes import Scene, is_held_out, random_scene
from unitune.scenes import render as cpu_render
from unitune.scenes.caption import training_caption
from unitune.scenes.scene import held_out
from unitune.scenes.vocabulary import NOUNS, PLACES, STYLES
from unitune.types import Refused

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
PARTS = ("text", "judge", "clip", "clip2", "base", "sr256")


def scenes_and_captions(count: int, *, seeds: int = 2) -> tuple[list[Scene], list[str]]:
    rng = np.random.default_rng(5)
    scenes = [random_scene(rng) for _ in range(count)]
    return [dataclasses.replace(s, seed=s.seed % seeds) for s in scenes], [training_caption(s, rng) for s in scenes]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained text part."""
    folder = tmp_path_factory.mktemp("text")
    tokenizer = networks.tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    save_text_encoder(networks.text_encoder(len(tokenizer)), folder / "text_encoder")
    return folder


# Scenes.


def test_pictures_are_those_of_the_renderer():
    scenes, captions = scenes_and_captions(60)
    assert {s.style for s in scenes} == set(STYLES) and any(o.colour for s in scenes for o in s.objects)
    facts = gpu_data.facts_of(scenes, captions)
    banks = build_banks([facts], details=2)
    for size in (256, 64):
        drawn = render(facts, banks, size=size, device=CPU)
        wanted = np.stack([cpu_render(scene, size)[0] for scene in scenes]).astype(int)
        difference = np.abs(drawn.permute(0, 2, 3, 1).numpy() - wanted)
        assert difference.max() <= 1 and difference.mean() < 1e-4
        assert not difference[[s.style in ("plain", "pixel") and not any(o.colour for o in s.objects) for s in scenes]].any()


def test_facts_are_those_of_the_cpu_stream():
    scenes, captions = scenes_and_captions(300)
    mine, theirs = gpu_data.batch(gpu_data.facts_of(scenes, captions), None), cpu_data.facts(scenes)
    for name, wanted in theirs.items():
        assert torch.equal(getattr(mine, name), wanted), name


def test_ids_are_the_tokenizer_s():
    _, captions = scenes_and_captions(300)
    captions += ["a ghost, Under Water , zqkxv", "beikkpic"]
    facts_ids, words = gpu_data.token_ids(captions)
    lines = [text.lower().strip() for text in captions]
    assert torch.equal(facts_ids.long(), networks.tokenizer()(lines, padding="max_length", max_length=77, return_tensors="pt").input_ids)
    known = set(networks.vocabulary())
    clean = [" ".join(w for w in text.split() if w.strip(",") in known) for text in lines]
    assert torch.equal(words.long(), networks.tokenizer()(clean, padding="max_length", max_length=32, return_tensors="pt").input_ids)
    assert words[-1].tolist() == [1] + [0] * 31


def test_held_out_compositions_stay_unseen():
    def compositions(facts: gpu_data.Facts) -> list[list[bool]]:
        names = list(NOUNS), list(PLACES), list(STYLES)
        rows = zip(facts.noun.tolist(), facts.count.tolist(), facts.place.tolist(), facts.style.tolist(), strict=True)
        return [[held_out(names[0][k], names[1][place], names[2][style]) for k in nouns[:count]] for nouns, count, place, style in rows]

    assert not any(any(row) for row in compositions(gpu_data.draw(3000, seed=0, held_out=False)))
    assert all(any(row) for row in compositions(gpu_data.draw(200, seed=0, held_out=True)))
    assert not any(is_held_out(s) for s in scenes_and_captions(100)[0])


# Losses and optimiser.


class StubUnet(nn.Module):
    """A network in the shape of a UNet that uses all it is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, class_labels: Tensor | None = None) -> SimpleNamespace:
        shift = text.mean(dim=(1, 2)) + t / 1000 + (0 if class_labels is None else class_labels / 500)
        return SimpleNamespace(sample=self.conv(x) + shift[:, None, None, None])


@pytest.mark.parametrize("low_resolution", [False, True])
def test_denoise_loss_is_the_task_s(text_folder: Path, low_resolution: bool):
    task = DenoiseTask(CPU, network=StubUnet(6 if low_resolution else 3), text_folder=text_folder, low_resolution=low_resolution)
    _, captions = scenes_and_captions(4)
    image = torch.randint(256, (4, 3, 128, 128), dtype=torch.uint8)
    task.generator.manual_seed(3)
    theirs = task.loss(cpu_data.Batch(image, tuple(captions), *[torch.zeros(4)] * 7), 64)
    task.generator.manual_seed(3)
    mine = denoise_loss(task, image, gpu_data.token_ids(captions)[0], 64)
    assert torch.allclose(mine, theirs, rtol=1e-5)


def test_text_loss_is_the_task_s():
    scenes, captions = scenes_and_captions(16)
    facts = gpu_data.facts_of(scenes, captions)
    learner = TextLearner(SimpleNamespace(device=CPU, facts=facts, unseen=facts))  # type: ignore[arg-type]
    task = TextTask(CPU)
    task.network.load_state_dict(learner.network.state_dict())
    theirs = task.loss(cpu_data.Batch(None, tuple(captions), **cpu_data.facts(scenes)), 64)
    assert torch.allclose(learner.loss(facts, None, 64), theirs, rtol=1e-4)


def test_towers_are_open_clip_s(text_folder: Path):
    task = ClipTask(CPU, text_folder=text_folder)
    mine = towers.build_towers(task.tokenizer)
    assert towers.model_config(task.tokenizer) == metrics_clip.model_config(task.tokenizer)
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in task.network.state_dict().items()}
    for name, value in task.network.named_parameters():  # first values are drawn alike
        other = mine.get_parameter(name)
        assert other.numel() < 500 or abs(float(value.detach().std() / other.detach().std()) - 1) < 0.15, name
    mine.load_state_dict(task.network.state_dict())
    scenes, captions = scenes_and_captions(8)
    words = gpu_data.facts_of(scenes, captions).words
    kept = torch.nonzero(words[:, 1] > 0).flatten()
    image = torch.randint(256, (len(scenes), 3, 64, 64), dtype=torch.uint8)
    x = image[kept].float() / 127.5 - 1
    loss = towers.contrastive_loss(mine, x, words[kept].long())
    assert torch.allclose(loss, task.loss(cpu_data.Batch(image, tuple(captions), **cpu_data.facts(scenes)), 64), rtol=1e-2)
    mine.eval().load_state_dict(task.network.state_dict())
    task.network.eval()
    with torch.no_grad():
        assert (mine.encode_image(x) - task.network.encode_image(x)).abs().max() < 1e-5
        assert (mine.encode_text(words.long()) - task.network.encode_text(words.long())).abs().max() < 1e-5


def test_batched_muon_is_torch_s():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(8, 12, 3), nn.Conv2d(12, 12, 3), nn.Conv2d(12, 12, 3), nn.Flatten(), nn.Linear(12 * 4, 16)) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[1].to(memory_format=torch.channels_last)
    theirs, mine = MuonAndAdamW(layers[0], lr=0.01), BatchedMuon(layers[1], lr=0.5)
    assert len(mine.groups) == 3 and len(mine.groups[1]) == 2
    before = {name: value.clone() for name, value in layers[0].state_dict().items()}
    for k in range(4):
        x = torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(k))
        for layer in layers:
            layer(x).square().mean().backward()
        theirs.step()
        mine.step(0.01)
    for name, value in layers[0].state_dict().items():
        moved, other = value - before[name], layers[1].state_dict()[name] - before[name]
        assert (moved - other).norm() < 0.05 * moved.norm(), name


def test_mean_weights_remember_a_twentieth():
    layer = nn.Linear(1, 1, bias=False)
    mean = MeanWeights(layer)
    for k in range(1, 2001):
        layer.weight.data.fill_(k)
        mean.step(k)
    assert 1850 < float(mean.values[0]) < 1950  # the power function's centre, 2000 * (g + 1) / (g + 2)
    with mean.used():
        assert float(layer.weight.detach()) < 1950
    assert float(layer.weight.detach()) == 2000


# The whole.

SMALL = Part("judge", 1.0, 1e-3, (Phase(1, 64, 4),))


def test_resuming_equals_no_interruption(tmp_path: Path):
    world = make_world(Plan((SMALL,), scenes=32, unseen=4, details=1, chunk=8, steps=8), seed=0, device=CPU, workers=0)

    def learned(folder: Path, chunks: int) -> Training:
        training = Training(SMALL, world, folder, minutes=1.0)
        for _ in range(chunks):
            training.chunk()
        training.save()
        return training

    whole = learned(tmp_path / "whole" / "judge", 4)
    first, again = (learned(tmp_path / "parts" / "judge", chunks) for chunks in (1, 0))
    assert all(torch.equal(x, y) for x, y in zip(first.mean.values, again.mean.values, strict=True))  # soon forgotten, so asked here
    parts = learned(tmp_path / "parts" / "judge", 3)
    assert parts.done["step"] == whole.done["step"] == 8
    for a, b in ((whole.pupil.network.parameters(), parts.pupil.network.parameters()), (whole.mean.values, parts.mean.values)):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


INTERRUPTED = """
import os, signal, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"open_clip", "hydra", "omegaconf"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, "experiments")
import pretrain_gpu
from unitune.pretrain.gpu import learners

loss = learners.denoise_loss

def stop(*arguments):
    learners.denoise_loss = loss
    os.kill(os.getpid(), signal.SIGTERM)
    return loss(*arguments)

learners.denoise_loss = stop
arguments = ["--small", "--out", sys.argv[1]]
codes = pretrain_gpu.main([*arguments, "--workers", "1"]), pretrain_gpu.main(arguments)
assert codes == (143, 0), codes
"""


@pytest.fixture(scope="module")
def came_back(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script brings back from two calls, the first stopped by a signal in the base stage; without open_clip and hydra."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(out)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base: stopped at step 1" in done.stdout and "base: goes on at step 1" in done.stdout
    return out


def test_few_small_files_come_back(came_back: Path):
    files = list(came_back.iterdir())
    assert len(files) <= FILES and all(f.stat().st_size < 16 * 2**20 for f in files)
    report = json.loads((came_back / "training.json").read_text())
    assert report["complete"] and tuple(report["parts"]) == PARTS
    assert all(done["step"] == 2 and done["finished"] and done["curve"] for done in report["parts"].values())
    assert {"samples", "error", "noun", "resolution"} <= report["parts"]["base"]["curve"][-1].keys()


def test_what_came_back_loads(came_back: Path, tmp_path: Path):
    unpack(came_back, tmp_path)
    text, image = tmp_path / "text" / "export", torch.rand(1, 3, 64, 64) * 2 - 1
    tokenizer, encoder = T5Tokenizer.from_pretrained(text / "tokenizer"), T5EncoderModel.from_pretrained(text / "text_encoder")
    states = encoder(tokenizer("a cat", return_tensors="pt").input_ids)[0]
    assert states.dtype == torch.float32 and states.isfinite().all()
    for part, channels, labels in (("base", 3, None), ("sr256", 6, torch.zeros(1))):
        unet = UNet2DConditionModel.from_pretrained(tmp_path / part / "export")
        assert unet(image.repeat(1, channels // 3, 1, 1)[..., :16, :16], torch.tensor([5]), states, class_labels=labels).sample.isfinite().all()
    assert read_facts(load_judge(tmp_path / "judge" / "export"), image)
    for part in ("clip", "clip2"):
        loaded = metrics_clip.load_clip(tmp_path / part / "export")
        assert metrics_clip.image_features(loaded, image).isfinite().all() and metrics_clip.text_features(loaded, ["a cat"]).isfinite().all()
    done = json.loads((tmp_path / "base" / "done.json").read_text())
    assert done["step"] == 2 and done["samples"] == 4 and done["machine"]
    assert json.loads((tmp_path / "base" / "curve.jsonl").read_text().splitlines()[-1])["samples"] == 4


def test_unpacking_spares_another_training(came_back: Path, tmp_path: Path):
    with pytest.raises(Refused, match="holds no training"):
        unpack(tmp_path, tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "checkpoint.pt").touch()
    with pytest.raises(Refused, match="another folder"):
        unpack(came_back, tmp_path)
    assert not (tmp_path / "text").exists()


def test_plans_are_checked():
    with pytest.raises(Refused, match="multiple of the batch size 3"):
        Plan((Part("text", 1, 1e-3, (Phase(1, 64, 3),)),))
