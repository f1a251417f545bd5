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

from unitune.errors import Refused
from unitune.storage import records
from unitune.storage.records import Record

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
SCORED = {
    "error_inside": 0.1,
    "base_error_inside": 0.2,
    **dict.fromkeys((*(name for name in claims.SCORES if name != "progress"), "direction"), 0.5),
}
GLOBAL = ("restyle", "background", "time")
KINDS = (("replace", True), ("add", False), ("restyle", True))


def record(
    run: str = "cost/snapshot=64",
    example: str = "image-0",
    kind: str = "add",
    alike: bool | None = False,
    method: str = "unitune",
    **more,
) -> Record:
    scores, start = more.pop("scores", SCORED), more.pop("start", 0.9)
    weight = more.pop("weight", 6.0)
    return Record(
        run=run, method=method, sampler="" if "row" in more else "unitune", model="pocket", example=example, kind=kind,
        local=kind not in GLOBAL, composed_alike=alike,
        prompt=more.pop("prompt", f"{kind} {example}"), text="", seed=more.pop("seed", 0), weight=weight, start=start, steps=64, image="a.png", scores=scores,
        cost={"seconds": 1.0}, environment={}, **more,
    )  # fmt: skip


def synthetic(claim: str) -> list[Record]:
    """What a finished sweep of two images leaves, with numbers that differ from cell to cell."""
    found = []
    for sweep in every.SEVERAL.get(claim, (claim,)):
        planned = (
            yaml.safe_load((ROOT / f"conf/experiment/{sweep}.yaml").read_text())
            .get("plan", {})
            .get("starts", [0.9])
        )
        for k, cell in enumerate(every.cells(sweep)):
            starts = [float(cell["sampler.start"])] if "sampler.start" in cell else planned
            for image, (kind, alike), seed, start in itertools.product(
                range(2), KINDS, range(8 if claim == "best_of_n" else 1), starts
            ):
                scores = dict.fromkeys(SCORED, 0.1 * k + 0.01 * image + 0.001 * seed)
                scores |= {
                    "both": 0.5,
                    "appear": 0.5,
                    "stay": 1.0,
                    "error_inside": 0.1 + scores["psnr"] / 100,
                    "base_error_inside": 0.2,
                }
                scores |= {"choosing": seed / 8} if claim == "best_of_n" else {}
                run = f"{sweep}/{every.label(cell)}"
                found.append(
                    record(
                        run,
                        f"image-{image}",
                        kind,
                        alike,
                        cell.get("method", "unitune"),
                        seed=seed,
                        start=start,
                        weight=float(cell.get("sampler.guidance.weight", 6.0)),
                        scores=scores,
                    )
                )
    for row, image, (kind, alike) in itertools.product(("copy", "target"), range(2), KINDS):
        found.append(record(f"{claim}/reference={row}", f"image-{image}", kind, alike, "", row=row))
    return found


