"""The claims' scripts: headers, verdicts from records alone, and that a finished cell is not run again."""

import importlib.util
import itertools
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from unitune import records
from unitune.errors import Refused
from unitune.records import Record

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(HERE))
claims, every = script("claims"), script("all")
KINDS = (("replace", True), ("add", False), ("restyle", True))


def record(run: str = "cost/snapshot=64", example: str = "image-0", kind: str = "add", aligned: bool | None = False, method: str = "unitune", **more) -> Record:
    scores, start = more.pop("scores", {name: 0.5 for name in (*claims.SCORES, "direction")}), more.pop("start", 0.9)
    weight = more.pop("weight", 6.0)
    return Record(
        run=run, method=method, sampler="" if more.get("row") == "reference" else "unitune", model="pocket", example=example, kind=kind, aligned=aligned,
        prompt=more.pop("prompt", f"{kind} {example}"), text="", seed=more.pop("seed", 0), weight=weight, start=start, steps=64, image="a.png", scores=scores,
        cost={"seconds": 1.0}, environment={}, **more,
    )  # fmt: skip


def synthetic(claim: str) -> list[Record]:
    """What a finished sweep of two images leaves, with numbers that differ from cell to cell."""
    found = []
    for sweep in every.SEVERAL.get(claim, (claim,)):
        planned = yaml.safe_load((ROOT / f"conf/experiment/{sweep}.yaml").read_text()).get("plan", {}).get("starts", [0.9])
        for k, cell in enumerate(every.cells(sweep)):
            starts = [float(cell["sampler.start"])] if "sampler.start" in cell else planned
            for image, (kind, aligned), seed, start in itertools.product(range(2), KINDS, range(8 if claim == "best_of_n" else 1), starts):
                scores = {name: 0.1 * k + 0.01 * image + 0.001 * seed for name in (*claims.SCORES, "direction")} | (
                    {"choosing": seed / 8} if claim == "best_of_n" else {}
                )
                run = f"{sweep}/{every.label(cell)}"
                found.append(
                    record(
                        run,
                        f"image-{image}",
                        kind,
                        aligned,
                        cell.get("method", "unitune"),
                        seed=seed,
                        start=start,
                        weight=float(cell.get("sampler.guidance.weight", 6.0)),
                        scores=scores,
                    )
                )
    for method, image, (kind, aligned) in itertools.product(("copy of the base", "exact target"), range(2), KINDS):
        found.append(record(f"{claim}/reference={method}", f"image-{image}", kind, aligned, method, row="reference"))
    return found


