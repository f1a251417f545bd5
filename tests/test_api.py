"""The public names: what they are, that they are loaded late, and one edit made with them."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

import unitune
from unitune import pocket
from unitune.models import pocket as embedded
from unitune.models import tiny

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "diffusers", "transformers", "pytorch_lightning", "hydra", "wandb")


def test_names_are_there_and_loaded_late():
    for name in unitune.__all__:  # `pocket` is a module, the others are classes and functions
        assert getattr(unitune, name).__name__.rpartition(".")[2] == name
    assert set(unitune.__all__) <= set(dir(unitune)) and 15 <= len(unitune.__all__) <= 30
    with pytest.raises(AttributeError, match="module 'unitune' has no attribute 'nothing'"):
        unitune.nothing  # noqa: B018
    code = f"import sys, unitune; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_embedded_cascade_in_python_is_that_of_conf(run):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config")
    sampler = run.make(cfg.sampler)
    own = {"interpolation": sampler.interpolation, "max_pixels": sampler.max_pixels}
    assert sampler == replace(pocket.sampler(), **own)
    assert cfg.model.guidance == embedded.GUIDANCE and cfg.model.stages == [*embedded.STAGES]

    def plain(tunings: Mapping[str, object]) -> object:
        """Lists and tuples are alike; conf keeps snapshots that fewer steps do not reach."""
        made = {name: asdict(one) | {"snapshots": []} for name, one in tunings.items()}
        return json.loads(json.dumps(made))

    tune = {stage: run.make(one) for stage, one in cfg.method.tune.items()}
    assert plain(tune) == plain(pocket.tunings())


def test_one_edit_of_a_picture(tmp_path: Path):
    model = unitune.load(tiny.floyd(tmp_path / "tiny"), device="cpu", precision="fp32")
    image = unitune.picture(ROOT / "src/unitune/assets/demo/cat-city-0.png", model)
    assert image.shape == (1, 3, model.resolution, model.resolution)
    requests = (unitune.Request("a dog"), unitune.Request("a cat in the snow"))
    example = unitune.Example("cat", image, requests, caption="a cat")
    short = unitune.Tuning(lr=1e-3, steps=2, snapshots=())
    method = unitune.UniTune({"base": short}, stages=("base",), prompt="{caption}")
    tuned = unitune.tune(method, model, example, store=tmp_path / "store")
    untuned = unitune.tune(method, model, example, store=tmp_path / "store", at=0)
    assert (tuned.steps, untuned.steps, set(tuned.weights)) == (2, 0, {"base"})
    quick = unitune.SuperResolution(steps=1)
    sampler = unitune.Sampler("quick", start=0.9, steps=2, guidance=unitune.Guidance(2.0), sr=quick)
    edits = unitune.sample(sampler, model, example, tuned, seeds=2)
    assert [(edit.prompt, edit.seed) for edit in edits][:2] == [("a dog", 0), ("a dog", 1)]
    assert len(edits) == 4 and not torch.equal(edits[0].image, edits[1].image)
    unitune.save_png(edits[0].image, tmp_path / "edit.png")
    assert (tmp_path / "edit.png").is_file()


def test_the_readmes_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(lines.strip().splitlines()) <= 14
    tunings, sampler = pocket.tunings, pocket.sampler()
    monkeypatch.setattr(pocket, "tunings", lambda: tunings(steps=1))
    quick = replace(sampler, steps=1, sr=replace(sampler.sr, steps=1))
    monkeypatch.setattr(pocket, "sampler", lambda: quick)
    monkeypatch.chdir(tmp_path)
    demo = ROOT / "src/unitune/assets/demo/cat-city-0.png"
    (tmp_path / "photo.jpg").symlink_to(demo)
    exec(compile(lines, "README.md", "exec"), {})
    assert sorted(file.name for file in tmp_path.glob("edit-*.png")) == ["edit-0.png", "edit-1.png"]
