"""Commands that are refused in one line with exit code 2, before the model loads."""

import json
import shutil

import pytest
from test_run import CAT, SMALL

from unitune.models import tiny
from unitune.runs import config


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return f"model.path={tiny.floyd(tmp_path_factory.mktemp('run') / 'tiny')}"


REFUSED = [
    (
        ["sampler=foo"],
        "base, cfg, dreambooth, imagic, interpolated, late_start, masked, prompt_guidance, "
        "prompt_to_prompt",
    ),
    (["sampler.start=1.5"], "(0, 1]"),
    (["sampler.start=0.0"], "(0, 1]"),
    (["+sampler.foo=1"], "foo"),
    (["lr=0"], "lr must be above 0"),
    (["lr=-1e-4"], "lr must be above 0"),
    (["seeds=0"], "seeds must be"),
    (["seed=a"], "seed must be a whole number"),
    (["snapshot=7"], "0, 2"),
    (["sampler.guidance.weight=nan"], "finite"),
    (["machine=gpu"], "use machine=cpu"),
    (["image=no such, picture.png", "edit=a dog"], "no such, picture.png: no such file"),
    ([f"image={CAT}"], "no edit prompt"),
    (["edit=@absent.txt"], "absent.txt"),
    (["edit=a dog", "benchmark=photo"], "no effect with benchmark=photo"),
    (["model.path=nowhere"], "no model folder nowhere"),
    (["benchmark=folder"], "benchmark.path"),
    (["from=nowhere"], "from="),
    (["--config-name", "absent"], "absent"),
    (["+x._target_=os.system", "+x.command=touch hacked"], "os.system"),
    (["sampler._target_=builtins.exec"], "builtins.exec"),
    (["metrics.use=[{_target_: subprocess.run, args: [touch, hacked]}]"], "subprocess.run"),
    (
        ["+logger.x._target_=unitune.images.os.system", "+logger.x.command=touch hacked"],
        "unitune.images.os.system",
    ),
    (["sampler=cfg,foo", "-m"], "base, cfg, dreambooth"),
    (["seeds=0,-1", "-m"], "2 runs of the sweep failed"),
]


@pytest.mark.parametrize(("bad", "said"), REFUSED, ids=[" ".join(bad) for bad, _ in REFUSED])
def test_refused_in_one_line_before_the_model_loads(typed, here, model, bad, said, monkeypatch):
    if "machine=gpu" in bad:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = typed(model, *SMALL, *bad)
    lines = [line for line in answer.err.splitlines() if line.startswith("unitune: ")]
    assert answer.code == 2 and len(lines) == 1 and said in lines[0], answer.err
    assert (
        "Traceback" not in answer.err
        and "Error executing job" not in answer.err
        and "loading" not in answer.err
    )
    assert list(here.iterdir()) == []


def test_facts_that_the_judge_does_not_know_are_refused_before_the_model_loads(typed, here, model):
    (bench := here / "bench").mkdir()
    shutil.copy(CAT, bench / "cat.png")
    (bench / "edits.jsonl").write_text(
        json.dumps({"image": "cat.png", "edit": "a dog", "facts": {"noun": ["dog"]}})
    )
    answer = typed(model, *SMALL, "benchmark=folder", f"benchmark.path={bench}", "metrics=offline")
    assert (
        answer.code == 2
        and "unknown fact 'noun'" in answer.err
        and "loading" not in answer.err
        and "Traceback" not in answer.err
    )
    assert list(here.iterdir()) == [bench]


def test_a_config_of_others_runs_no_code(typed, here, model):
    for text in (
        "sampler: {_target_: os.system, command: touch hacked}\n",
        "x: !!python/object/apply:os.system ['touch hacked']\n",
    ):
        (here / "run").mkdir(exist_ok=True)
        config.write(text, here / "run")
        assert typed("from=run").code != 0
        (here / "run/scores.jsonl").write_text("")
        assert typed("--config-name", "score", "runs=run", "metrics=none").code != 0
    assert sorted(path.name for path in here.rglob("*")) == ["config.yaml", "run", "scores.jsonl"]


def test_a_config_of_an_earlier_version_is_told_the_new_name(typed, here, model):
    answer = typed(model, *SMALL, "store._target_=unitune.store.Store")
    assert answer.code == 2 and "its name is now unitune.storage.store.Store" in answer.err
    assert answer.err.count("\n") == 1 and list(here.iterdir()) == []