def test_every_claim_has_a_script_and_sweeps():
    sweeps = [sweep for claim in (*every.CLAIMS, "baselines", "scenes_edits") for sweep in every.SEVERAL.get(claim, (claim,))]
    assert all((ROOT / f"conf/experiment/{sweep}.yaml").is_file() for sweep in sweeps)
    own = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml") if "quick" in re.findall(r"^  - (\w+)$", path.read_text(), re.MULTILINE)}
    assert own == set(sweeps), "a sweep that no script reads"
    told = re.findall(r"^\| `(\w+)` \|", (HERE / "README.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(every.CLAIMS)


def test_a_reference_row_is_in_no_group_but_its_own():
    edit, reference = record(weight=1.0), record("guidance/reference=copy of the base", method="copy of the base", row="reference", weight=1.0)
    assert claims.matching([edit, reference], "weight=1") == [edit] and claims.matching([edit, reference], "reference=copy of the base") == [reference]


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_headers_say_what_a_reader_needs(claim):
    doc = script(claim).__doc__ or ""
    assert re.findall(r"^(Command|Claim|Expected|Minutes): +\S", doc, re.MULTILINE) == ["Command", "Claim", "Expected", "Minutes"]
    assert all(f"experiment={sweep}" in doc or sweep in doc for sweep in every.SEVERAL.get(claim, (claim,)))
    assert len((HERE / f"{claim}.py").read_text().splitlines()) <= 70


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_cells_are_named_as_hydra_names_them(claim):
    for sweep in every.SEVERAL.get(claim, (claim,)):
        parsed = OverridesParser.create().parse_overrides([f"{key}={','.join(values)}" for key, values in every.grid(sweep).items()])
        (cells,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        assert [",".join(sorted(cell)) for cell in cells] == [every.label(cell) for cell in every.cells(sweep)]


def test_a_sweep_s_folder_is_the_one_that_is_looked_into(run):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=["experiment=cost", "benchmark.limit=7", "snapshot=64"], return_hydra_config=True)
    assert cfg.hydra.sweep.dir == str(every.SWEEPS / "cost-7") == str(claims.SWEEPS / "cost-7")
    assert OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["subdir"] == "${hydra.job.override_dirname}"  # type: ignore[index]
    assert cfg.hydra.job.config.override_dirname.exclude_keys == ["experiment", "seeds", "benchmark.limit"]


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_scripts_answer_from_records(claim, tmp_path, monkeypatch, capsys):
    """In this process, as each would load the libraries again in its own."""
    claims.keep(synthetic(claim), tmp_path / "records.jsonl")
    said = asked(claim, tmp_path / "records.jsonl", monkeypatch, capsys)
    assert said.startswith("## ") and "2 images" in said and re.search(r"\|copy of the base( of these edits)? \(reference\)\|", said)
    assert said.count("**too few for a verdict**") == said.count("\n- ") >= 1 and "not asked" not in said


@pytest.mark.parametrize("file", [claim for claim in (*every.CLAIMS, "baselines", "scenes_edits") if (HERE / f"records/{claim}.jsonl").is_file()])
def test_scripts_answer_from_the_committed_records(file, monkeypatch, capsys):
    said = asked(file, HERE / f"records/{file}.jsonl", monkeypatch, capsys)
    assert said.count("\n- ") >= 1 and "not asked" not in said


def asked(claim: str, file: Path, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", [f"{claim}.py", "--from-records", str(file)])
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr("unitune.statistics.RESAMPLES", 99)
    runpy.run_path(str(HERE / f"{claim}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_comparison_of_six_images_needs_no_names_of_cells(tmp_path, monkeypatch, capsys):
    """Its rows are named by method and sampler, so that a plain sweep, whose cells are called 0-unitune-unitune and so on, is read as well."""
    others = [(name, name) for name in ("untuned", "dreambooth", "textual_inversion", "imagic")]
    rows = [("unitune", "unitune"), ("unitune", "late_start"), *others]
    made = [replace(record("baselines/0-a-b", f"image-{k}", method=method), sampler=sampler) for method, sampler in rows for k in range(6)]
    claims.keep(made, tmp_path / "records.jsonl")
    said = asked("baselines", tmp_path / "records.jsonl", monkeypatch, capsys)
    assert said.count("**too few for a verdict**") == 4 and "6 images" in said and "not asked" not in said


def test_a_script_runs_as_a_command(tmp_path):
    claims.keep(synthetic("guidance"), tmp_path / "records.jsonl")
    command = [sys.executable, str(HERE / "guidance.py"), "--from-records", str(tmp_path / "records.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0 and done.stdout.startswith("## Paper Fig. 4"), done.stderr


def test_a_sweep_that_was_not_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guidance.py"])
    with pytest.raises(
        SystemExit, match=re.escape("guidance: no sweep in outputs/experiments/guidance-2; make it: python run.py -m experiment=guidance benchmark")
    ):
        runpy.run_path(str(HERE / "guidance.py"), run_name="__main__")


def test_a_claim_is_decided_by_its_interval():
    found = [record("x/a=1", f"image-{k}", scores={"psnr": 2.0 + 0.01 * k}) for k in range(24)] + [
        record("x/a=2", f"image-{k}", scores={"psnr": 1.0}) for k in range(24)
    ]
    number = claims.contrast("psnr", {"a=1": 1, "a=2": -1})
    assert number(found)["image-0"] == 1.0 and len(number(found)) == 24
    assert "**held**" in claims.Claim("more", number).decided(found)
    assert "**did not hold**" in claims.Claim("much more", number, above=1.2).decided(found)
    assert "**too few for a verdict**" in claims.Claim("more", number).decided(found[:10] + found[24:34])
    assert "**not asked** (no record has a=3" in claims.Claim("more", claims.contrast("psnr", {"a=3": 1})).decided(found)


def test_images_without_a_group_are_left_out():
    found = [record("x/a=1", "one", "add"), record("x/a=2", "one", "add"), record("x/a=1", "two", "restyle"), record("x/a=2", "two", "restyle")]
    assert claims.contrast("psnr", {"kind=add,a=1": 1, "kind=add,a=2": -1})(found) == {"one": 0.0}
    assert claims.contrast("psnr", {"scope=global,a=1": 1})(found) == {"two": 0.5}
    assert [claims.traits(record(kind=kind))["scope"] for kind in ("add", "time", "two")] == ["local", "global", ""], "two edits may be one of each"


def test_references_are_of_the_edits_that_they_stand_below():
    """An edit that some rows lack, and a reference that two sweeps have, do not shift what the rows are compared with."""
    level = {"add": 0.9, "restyle": 0.1}
    found = [record(f"x/a={k}", kind=kind) for k, kinds in ((1, ("add", "restyle")), (2, ("add",)), (3, ("add",))) for kind in kinds]
    copies = [record("x/reference=copy of the base", kind=kind, method="copy of the base", row="reference", scores={"psnr": level[kind]}) for kind in level]
    said = claims.table([*found, *copies, *copies], {"one": "a=1", "two": "a=2", "three": "a=3"}, scores={"psnr": "dB"}, costs={}).splitlines()[2:]
    copy = "copy of the base of these edits (reference)"
    assert said == ["|one|2|0.5|", f"|{copy}|2|0.5|", "|two|1|0.5|", "|three|1|0.5|", f"|{copy}|1|0.9|"]
    assert claims.table([*found[:2], *copies], {"one": "a=1"}, scores={"psnr": "dB"}, costs={}).endswith("|copy of the base (reference)|2|0.5|")


def test_seconds_of_unequal_threads_are_told():
    found = [replace(record(), environment={"threads": threads}) for threads in (1, 2)]
    told = [claims.table(some, {"one": "snapshot=64"}, scores={}, costs={"seconds": "s"}) for some in (found, found[:1])]
    assert ["Seconds are of 1 and 2 threads" in said for said in told] == [True, False]


def test_the_best_of_n_costs_what_all_of_them_did():
    best = script("best_of_n")
    found = [record(seed=seed, scores={"choosing": seed / 8}) for seed in range(4)]
    assert [(r.seed, r.cost["seconds"]) for r in best.chosen(found) if r.run.endswith("N=2")] == [(1, 2.0), (3, 2.0)]


def test_an_area_is_above_what_the_copy_of_the_same_image_has():
    """Else an interval over images would be one of how their base images align."""
    trade, copy = script("tradeoff"), {"image-0": 0.9, "image-1": 0.1}
    found = [record("tradeoff/x", image, scores={"alignment": level + 0.05, "stlpips": 0.5}) for image, level in copy.items()]
    found += [
        record("tradeoff/reference=copy of the base", image, method="copy of the base", row="reference", scores={"alignment": level})
        for image, level in copy.items()
    ]
    swept = trade.front(found, "unitune", "alignment")
    assert swept.x == pytest.approx(0.05) and trade.area(swept, corner=trade.CORNER) == pytest.approx((0.025,) * 3)
    assert "|UniTune|0.025 [0.025, 0.025]|" in trade.covered([replace(r, scores=r.scores | {"direction": 0.1}) for r in found])


def write(folder: Path, made: list[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in made:
        records.append(folder / records.FILE, line)


def of_image(image: int) -> list[Record]:
    made = [record("cell", f"image-{image}", kind, aligned) for kind, aligned in KINDS]
    return made + [record("cell", f"image-{image}", kind, aligned, "exact target", row="reference") for kind, aligned in KINDS]


def test_finished_cells_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells, start = every.cells("cost"), ["run.py", "-m", "experiment=cost", "benchmark.limit=2"]
    assert len(cells) == 6 and every.missing("cost", 2) == [start], "one command runs a whole sweep"
    for cell in cells[:1]:
        write(every.SWEEPS / "cost-2" / every.label(cell), of_image(0) + of_image(1))
    write(every.SWEEPS / "cost-2" / every.label(cells[1]), of_image(0) + of_image(1)[:-1])  # stopped before the last line
    start.append("hydra.sweeper.params=null")
    assert every.missing("cost", 2) == [[*start, "snapshot=64", "sampler.steps=16,32"], [*start, "snapshot=128", "sampler.steps=8,16,32"]]
    assert every.missing("cost", 24) == [["run.py", "-m", "experiment=cost", "benchmark.limit=24"]], "another size is another sweep"


def test_all_runs_what_is_missing_then_asks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = []

    def call(command) -> int:
        called.append(command)
        if command[0] == "run.py":
            for cell in every.cells("stages"):
                write(every.SWEEPS / "stages-2" / every.label(cell), of_image(0) + of_image(1))
        return 0

    assert every.ask("stages", 2, call) == []
    assert [Path(command[0]).name for command in called] == ["run.py", "stages.py"]
    assert every.ask("stages", 2, call) == [] and [Path(command[0]).name for command in called[2:]] == ["stages.py"]
    assert every.ask("stages", 2, lambda command: 1) == [f"{HERE / 'stages.py'} --images=2"], "a failure is told, the rest goes on"


def test_the_kept_records_are_told_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(every, "HERE", tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records/cost.jsonl").touch()
    called = []
    assert every.tell(("stages", "cost"), lambda command: called.append(command) or 1) == [f"{tmp_path / 'cost.py'} --from-records"]
    assert called == [[str(tmp_path / "cost.py"), "--from-records"]] and capsys.readouterr().out.startswith("# Claims")


def test_full_size_takes_more_samples_where_the_claim_needs_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = []
    every.ask("best_of_n", every.FULL, lambda command: called.append(command) or 0)
    assert called[0][-1] == "seeds=64" and called[0][3] == "benchmark.limit=24"


def test_a_sweep_is_read_once_with_its_references(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("base", "cascade"):
        write(claims.SWEEPS / f"stages-2/stage={value}", of_image(0) + of_image(0))  # run twice
    found = claims.swept("stages", 2)
    assert [r.run for r in found].count("stages/stage=base") == 3 and [r.run for r in found].count("stages/reference=exact target") == 3
    assert found[0].image == "stages-2/stage=base/a.png"
    claims.keep(found, tmp_path / "kept.jsonl")
    assert records.read(tmp_path / "kept.jsonl") == found
    with pytest.raises(Refused, match=r"no sweep in outputs/experiments/stages-3"):
        claims.swept("stages", 3)


def test_a_sweep_that_failed_leaves_the_others_to_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unitune.statistics.RESAMPLES", 99)
    monkeypatch.setattr("claims.RECORDS", tmp_path / "records")
    for cell in every.cells("tradeoff_weight"):
        made = [line for line in synthetic("tradeoff") if line.run == f"tradeoff_weight/{every.label(cell)}" or line.row == "reference"]
        write(every.SWEEPS / "tradeoff_weight-2" / every.label(cell), made)
    monkeypatch.setattr(sys, "argv", ["tradeoff.py"])
    runpy.run_path(str(HERE / "tradeoff.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "UniTune's front covers more than DreamBooth's: **too few" in said and "more than Imagic's: **not asked** (no record has method=imagic" in said
    assert len(records.read(tmp_path / "records/tradeoff.jsonl")) == 12 * 6 + 2 * 6
