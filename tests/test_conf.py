"""Every option of every group is found on disk, composed and run on a tiny random model.

A new option is tested without any change here.
"""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from unitune import images
from unitune.cli import arguments
from unitune.cli.settings import check_settings
from unitune.errors import Refused
from unitune.models import tiny
from unitune.models.cascade import load as load_cascade
from unitune.models.cascade import weights_digest
from unitune.storage import records

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
DEMO = ROOT / "src/unitune/assets/demo"
EVERY = sorted(f"{file.parent.name}={file.stem}" for file in CONF.glob("*/*.yaml"))
OPTIONS = [one for one in EVERY if not one.startswith("launcher=")]  # those are of sweeps
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
LATENT = {"sd15": tiny.sd15, "sd21": tiny.sd21}  # models whose folders have another shape
NEEDS = {  # what an option cannot do without
    "benchmark=folder": [f"benchmark.path={DEMO}"],
    "benchmark=tedbench": [f"benchmark.path={DEMO}"],
    "sampler=masked": ["benchmark=demo"],
    "mask=file": ["benchmark=demo"],
    "benchmark=scenes": ["benchmark.limit=1"],
    "benchmark=development": ["benchmark.limit=1"],
    "experiment=first_edits": ["model.resolution=16"],  # of its first stage alone
    "method=dreambooth": ["noun=cat"],
    "method=textual_inversion": ["method.initializer=a"],  # the tiny tokenizer knows letters
    "sampler=prompt_to_prompt": [
        "token=description"
    ],  # else the image is inverted, in which a network of random weights loses it
    "sampler=prompt_to_prompt_blend": ["token=description"],
    "benchmark=image": [f"image={DEMO}/cat-city-0.png", "edit=a dog"],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list[str]:
    """Settings that make a run short; they share a store, so equal tunings are made once."""
    folder = tmp_path_factory.mktemp("conf")
    tiny.floyd(folder / "tiny")
    tiny.clipseg(folder / "clipseg")
    for name in LATENT:
        LATENT[name](folder / name)
    item = {
        "image_path": "1.png",
        "original_prompt": "a [cat]",
        "editing_prompt": "a [dog]",
        "editing_type_id": "1",
        "mask": [5000, 90],
    }
    (folder / "pie/annotation_images").mkdir(parents=True)
    (folder / "pie/mapping_file.json").write_text(json.dumps({"1": item}))
    images.save_png(torch.zeros(1, 3, 512, 512), folder / "pie/annotation_images/1.png")
    sizes = [
        "model.resolution=32",
        "model.crop=16",
        "budget.steps=2",
        "sampler.steps=2",
        "sampler.sr.steps=2",
        "seeds=1",
        "snapshots=[]",
    ]
    return [f"model.path={folder}/tiny", f"store.path={folder}/store", *sizes]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def arguments_of(option: str, small: list[str]) -> list[str]:
    given = [*small, option, *NEEDS.get(option, [])]
    if option == "mask=words":
        beside = small[0].removeprefix("model.path=").removesuffix("tiny")
        given += [f"mask.segmenter.model={beside}clipseg", "mask.words=a cat"]
    if option == "benchmark=pie":
        given.append(
            f"benchmark.path={small[0].removeprefix('model.path=').removesuffix('tiny')}pie"
        )
    if (name := option.removeprefix("model=")) in LATENT:
        given.append(f"{small[0].removesuffix('tiny')}{name}")
    chosen = {argument.partition("=")[0] for argument in given}
    given += (
        []
        if "benchmark" in chosen or option.startswith("experiment")
        else NEEDS["benchmark=image"] + ["caption=a cat in a city"]
    )
    given += [] if "metrics" in chosen else ["metrics=none"]
    return arguments.prepared(given)


def with_tiny_metrics(cfg: DictConfig, folder: Path) -> None:
    """Put untrained scoring models in place of the package's and of those that need a download."""
    import scoring

    tiny = scoring.pocket(folder)
    if importlib.util.find_spec("stlpips_pytorch") is None:
        cfg.metrics.use = [metric for metric in cfg.metrics.use if "STLPIPS" not in metric._target_]
    for part in [cfg.metrics.get(name) for name in ("clip", "lpips", "structure")] + list(
        cfg.metrics.use
    ):
        if part is None:
            continue
        if "folder" in part:
            part.folder = str(tiny / ("judge" if "success" in part._target_ else "clip"))
        elif "model" in part:
            part.model, part.pretrained, part.file = (
                scoring.MODEL,
                "random",
                str(scoring.stock_clip(tiny)),
            )
        elif "net" in part:
            part.file = str(scoring.backbone(tiny, part.net))
        elif "source" in part:
            part.source = str(scoring.dino(tiny))


def test_options_are_found():
    assert {"sampler=unitune", "model=pocket", "experiment=dials"} <= set(OPTIONS) and len(
        OPTIONS
    ) >= 40


@pytest.mark.parametrize("option", OPTIONS)
def test_option_runs(option, small, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if option == "logger=wandb":
        logger = run.make(composed(*arguments_of(option, small)).logger, save_dir=str(tmp_path))
        assert logger.mode == "offline"  # its run needs a process of its own: test_run.py
        return
    cfg = composed(*arguments_of(option, small))
    if cfg.metrics.use:
        with_tiny_metrics(cfg, tmp_path)
    if option == "machine=gpu" and not torch.cuda.is_available():
        with pytest.raises(Refused, match="no GPU here; use machine=cpu"):
            run.edit(cfg, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return
    run.edit(cfg, tmp_path / "run")
    done = records.read(tmp_path / "run")
    edits = [record for record in done if record.row == "edit"]
    assert edits and list((tmp_path / "run").glob("grid*.png"))
    assert all(
        record.sampler == cfg.sampler.name and record.method == cfg.method.name for record in edits
    )
    assert all(math.isfinite(record.cost["seconds"]) for record in edits)
    assert OmegaConf.load(tmp_path / "run/config.yaml") == run.settled(cfg)
    if option == "metrics=offline":
        names = {
            "alignment",
            "direction",
            "image_similarity",
            "psnr",
            "ssim",
            "mse",
            "error_inside",
            "base_error_inside",
            "appear",
            "stay",
            "both",
        }
        assert names <= set(done[0].scores)
    if option == "method=untuned":
        assert {record.steps for record in edits} == {0}


@pytest.mark.parametrize(
    "option",
    [
        option
        for option in OPTIONS
        if option.startswith(("freeze=", "stage=base", "stage=cascade", "sampler="))
    ],
)
def test_option_runs_on_a_latent_model(option, small, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run.edit(
        composed(
            *arguments_of(option, small), "model=sd15", f"{small[0].removesuffix('tiny')}sd15"
        ),
        tmp_path / "run",
    )
    assert (tmp_path / "run/grid.png").is_file()


def test_words_are_reweighted_from_the_command_line(run):
    sampler = run.make(
        composed("sampler=prompt_to_prompt", "sampler.control.reweight={snow:2.0,cat:-0.5}").sampler
    )
    assert dict(sampler.control.reweight) == {"snow": 2.0, "cat": -0.5}


def test_after_a_sweep_over_all_methods_the_model_is_the_one_that_was_read(
    small, run, tmp_path, monkeypatch
):
    used, load = [], run.cascade
    monkeypatch.setattr(run, "cascade", lambda *model: used.append(load(*model)) or used[-1])

    def digests(cascade):
        return [
            weights_digest(network)
            for network in (
                *(stage.network for stage in cascade.stages),
                cascade.encoder.__self__._network,
            )
        ]

    for name in sorted(file.stem for file in (CONF / "method").glob("*.yaml")):
        run.edit(composed(*arguments_of(f"method={name}", small)), tmp_path / name)
    assert len(used) >= 5 and len({id(cascade) for cascade in used}) == 1
    folder = Path(small[0].removeprefix("model.path="))
    fresh = load_cascade(
        "tiny", folder, stages=("base", "sr256"), device=torch.device("cpu"), dtype=torch.float32
    )
    assert digests(used[0]) == digests(fresh)


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "experiment").glob("*.yaml")))
def test_every_cell_of_an_experiment_composes(name, run):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        params = (
            compose(
                "config", overrides=[f"experiment={name}"], return_hydra_config=True
            ).hydra.sweeper.get("params")
            or {}
        )
    parsed = OverridesParser.create().parse_overrides(
        [f"{key}={value}" for key, value in params.items()]
    )
    (cells,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    assert len(cells) == math.prod(len(str(value).split(",")) for value in params.values())
    for cell in itertools.islice(cells, 0, None, max(1, len(cells) // 5)):
        cfg = composed(f"experiment={name}", *cell)
        check_settings(OmegaConf.to_container(cfg, resolve=True))
        for node in ("sampler", "plan", "method"):
            run.make(cfg[node])


def test_names_that_scripts_rely_on():
    cfg = composed()
    names = "image edit lr sr_lr steps batch_size seed seeds from store.path"
    names += " sampler.start sampler.steps sampler.guidance.weight benchmark.limit"
    assert not [
        name for name in names.split() if OmegaConf.select(cfg, name, default="absent") == "absent"
    ]


def test_two_runs_of_one_second_get_different_folders():
    folders = set()
    for _ in range(2):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", return_hydra_config=True)
        folders.add(cfg.hydra.run.dir)
        OmegaConf.clear_cache(cfg)
    assert len(folders) == 2 and all(folder.startswith("outputs/") for folder in folders)


@pytest.mark.parametrize("option", [one for one in EVERY if one.startswith("launcher=")])
def test_launchers_are_made(option, run):
    launcher = run.make(composed(option).launcher)
    assert option == f"launcher={launcher.name}"
