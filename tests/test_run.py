"""The whole program as a person meets it: what is typed, printed and left on the disk.

Mostly within this process, which is quicker.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import SMALL
from omegaconf import OmegaConf

from unitune.models import tiny
from unitune.runs import experiment

ROOT = Path(__file__).parent.parent
CAT = ROOT / "src/unitune/assets/demo/cat-city-0.png"
TIMED = ("cost", "run", "environment")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return f"model.path={tiny.floyd(tmp_path_factory.mktemp('run') / 'tiny')}"


def process(*arguments: str, folder: Path, options: tuple[str, ...] = ()) -> subprocess.Popen:
    """`python run.py ...` in a process of its own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, *options, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.rglob("scores.jsonl"))


def rows(run: Path, row: str = "edit") -> list[dict]:
    return [
        line
        for line in map(json.loads, (run / "scores.jsonl").read_text().splitlines())
        if line["row"] == row
    ]


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "store").glob("tuned-*"))


def test_help_is_quick_and_complete(tmp_path):
    out, err = process("--help", folder=tmp_path, options=("-X", "importtime")).communicate(
        timeout=60
    )
    imported = {
        line.rpartition("|")[2].strip()
        for line in err.splitlines()
        if line.startswith("import time:")
    }
    assert "hydra" in imported and not imported & {
        "torch",
        "numpy",
        "pytorch_lightning",
        "transformers",
        "diffusers",
    }
    for group in (ROOT / "conf").iterdir():
        options = ", ".join(sorted(file.stem for file in group.glob("*.yaml")))
        assert not options or f"{group.name}: {options}" in out
    for field in (
        "image",
        "edit",
        "lr",
        "steps",
        "batch_size",
        "seed",
        "seeds",
        "snapshot",
        "from",
        "fit",
        "caption",
    ):
        assert f"\n{field}:" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_and_its_folder(typed, here, model):
    prompt = "a cat's [hat], (un été) = 1! & 50% #2 🐈"
    shutil.copy(CAT, here / "my cat, it's [1].png")
    answer = typed(
        model, "image=my cat, it's [1].png", f"edit={prompt}", *SMALL, "seeds=2", "store.path=kept"
    )
    assert answer.code == 0, answer.err
    (run,) = runs(here / "outputs")
    assert {"config.yaml", "scores.jsonl", "grid.png"} <= {
        path.name for path in run.iterdir()
    } and not (run / "run.log").exists()
    edits = rows(run)
    assert [(line["prompt"], line["seed"]) for line in edits] == [(prompt, 0), (prompt, 1)]
    assert edits[0]["text"].endswith(prompt) and all(
        (run / line["image"]).is_file() for line in edits
    )
    assert {"torch", "device", "threads", "dtype", "batch"} <= set(
        edits[0]["environment"]
    ) and edits[0]["environment"]["batch"] == 2
    assert f"grid: {run}/grid.png" in answer.out and prompt in answer.out
    assert "outside it, use model=if_m or larger" in answer.err
    config = OmegaConf.load(run / "config.yaml")
    assert config.edit == [prompt] and "hydra" not in config

    again = typed(f"from={run}", "store.path=kept")
    assert again.code == 0 and again.count("tuned ") == 0
    (other,) = set(runs(here / "outputs")) - {run}
    compared = [
        [
            {k: v for k, v in line.items() if k not in TIMED}
            for row in ("edit", "copy")
            for line in rows(folder, row)
        ]
        for folder in (run, other)
    ]
    assert compared[0] == compared[1]
    pictures = sorted(path.name for path in run.glob("*.png"))
    assert len(pictures) == 4 and all(
        (run / name).read_bytes() == (other / name).read_bytes() for name in pictures
    )


def test_prompts_are_never_swept_over(typed, here, model):
    (here / "prompts.txt").write_text("a dog, running\na cat's hat\n")
    several = [
        "edit=a cat in the snow, pencil sketch",
        "edit=@prompts.txt",
        "edit=['a dog','a cat']",
    ]
    expected = [
        ["a cat in the snow, pencil sketch"],
        ["a dog, running", "a cat's hat"],
        ["a dog", "a cat"],
    ]
    for mode, edit, prompts in zip(([], ["-m"], []), several, expected, strict=True):
        before = set(runs(here))
        answer = typed(model, edit, *mode, *SMALL, "method=untuned" if not mode else "seed=1")
        assert answer.code == 2 if not mode else answer.code == 0, (
            answer.err
        )  # untuned has no method.tune.*
        if not mode:
            answer = typed(
                model, edit, *[s for s in SMALL if not s.startswith("method")], "method=untuned"
            )
        (run,) = set(runs(here)) - before
        assert [line["prompt"] for line in rows(run)] == prompts and rows(run)[0][
            "example"
        ] == "cat-city-0"


def test_a_sweep_tunes_once_per_tuning_and_loads_once(typed, here, model):
    answer = typed(model, "-m", "sampler=cfg,sdedit", "lr=1e-4,1e-3", "edit=a dog", *SMALL)
    assert answer.code == 0, answer.err
    assert (
        len(runs(here)) == 4 and len(entries(here)) == 3
    )  # two rates of the first stage; lr is not that of the second
    assert (
        answer.count("loading pocket") == 1
        and answer.count("tuned base") == 2
        and answer.count("tuned sr256") == 1
    )
    sampled = {(line["sampler"], line["start"]) for run in runs(here) for line in rows(run)}
    start = OmegaConf.load(ROOT / "conf/model/pocket.yaml").dials.sdedit.start
    assert sampled == {("cfg", 1.0), ("sdedit", start)} and start < 1

    kept = entries(here)
    answer = typed(
        model,
        "-m",
        "lr=0.0001",
        "edit=a bird, flying",
        "sampler.guidance.weight=5.0",
        "snapshot=0,2",
        *SMALL,
    )
    assert answer.code == 0 and entries(here) == kept and answer.count("tuned ") == 0, answer.err
    done = [line for run in runs(here) for line in rows(run) if line["prompt"] == "a bird, flying"]
    assert sorted((line["steps"], line["weight"]) for line in done) == [(0, 5.0), (2, 5.0)]