def test_every_claim_has_a_script_and_sweeps():
    sweeps = [
        sweep
        for claim in (*every.CLAIMS, *claims.OWN_SIZE)
        for sweep in every.SEVERAL.get(claim, (claim,))
    ]
    assert all((ROOT / f"conf/experiment/{sweep}.yaml").is_file() for sweep in sweeps)
    sizes = {
        name: yaml.safe_load((ROOT / f"conf/experiment/{name}.yaml").read_text())["benchmark"][
            "limit"
        ]
        for name in claims.OWN_SIZE
    }
    assert sizes == claims.OWN_SIZE
    own = {
        path.stem
        for path in (ROOT / "conf/experiment").glob("*.yaml")
        if "quick" in re.findall(r"^  - (\w+)$", path.read_text(), re.MULTILINE)
    }
    assert own == set(sweeps), "a sweep that no script reads"
    told = re.findall(r"^\| `(\w+)` \|", (HERE / "README.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(every.CLAIMS)


def test_a_reference_row_is_in_no_group_but_its_own():
    edit, reference = (
        record(weight=1.0),
        record("guidance/reference=copy", method="", row="copy", weight=1.0),
    )
    assert claims.matching([edit, reference], "weight=1") == [edit] and claims.matching(
        [edit, reference], "reference=copy"
    ) == [reference]
    assert claims.matching([edit, reference], "reference=target") == []


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_headers_say_what_a_reader_needs(claim):
    doc = script(claim).__doc__ or ""
    assert re.findall(r"^(Command|Claim|Expected|Minutes): +\S", doc, re.MULTILINE) == [
        "Command",
        "Claim",
        "Expected",
        "Minutes",
    ]
    assert all(
        f"experiment={sweep}" in doc or sweep in doc for sweep in every.SEVERAL.get(claim, (claim,))
    )
    assert len((HERE / f"{claim}.py").read_text().splitlines()) <= 70


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_cells_are_named_as_hydra_names_them(claim):
    for sweep in every.SEVERAL.get(claim, (claim,)):
        parsed = OverridesParser.create().parse_overrides(
            [f"{key}={','.join(values)}" for key, values in every.grid(sweep).items()]
        )
        (cells,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        assert [",".join(sorted(cell)) for cell in cells] == [
            every.label(cell) for cell in every.cells(sweep)
        ]


def test_a_sweep_s_folder_is_the_one_that_is_looked_into(run):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(
            "config",
            overrides=["experiment=cost", "benchmark.limit=7", "snapshot=64"],
            return_hydra_config=True,
        )
    assert cfg.hydra.sweep.dir == str(every.SWEEPS / "cost-7") == str(claims.SWEEPS / "cost-7")
    assert (
        OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["subdir"]
        == "${hydra.job.override_dirname}"
    )  # type: ignore[index]
    assert cfg.hydra.job.config.override_dirname.exclude_keys == [
        "experiment",
        "seeds",
        "benchmark.limit",
    ]


@pytest.mark.parametrize("claim", every.CLAIMS)
def test_scripts_answer_from_records(claim, tmp_path, monkeypatch, capsys):
    """In this process, as each would load the libraries again in its own."""
    claims.keep(synthetic(claim), tmp_path / "records.jsonl")
    said = asked(claim, tmp_path / "records.jsonl", monkeypatch, capsys)
    assert (
        said.startswith("## ")
        and "2 images" in said
        and re.search(r"\| copy of the base( of these edits)? \|", said)
    )
    assert (
        said.count("**too few for a verdict**") == said.count("\n- ") >= 1
        and "not asked" not in said
    )


def test_scripts_answer_from_the_committed_records(monkeypatch, capsys):
    """Whichever are kept: records of another mechanism or version are removed, and made again one by one."""
    for name in (
        name
        for name in (*every.CLAIMS, *claims.OWN_SIZE)
        if (HERE / f"records/{name}.jsonl").is_file()
    ):
        assert (
            asked(name, HERE / f"records/{name}.jsonl", monkeypatch, capsys).count("\n- ") >= 1
        ), name


def asked(claim: str, file: Path, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", [f"{claim}.py", "--from-records", str(file)])
    monkeypatch.syspath_prepend(str(HERE))
    runpy.run_path(str(HERE / f"{claim}.py"), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize(("tunings", "said"), [(3, "too few for a verdict"), (24, "held")])
def test_prior_preservation_decides_nothing_from_a_few_tunings(tunings, said):
    preservation = script("prior_preservation")
    own = {"pres": 0.5, "div": 0.3}
    lines = [
        {"pres": pres, "div": 0.3 - gap, **dict.fromkeys(preservation.APART, gap)}
        for pres, gap in [(0.9, 0.2), (0.6, 0.1)] * tunings
    ]
    told = list(preservation.told(lines, own))
    assert len(told) == 5 and all(
        line.endswith(f"in {tunings} of {tunings} tunings: {said}") for line in told
    )
    assert told[0].startswith(
        "pres: 0.9000 without, 0.6000 with, 0.5000 of the untouched model; nearer with the prior by 0.3"
    )


def test_the_comparison_of_six_images_needs_no_names_of_cells(tmp_path, monkeypatch, capsys):
    """Its rows are named by method and sampler, so that a plain sweep, whose cells are called 0-unitune-unitune and so on, is read as well."""
    others = [(name, name) for name in ("untuned", "dreambooth", "textual_inversion", "imagic")]
    rows = [("unitune", "unitune"), ("unitune", "late_start"), *others]
    made = [
        replace(record("baselines/0-a-b", f"image-{k}", method=method), sampler=sampler)
        for method, sampler in rows
        for k in range(6)
    ]
    made += [
        record("baselines/reference=copy", f"image-{k}", method="", row="copy") for k in range(6)
    ]
    claims.keep(made, tmp_path / "records.jsonl")
    said = asked("baselines", tmp_path / "records.jsonl", monkeypatch, capsys)
    assert (
        said.count("**too few for a verdict**") == 4
        and "6 images" in said
        and "not asked" not in said
    )


def test_a_script_runs_as_a_command(tmp_path):
    claims.keep(synthetic("guidance"), tmp_path / "records.jsonl")
    command = [
        sys.executable,
        str(HERE / "guidance.py"),
        "--from-records",
        str(tmp_path / "records.jsonl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0 and done.stdout.startswith("## Paper Fig. 4"), done.stderr


def test_a_sweep_that_was_not_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guidance.py"])
    with pytest.raises(
        SystemExit,
        match=re.escape(
            "guidance: no sweep in outputs/experiments/guidance-2; make it: python run.py -m experiment=guidance benchmark"
        ),
    ):
        runpy.run_path(str(HERE / "guidance.py"), run_name="__main__")


def of_images(cell: str, images: int = 24, **scores: float) -> list[Record]:
    return [
        record(
            f"x/a={cell}",
            f"image-{k}",
            scores={
                "both": 0.5,
                **{name: value + 0.01 * (k % 3) for name, value in scores.items()},
            },
        )
        for k in range(images)
    ]


def copies(images: int = 24, **scores: float | None) -> list[Record]:
    return [
        record(
            "x/reference=copy", f"image-{k}", method="", row="copy", scores={"both": 0.0, **scores}
        )
        for k in range(images)
    ]


def test_a_claim_is_decided_by_its_interval():
    found = of_images("1", psnr=2.0) + of_images("2", psnr=1.0)
    number = claims.Contrast("psnr", {"a=1": 1, "a=2": -1})
    assert number(found)["image-0"] == 1.0 and len(number(found)) == 24
    assert "**held** (1 [1, 1]; 24 images)" in claims.Claim("more", number, "neither").decided(
        found
    )
    assert "**contradicted** (1 [1, 1] against 1.2; 24 images)" in claims.Claim(
        "much more", number, "neither", above=1.2
    ).decided(found)
    assert "**undecided**" in claims.Claim(
        "more", claims.Contrast("psnr", {"a=1": 1}), "neither", above=2.01
    ).decided(found)
    assert "**too few for a verdict** (1 [1, 1]; 10 images)" in claims.Claim(
        "more", number, "neither"
    ).decided(found[:10] + found[24:34])
    assert "**too few for a verdict** (1; 5 images)" in claims.Claim(
        "more", number, "neither"
    ).decided(found[:5] + found[24:29])
    assert "**not asked** (no record has a=3" in claims.Claim(
        "more", claims.Contrast("psnr", {"a=3": 1}), "neither"
    ).decided(found)


def test_a_claim_about_the_edit_must_beat_a_copy_too():
    claim = claims.Claim(
        "aligns better", claims.Contrast("alignment", {"a=1": 1, "a=2": -1}), "edit"
    )
    found = of_images("1", alignment=0.5) + of_images("2", alignment=0.3)
    assert (
        "**held** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by 0.41 ["
        in claim.decided(found + copies(alignment=0.1))
    )
    assert (
        "**contradicted** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by -0.19 ["
        in claim.decided(found + copies(alignment=0.7))
    )
    assert "**undecided** (0.2" in claim.decided(found + copies(alignment=0.51))
    assert "**too few for a verdict** (0.2" in claim.decided(found + copies(20, alignment=0.1)), (
        "of four images there is no copy"
    )
    worse = claims.Claim(
        "aligns better", claims.Contrast("alignment", {"a=2": 1, "a=1": -1}), "edit"
    )
    assert (
        "**contradicted** (-0.2 [-0.2, -0.2]; 24 images; above a copy of the base by 0.21 ["
        in worse.decided(found + copies(alignment=0.1))
    )
    assert "**not asked** (no record has reference=copy" in claim.decided(found)
    other = [replace(copy, prompt="another edit", scores={"alignment": 9.0}) for copy in copies()]
    assert "by 0.41" in claim.decided(found + other + copies(alignment=0.1)), "on the same edits"


def test_a_copy_has_no_direction_of_change():
    claim = claims.Claim("turns more", claims.Contrast("direction", {"a=1": 1, "a=2": -1}), "edit")
    found = of_images("1", direction=0.5) + of_images("2", direction=0.3) + copies(direction=None)
    assert (
        "**held** (0.2 [0.2, 0.2]; 24 images; above a copy of the base by 0.51 ["
        in claim.decided(found)
    )


def test_progress_is_told_with_the_success_beside_it():
    claim = claims.Claim(
        "comes farther", claims.Contrast("progress", {"a=1": 1, "a=2": -1}), "edit"
    )
    found = [
        replace(one, scores=one.scores | {"base_error_inside": 0.5})
        for one in of_images("1", error_inside=0.1) + of_images("2", error_inside=0.3)
    ]
    found += copies(error_inside=0.5, base_error_inside=0.5)
    assert "**held** (0.4 [0.4, 0.4]; 24 images; above a copy of the base by 0.78 [" in (
        said := claim.decided(found)
    )
    assert said.endswith("; edit success: 0.5 of a=1, 0.5 of a=2)")
    without = [
        replace(one, scores={name: value for name, value in one.scores.items() if name != "both"})
        for one in found
    ]
    assert "**not asked** (no record has the score 'both'" in claim.decided(without)


def test_a_claim_about_fidelity_is_asked_among_settings_that_succeed_as_often():
    claim = claims.Claim(
        "keeps more", claims.Contrast("mse_outside", {"a=1": -1, "a=2": 1}), "fidelity"
    )
    found = of_images("1", mse_outside=0.1) + of_images("2", mse_outside=0.3)
    assert "**held** (0.2 [0.2, 0.2]; 24 images)" in claim.decided(found)
    lazy = [
        replace(one, scores=one.scores | {"both": 0.25}) if one.run == "x/a=1" else one
        for one in found
    ]
    assert "**not asked** (a=1 succeeds less than a=2: 0.25 against 0.5)" in claim.decided(lazy)
    better = [
        replace(one, scores=one.scores | {"both": 0.75}) if one.run == "x/a=1" else one
        for one in found
    ]
    assert "**held**" in claim.decided(better)


@pytest.mark.parametrize(
    ("metric", "terms", "about", "said"),
    [
        ("psnr", {"a=1": 1}, "quality", "about 'quality', not one of edit, fidelity, neither"),
        ("psnr_target", {"a=1": 1}, "edit", "psnr_target is no evidence of editing"),
        (
            "psnr",
            {"a=1": 1},
            "edit",
            "psnr says something of what was kept, and the claim is about 'edit'",
        ),
        (
            "both",
            {"a=1": 1},
            "neither",
            "both says something of the edit, and the claim is about 'neither'",
        ),
        (
            "mse_outside",
            {"a=1": 1, "a=2": -1},
            "fidelity",
            "a=1 is named first and counts as the worse one",
        ),
        ("both", {"a=1": -1, "a=2": 1}, "edit", "a=1 is named first and counts as the worse one"),
    ],
)
def test_claims_that_say_nothing_are_refused(metric, terms, about, said):
    with pytest.raises(Refused, match=said):
        claims.Claim("more", claims.Contrast(metric, terms), about)


def test_a_number_without_groups_is_about_neither():
    with pytest.raises(Refused, match="a claim about edit needs a Contrast"):
        claims.Claim("more", lambda found: {}, "edit")


def test_a_success_that_never_comes_is_no_certainty():
    """The rates of 24 images that all fail are bounded, so that two methods that never succeed are not told to be alike."""
    found = [
        replace(one, scores={"both": 0.0}) for one in of_images("1") + of_images("2")
    ] + copies()
    claim = claims.Claim(
        "as often, less 0.05", claims.Contrast("both", {"a=1": 1, "a=2": -1}), "edit", above=-0.05
    )
    assert (
        "**undecided** (0 [-0.151, 0.151] against -0.05; 24 images; above a copy of the base by 0 [-0.151, 0.151]"
        in claim.decided(found)
    )


def test_images_without_a_group_are_left_out():
    found = [
        record("x/a=1", "one", "add"),
        record("x/a=2", "one", "add"),
        record("x/a=1", "two", "restyle"),
        record("x/a=2", "two", "restyle"),
    ]
    assert claims.Contrast("psnr", {"kind=add,a=1": 1, "kind=add,a=2": -1})(found) == {"one": 0.0}
    assert claims.Contrast("psnr", {"local=no,a=1": 1})(found) == {"two": 0.5}
    assert [claims.traits(record(kind=kind))["local"] for kind in ("add", "time")] == ["yes", "no"]


def test_references_are_of_the_edits_that_they_stand_below():
    """An edit that some rows lack, and a reference that two sweeps have, do not shift what the rows are compared with."""
    level = {"add": 0.9, "restyle": 0.1}
    found = [
        record(f"x/a={k}", kind=kind)
        for k, kinds in ((1, ("add", "restyle")), (2, ("add",)), (3, ("add",)))
        for kind in kinds
    ]
    copies = [
        record("x/reference=copy", kind=kind, method="", row="copy", scores={"psnr": level[kind]})
        for kind in level
    ]
    said = claims.table(
        [*found, *copies, *copies],
        {"one": "a=1", "two": "a=2", "three": "a=3"},
        scores={"psnr": "dB"},
        costs={},
    ).splitlines()[2:]
    copy = "copy of the base of these edits"
    assert said == [
        f"| {row} |"
        for row in (
            "one | 2 | 0.5",
            f"{copy} | 2 | 0.5",
            "two | 1 | 0.5",
            "three | 1 | 0.5",
            f"{copy} | 1 | 0.9",
        )
    ]
    alone = claims.table([*found[:2], *copies], {"one": "a=1"}, scores={"psnr": "dB"}, costs={})
    assert alone.endswith("| copy of the base | 2 | 0.5 |")


def test_a_table_says_how_many_edits_count():
    found = [record(kind="add"), record(kind="restyle", scores=SCORED | {"both": None})]
    told = [
        claims.table(some, {"one": "snapshot=64"}, scores=claims.SCORES, costs={})
        for some in (found, found[:1])
    ]
    assert ["Edit success goes over 1 of 2 edits" in said for said in told] == [True, False]


def test_seconds_of_unequal_threads_are_told():
    found = [replace(record(), environment={"threads": threads}) for threads in (1, 2)]
    told = [
        claims.table(some, {"one": "snapshot=64"}, scores={}, costs={"sampling s": "s"})
        for some in (found, found[:1])
    ]
    assert ["Seconds are of 1 and 2 threads" in said for said in told] == [True, False]


def test_the_best_of_n_costs_what_all_of_them_did():
    best = script("best_of_n")
    found = [record(seed=seed, scores={"choosing": seed / 8}) for seed in range(4)]
    assert [(r.seed, r.cost["seconds"]) for r in best.chosen(found) if r.run.endswith("N=2")] == [
        (1, 2.0),
        (3, 2.0),
    ]


def test_an_area_is_above_what_the_copy_of_the_same_image_has():
    """Else an interval over images would be one of how their base images align."""
    areas, copy = script("areas"), {f"image-{k}": (0.9, 0.1)[k % 2] for k in range(8)}
    found = [
        record("tradeoff/snapshot=64", image, scores={"alignment": level + 0.05, "stlpips": 0.5})
        for image, level in copy.items()
    ]
    found += [
        record("tradeoff/reference=copy", image, method="", row="copy", scores={"alignment": level})
        for image, level in copy.items()
    ]
    swept = areas.front(found, "unitune", "alignment")
    assert (
        swept.settings == ((64.0, 6.0),)
        and swept.x == pytest.approx(0.05)
        and areas.area(swept, corner=areas.CORNER) == pytest.approx((0.025,) * 3)
    )
    assert "|UniTune|0.025 [0.025, 0.025]|" in areas.covered(
        [replace(r, scores=r.scores | {"direction": 0.1}) for r in found]
    )
    with pytest.raises(Refused, match=r"tradeoff/snapshot=64 does not say its sampler\.text\.eta"):
        areas.front([replace(r, method="imagic") for r in found], "imagic", "direction")


def test_a_dial_whose_best_setting_is_an_end_is_told_below_the_areas():
    areas = script("areas")
    levels = {0.7: (0.3, 0.2), 0.8: (0.2, 0.4), 1.0: (0.1, 0.6)}  # the best is the earliest start
    found = [
        record(
            "t/x", method="untuned", start=at, scores={"direction": x, "alignment": x, "stlpips": y}
        )
        for at, (x, y) in levels.items()
    ]
    found += [record("t/reference=copy", method="", row="copy", scores={"alignment": 0.0})]
    assert areas.covered(found).endswith(
        "\n\nSDEdit, direction: the best setting, start 0.7, is an end of the range: widen it."
    )
    turned = [replace(one, start={0.7: 1.0, 1.0: 0.7}.get(one.start, one.start)) for one in found]
    assert "widen it" not in areas.covered(turned), "start 1 is pure noise: there is nothing beyond"


def test_of_several_dials_each_is_told_by_its_own_range():
    areas = script("areas")
    best = {(64, 8): 0.9}  # the middle of the steps, the end of the weights
    found = [
        record(
            f"t/snapshot={steps}",
            weight=weight,
            scores={
                "direction": (x := best.get((steps, weight), 0.1)),
                "alignment": x,
                "stlpips": 0.5,
            },
        )
        for steps, weight in itertools.product((32, 64, 128), (1.0, 2.0, 4.0, 8.0))
    ]
    found += [record("t/reference=copy", method="", row="copy", scores={"alignment": 0.0})]
    said = areas.covered(found)
    assert (
        said.endswith(
            "\n\nUniTune, direction: the best setting, weight 8, is an end of the range: widen it."
        )
        and "snapshot" not in said
    )


def test_every_method_has_as_many_settings_in_the_trade_off_as_its_sweep():
    areas = script("areas")
    counts = {
        method: len([*itertools.product(*dials.values())]) for method, dials in areas.DIALS.items()
    }
    swept = [cell for sweep in claims.SEVERAL["tradeoff"] for cell in every.cells(sweep)]
    assert set(counts.values()) == {12} and counts == {
        method: sum(cell["method"] == method for cell in swept) for method in areas.DIALS
    }
    for cell in swept:
        for dial, values in areas.DIALS[cell["method"]].items():
            (asked,) = [value for key, value in cell.items() if key.endswith(dial)]
            assert float(asked) in values


def write(folder: Path, made: list[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in made:
        records.append(folder / records.FILE, line)


def of_image(image: int) -> list[Record]:
    made = [record("cell", f"image-{image}", kind, alike) for kind, alike in KINDS]
    return made + [
        record("cell", f"image-{image}", kind, alike, "", row="target") for kind, alike in KINDS
    ]


def test_finished_cells_are_not_run_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells, start = every.cells("cost"), ["run.py", "-m", "experiment=cost", "benchmark.limit=2"]
    assert len(cells) == 6 and every.missing("cost", 2) == [start], "one command runs a whole sweep"
    for cell in cells[:1]:
        write(every.SWEEPS / "cost-2" / every.label(cell), of_image(0) + of_image(1))
    write(
        every.SWEEPS / "cost-2" / every.label(cells[1]), of_image(0) + of_image(1)[:-1]
    )  # stopped before the last line
    start.append("hydra.sweeper.params=null")
    assert every.missing("cost", 2) == [
        [*start, "snapshot=64", "sampler.steps=16,32"],
        [*start, "snapshot=128", "sampler.steps=8,16,32"],
    ]
    assert every.missing("cost", 24) == [
        ["run.py", "-m", "experiment=cost", "benchmark.limit=24"]
    ], "another size is another sweep"


def test_a_cell_is_finished_when_every_reference_that_it_has_is_whole(tmp_path):
    oracle = [
        replace(line, row="oracle", seed=seed)
        for line in of_image(0) + of_image(1)
        if line.row == "target"
        for seed in (0, 1)
    ]
    for name, more, whole in (("a", oracle, True), ("b", oracle[:-2], False), ("c", [], True)):
        write(tmp_path / name, of_image(0) + of_image(1) + more)
        assert every.finished(tmp_path / name, 2) is whole


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
    assert every.ask("stages", 2, call) == [] and [
        Path(command[0]).name for command in called[2:]
    ] == ["stages.py"]
    assert every.ask("stages", 2, lambda command: 1) == [f"{HERE / 'stages.py'} --images=2"], (
        "a failure is told, the rest goes on"
    )


def test_the_kept_records_are_told_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(every, "HERE", tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records/cost.jsonl").touch()
    called = []
    assert every.tell(("stages", "cost"), lambda command: called.append(command) or 1) == [
        f"{tmp_path / 'cost.py'} --from-records"
    ]
    assert called == [[str(tmp_path / "cost.py"), "--from-records"]]
    said = capsys.readouterr().out
    assert said.startswith("# Claims") and "(1 of 2 claims)" in said
    assert (
        "\n- `stages`: `python run.py -m experiment=stages && python experiments/stages.py`\n"
        in said
    )


def test_without_any_records_that_is_said_and_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(every, "HERE", tmp_path)
    assert every.tell(every.CLAIMS, lambda command: 1) == []
    assert capsys.readouterr().out.count("\n- `") == len(every.CLAIMS)


def test_a_recipe_has_every_sweep_and_the_size():
    assert claims.recipe("methods") == (
        "python run.py -m experiment=methods && python run.py -m experiment=methods_late_start && python experiments/methods.py"
    )
    assert (
        claims.recipe("scenes_edits")
        == "python run.py -m experiment=scenes_edits && python experiments/scenes_edits.py --images 8"
    )


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
    assert [r.run for r in found].count("stages/stage=base") == 3 and [r.run for r in found].count(
        "stages/reference=target"
    ) == 3
    assert found[0].image == "stages-2/stage=base/a.png"
    claims.keep(found, tmp_path / "kept.jsonl")
    assert records.read(tmp_path / "kept.jsonl") == found
    with pytest.raises(Refused, match=r"no sweep in outputs/experiments/stages-3"):
        claims.swept("stages", 3)


def test_a_sweep_that_failed_leaves_the_others_to_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("claims.RECORDS", tmp_path / "records")
    for cell in every.cells("tradeoff_weight"):
        made = [
            line
            for line in synthetic("tradeoff")
            if line.run == f"tradeoff_weight/{every.label(cell)}" or line.row in records.REFERENCES
        ]
        write(every.SWEEPS / "tradeoff_weight-2" / every.label(cell), made)
    monkeypatch.setattr(sys, "argv", ["tradeoff.py"])
    runpy.run_path(str(HERE / "tradeoff.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert (
        "UniTune's front covers more than DreamBooth's: **too few" in said
        and "more than Imagic's: **not asked** (no record has method=imagic" in said
    )
    assert len(records.read(tmp_path / "records/tradeoff.jsonl")) == 36 * 6 + 2 * 6
