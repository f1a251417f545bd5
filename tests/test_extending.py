"""The examples of docs/extending.md: each is written into its files and run."""

import importlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from analytic import FakeStage, Gaussian, number
from torch.nn.functional import cosine_similarity

import unitune.benchmarks
import unitune.diffusion
import unitune.masks
import unitune.methods
import unitune.metrics
from unitune import images
from unitune.diffusion.guidance import Guidance, conditioned
from unitune.diffusion.loop import denoise
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import DDIM, Step, levels
from unitune.models import tiny

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
ROOMS: tuple[ModuleType, ...] = (
    unitune.benchmarks,
    unitune.diffusion,
    unitune.masks,
    unitune.methods,
    unitune.metrics,
)
SMALL = [
    *("model.resolution=32", "stage=base", "steps=2", "snapshots=[]", "sampler.steps=2"),
    *("sampler.sr.steps=1", "seeds=1", "oracle=0", "machine=cpu"),
]


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


def rows_of_the_table() -> Iterator[tuple[str, str]]:
    """The section that a row links to, and what its last two columns count."""
    row = re.compile(r"\(#(\S+?)\).*\| (\d+) \| (\d+ \+ \d+) \|$", re.MULTILINE)
    for anchor, files, lines in row.findall(PAGE):
        yield anchor, f"{files}: {lines}"


def test_the_table_counts_the_files_and_lines_of_every_example():
    found = {}
    for title, section in SECTIONS.items():
        blocks = re.findall(r"```(?:python|yaml)\n# \S+\n(.*?)```", section, re.DOTALL)
        counts = " + ".join(str(len(block.splitlines())) for block in blocks)
        found[title.lower().replace(" ", "-")] = f"{len(blocks)}: {counts}"
    assert dict(rows_of_the_table()) == found
    assert len(found) == 6 and all(count.startswith("2: ") for count in found.values())


def test_a_multistep_solver_is_of_order_two(written: Path):
    rule = importlib.import_module("unitune.diffusion.multistep").Multistep()
    schedule, gaussian = Schedule.cosine(20_000), Gaussian(sigma=0.5, mu=0.3)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    start = schedule.level(0.98)
    exact = gaussian.flow(schedule, x, t=start, mu=0.3)

    def error(step: Step, steps: int) -> float:
        x_0 = denoise(
            conditioned(FakeStage(gaussian, schedule=schedule).predict, number(0.0)),
            x,
            levels(start, steps)[:, None],
            schedule=schedule,
            step=step,
            noise=lambda role, k: torch.zeros_like(x),
        )
        return float((x_0 - exact).abs().max())

    errors = [error(rule, steps) for steps in (8, 16, 32)]
    assert all(fine < coarse / 3 for coarse, fine in itertools.pairwise(errors)), errors
    assert errors[1] < error(DDIM(), 32) / 2


def test_projected_guidance_pushes_across_x_0(written: Path):
    rule = importlib.import_module("unitune.diffusion.projected").Projected
    x_0, x_ref = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([3.0, 8.0])
    pushed = rule(along=0.0).push(x_0, x_ref, weight) - x_0
    along = cosine_similarity(pushed.flatten(1), x_0.flatten(1))
    assert float(pushed.abs().max()) > 1 and float(along.abs().max()) < 1e-6
    plain = Guidance().push(x_0, x_ref, weight)
    torch.testing.assert_close(rule(along=1.0).push(x_0, x_ref, weight), plain)


@pytest.mark.parametrize("sampler", ["multistep", "projected"])
def test_a_step_rule_and_a_guidance_rule_run(sampler: str, run_with: Callable[..., list[dict]]):
    rows = run_with(f"sampler={sampler}", "benchmark.limit=1", "metrics=none", "method=untuned")
    assert rows and {row["sampler"] for row in rows} == {sampler}


def test_a_mask_source_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("mask=box", "mask.right=0.5", "benchmark.limit=1", "metrics=none")
    assert rows and {row["saw_mask"] for row in rows} == {"box"}


def test_a_metric_runs(run_with: Callable[..., list[dict]]):
    rows = run_with("metrics=colourful", "benchmark.limit=1", "method=untuned")
    assert rows and all(row["scores"]["colourfulness"] > 0 for row in rows)


def test_a_method_runs(run_with: Callable[..., list[dict]]):
    more = ("metrics=none", "sampler=late_start", "benchmark.limit=1")
    rows = run_with("method=keys_values", *more)
    assert rows and {(row["method"], row["steps"]) for row in rows} == {("keys_values", 2)}
    assert any("beikkpic cat" in row["text"] for row in rows)


def test_a_benchmark_runs(run_with: Callable[..., list[dict]], tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, name in enumerate(("one", "two")):
        images.save_png(torch.full((1, 3, 32, 32), k - 0.5), folder / f"{name}.png")
    rows = run_with("benchmark=same_edits", f"benchmark.path={folder}", "metrics=none")
    asked = {(row["example"], row["prompt"]) for row in rows}
    prompts = ("a cat in the snow", "a cat at night")
    assert asked == set(itertools.product(("one", "two"), prompts))
