"""The paper's tuning, 128 steps of batch 4 on both stages, on the embedded cascade."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import T5EncoderModel

from unitune.images import from_uint8
from unitune.methods.unitune import UniTune
from unitune.models import cascade as backend
from unitune.models.cascade import weights_digest
from unitune.scenes import random_scene, render
from unitune.storage.store import Store
from unitune.tuning import make
from unitune.tuning.recipe import Tuning
from unitune.tuning.select import ParameterSelection
from unitune.types import Example, Request

POCKET = Path(str(files("unitune") / "assets" / "pocket"))
STEPS = 128


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not (POCKET / "base").is_dir(), reason="the pocket cascade is not in this tree")
def test_128_steps_of_4_on_both_stages(tmp_store: Store, monkeypatch: pytest.MonkeyPatch):
    encoders: list[T5EncoderModel] = []
    read = T5EncoderModel.from_pretrained

    def noted(folder: object, **settings: object):
        made = read(folder, **settings)
        if folder is not None:  # else the class is asked for its shape, before anything is read
            encoders.append(made[0])
        return made

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", noted)
    cascade = backend.load(
        "pocket", POCKET, stages=("base", "sr256"), device=torch.device("cpu"), dtype=torch.float32
    )
    (encoder,) = encoders
    text_before, before = (
        weights_digest(encoder),
        {stage.name: weights_digest(stage.network) for stage in cascade.stages},
    )
    base = {
        stage.name: {name: p.detach().clone() for name, p in stage.network.named_parameters()}
        for stage in cascade.stages
    }
    rows: dict[str, list[int]] = {"base": [], "sr256": []}
    for stage in cascade.stages:
        output = stage.output
        monkeypatch.setattr(
            stage,
            "output",
            lambda x, t, c, n=stage.name, output=output: rows[n].append(len(x)) or output(x, t, c),
        )

    pixels, _ = render(random_scene(np.random.default_rng(0)))
    example = Example("scene", from_uint8(pixels), (Request("a dog"),))
    tuning = Tuning(
        lr=3e-4, steps=STEPS, crop=64, select=ParameterSelection(freeze=("down_blocks.*",))
    )
    tuned = make.prepare(
        UniTune({"base": tuning, "sr256": tuning}).recipe(example),
        cascade,
        example,
        store=tmp_store,
    )
    assert rows == {"base": [4] * STEPS, "sr256": [4] * STEPS}
    assert tuned.steps == STEPS and tuned.cost.optimizer_steps == 2 * STEPS

    def unchanged_and_clean() -> None:
        assert {stage.name: weights_digest(stage.network) for stage in cascade.stages} == before
        assert weights_digest(encoder) == text_before and not any(
            p.requires_grad or p.grad is not None for p in encoder.parameters()
        )

    unchanged_and_clean()
    for stage in cascade.stages:
        trained = tuned.weights[stage.name]
        assert set(trained) == {
            name for name in base[stage.name] if not name.startswith("down_blocks.")
        }
        assert [name for name, w in trained.items() if torch.equal(w, base[stage.name][name])] == []
        assert all(w.isfinite().all() for w in trained.values())
    with cascade.using(tuned):
        for stage in cascade.stages:
            inside = dict(stage.network.named_parameters())
            assert weights_digest(stage.network) != before[stage.name]
            assert all(
                torch.equal(p, base[stage.name][name])
                for name, p in inside.items()
                if name.startswith("down_blocks.")
            )
    unchanged_and_clean()
    with pytest.raises(KeyboardInterrupt), cascade.using(tuned):
        raise KeyboardInterrupt
    unchanged_and_clean()