def test_a_failed_cell_does_not_stop_the_others(typed, here, model, monkeypatch):
    real = experiment.run

    def run(setting, examples, *, folder):
        if setting.sampler.name == "cfg":
            raise RuntimeError("a bug\nwith a second line")
        return real(setting, examples, folder=folder)

    monkeypatch.setattr(experiment, "run", run)
    small = [s for s in SMALL if s != "seeds=1"]
    answer = typed(model, "-m", *small, "sampler=cfg,sdedit", "seeds=1,0", "edit=a dog")
    assert answer.code == 1 and len(runs(here)) == 1 and "Traceback" in answer.err
    table = answer.err.splitlines()[-4:]
    assert table[0] == "unitune: 3 runs of the sweep failed:"
    names = [line.split()[0].rpartition("-")[0] for line in table[1:]]
    assert names == ["sampler=cfg,seeds=0", "sampler=cfg,seeds=1", "sampler=sdedit,seeds=0"]
    assert (
        "a bug" in table[2]
        and "second line" not in table[2]
        and "seeds must be" in table[1]
        and "sampler=sdedit seeds=0" in table[3]
    )


def test_a_low_rate_is_said(typed, model, here):
    assert "far below the" in typed(model, *SMALL, "lr=1e-5", "edit=a dog").err


def test_stopped_while_tuning_and_then_finished_and_scored(typed, here, model):
    """SIGTERM: 143, no result; the same command resumes; to score again loads no diffusion."""
    command = [
        model,
        "edit=a dog",
        *[s for s in SMALL if s != "steps=2"],
        "steps=20",
        "sampler=sdedit",
        "stage=base",
    ]
    started = process(*command, folder=here)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("tuning base: 5 of 20"):
            started.send_signal(signal.SIGTERM)
            break
    _, err = started.communicate(timeout=120)
    assert (
        started.returncode == 143
        and "unitune: stopped" in err
        and not entries(here)
        and not runs(here)
    )

    finished = typed(*command)
    assert (
        finished.code == 0
        and not finished.count("tuning base: 5 of 20")
        and finished.count("tuning base: 20 of 20")
    ), finished.err
    (run,) = runs(here)
    assert len(entries(here)) == 1

    pixel = "{_target_: unitune.metrics.pixel."
    chosen = f"metrics.use=[{pixel}MSEOutsideMask}},{pixel}SSIM}}]"
    scored = process(
        "--config-name", "score", f"runs={here}", chosen, folder=here, options=("-X", "importtime")
    )
    out, err = scored.communicate(timeout=120)
    imported = {
        line.rpartition("|")[2].strip()
        for line in err.splitlines()
        if line.startswith("import time:")
    }
    assert (
        scored.returncode == 0
        and "torch" in imported
        and not imported & {"diffusers", "unitune.models.cascade", "pytorch_lightning"}
    ), err[-2000:]
    first, second = rows(run)
    assert (
        first["scores"] == {} and set(second["scores"]) == {"mse_outside", "ssim"} and "ssim" in out
    )
    assert {k: v for k, v in first.items() if k != "scores"} == {
        k: v for k, v in second.items() if k != "scores"
    }
    assert [line["scores"]["ssim"] for line in rows(run, "copy")[1:]] == [
        pytest.approx(1.0, abs=1e-6)
    ]


@pytest.mark.slow
def test_ctrl_c_is_130(here, model):
    running = process(
        model, "edit=a dog", *SMALL, "stage=base", "method.tune.base.steps=100000", folder=here
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("tuning 1"):  # "tuning 199 of 199 tensors": training begins
            time.sleep(2)
            running.send_signal(signal.SIGINT)
            break
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130 and "unitune: stopped" in err and "Traceback" not in err


@pytest.mark.slow
def test_wandb_without_network(here, model):
    """Each cell of a sweep is a run of its own, kept in its folder."""
    code = "import socket, runpy, sys; socket.getaddrinfo = None; "
    code += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    settings = ["-m", model, "edit=a dog", "logger=wandb", "sampler=cfg,sdedit", *SMALL]
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "run.py"), *settings],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [len(list(run.rglob("*.wandb"))) for run in runs(here)] == [1, 1]


@pytest.mark.slow
def test_two_processes_at_once_get_two_folders_and_one_tuning(here, model):
    both = [process(model, "edit=a dog", *SMALL, folder=here) for _ in range(2)]
    for one in both:
        _, err = one.communicate(timeout=120)
        assert one.returncode == 0, err[-2000:]
    assert len(runs(here)) == 2 and len(entries(here)) == 1


def test_the_scenes_job_writes_a_benchmark(tmp_path: Path):
    job = process(
        "--config-name",
        "scenes",
        "seed=7",
        "per_type=1",
        f"folder={tmp_path / 'private'}",
        folder=tmp_path,
    )
    _, err = job.communicate(timeout=120)
    assert job.returncode == 0, err[-2000:]
    assert len((tmp_path / "private" / "edits.jsonl").read_text().splitlines()) == 10
