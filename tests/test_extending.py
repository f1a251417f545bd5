"""The examples of docs/extending.md: each is written into its files and run."""

import importlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from analytic import FakeStage, Gaussian, number

import unitune.diffusion
import unitune.masks
import unitune.methods
import unitune.metrics
from unitune.diffusion.loop import denoise
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import DDIM, levels
from unitune.models import tiny

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
FILES = dict(BLOCK.findall(PAGE.read_text()))
ROOMS: tuple[ModuleType, ...] = (
    unitune.diffusion, unitune.masks, unitune.methods, unitune.metrics,
)  # fmt: skip
SMALL = (
    "model.resolution=32", "stage=base", "steps=2", "snapshots=[]", "sampler.steps=2",
    "sampler.sr.steps=1", "seeds=1", "oracle=0", "machine=cpu", "benchmark.limit=1",
)  # fmt: skip


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples' files in a folder whose rooms stand beside the package's own."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for room in ROOMS:
        extra = str(tmp_path / "src" / room.__name__.replace(".", "/"))
        monkeypatch.setattr(room, "__path__", [*room.__path__, extra])
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def run_with(written: Path, typed: Callable, tmp_path: Path) -> Callable[..., list[dict]]:
    """Run with an option of the examples; return the records of its edits."""
    model = f"model.path={tiny.floyd(tmp_path / 'tiny')}"

    def run(*options: str) -> list[dict]:
        search = f"hydra.searchpath=[file://{written}/conf]"
        answer = typed(*options, model, *SMALL, search, f"hydra.run.dir={tmp_path}/run")
        assert answer.code == 0, answer.err
        lines = (tmp_path / "run" / "scores.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["row"] == "edit"]

    return run


def test_an_example_is_one_file_and_its_yaml():
    parts = {"multistep", "box", "keys_values"}
    assert {Path(name).stem for name in FILES} == parts | {"colourfulness", "colourful"}
    assert len(FILES) == 8
    longest = max(len(text.splitlines()) for name, text in FILES.items() if name.endswith(".py"))
    assert longest <= 45


def test_a_multistep_solver_is_of_order_two(written: Path):
    rule = importlib.import_module("unitune.diffusion.multistep").Multistep()
    schedule, gaussian = Schedule.cosine(20_000), Gaussian(sigma=0.5, mu=0.3)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    start = schedule.level(0.98)
    exact = gaussian.flow(schedule, x, t=start, mu=0.3)

    def error(step: object, steps: int) -> float:
        stage = FakeStage(gaussian, schedule=schedule)
        condition = number(0.0)
        x_0 = denoise(
            lambda x_t, t: stage.predict(x_t, t, condition), x,
            levels(schedule, start, steps)[:, None], schedule=schedule, step=step,  # type: ignore
            noise=lambda role, k: torch.zeros_like(x),
        )  # fmt: skip
        return float((x_0 - exact).abs().max())

    errors = [error(rule, steps) for steps in (8, 16, 32)]
    assert all(fine < coarse / 3 for coarse, fine in itertools.pairwise(errors)), errors
    assert errors[1] < error(DDIM(), 32) / 2


def test_a_step_rule_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("sampler=multistep")
    assert rows and {row["sampler"] for row in rows} == {"multistep"}


def test_a_mask_source_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("mask=box", "mask.right=0.5")
    assert rows and {row["saw_mask"] for row in rows} == {"box"}


def test_a_metric_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("metrics=colourful")
    assert rows and all(row["scores"]["colourfulness"] > 0 for row in rows)


def test_a_method_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("method=keys_values", "metrics=none", "sampler=late_start")
    assert rows and {(row["method"], row["steps"]) for row in rows} == {("keys_values", 2)}
    assert any("beikkpic cat" in row["text"] for row in rows)
