"""Every option of every group is found on disk, composed, instantiated and run on a tiny random model; a new option is tested by itself."""

import importlib.util
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from unitune import images
from unitune.cli import arguments
from unitune.errors import Refused
from unitune.models import tiny
from unitune.models.cascade import load as load_cascade
from unitune.models.cascade import weights_digest
from unitune.storage import records

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
DEMO = ROOT / "src/unitune/assets/demo"
OPTIONS = sorted(f"{file.parent.name}={file.stem}" for file in CONF.glob("*/*.yaml"))
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
    """Settings that make a run short; the store is shared, so that only what tunes differently tunes."""
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
        given += [
            f"mask.segmenter.model={small[0].removeprefix('model.path=').removesuffix('tiny')}clipseg",
            "mask.words=a cat",
        ]
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
    assert OmegaConf.load(tmp_path / "run/config.yaml") == cfg
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
        run.edit(composed(*arguments(f"method={name}", small)), tmp_path / name)
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
        arguments.check_settings(OmegaConf.to_container(cfg, resolve=True))
        for node in ("sampler", "plan", "method"):
            run.make(cfg[node])


def test_names_that_scripts_rely_on():
    cfg = composed()
    names = "image edit lr sr_lr steps batch_size seed seeds from store.path sampler.start sampler.steps sampler.guidance.weight benchmark.limit"
    assert not [
        name for name in names.split() if OmegaConf.select(cfg, name, default="absent") == "absent"
    ]


def test_the_rate_follows_model_and_optimizer_and_the_command_line_wins():
    pocket = composed().model  # its numbers are measured ones, which tests of the search hold
    for optimizer in ("adamw", "adafactor"):
        assert (
            composed(f"optimizer={optimizer}").method.tune.base.lr
            == pocket.dials.unitune.lr[optimizer]
        )
    for method in ("unitune", "dreambooth", "imagic"):
        tune = composed("model=if_xl", f"method={method}").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (3e-6, 1e-8)  # IF-II's own
        tune = composed(f"method={method}", "lr=1e-5", "optimizer=adafactor").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (1e-5, pocket.sr.lr.adafactor)
        tune = composed(f"method={method}", "sr_lr=2e-5").method.tune
        assert (tune.base.lr, tune.sr256.lr) == (pocket.dials[method].lr.adamw, 2e-5)


def test_the_rates_that_are_advised_for_lora_reach_every_stage():
    """What a comment of conf/adapter says to type."""
    advised = re.search(
        r"about ten times that.*?, (\S+=.*)$",
        (CONF / "adapter/lora.yaml").read_text(),
        re.MULTILINE,
    )
    assert advised is not None
    for method in ("unitune", "dreambooth", "imagic"):
        cfg = composed(f"method={method}", "adapter=lora", *advised[1].split())
        assert len(cfg.method.tune) == 2 and {tuning.lr for tuning in cfg.method.tune.values()} == {
            cfg.lr
        }


def test_a_method_may_have_its_own_dials_on_a_model():
    """Rates and steps are read by the method, the rest by the sampler that it is published with, also under another method."""
    own = [
        "model.dials.imagic.lr={adamw:1e-3,adafactor:1e-2}",
        "model.dials.imagic.steps=9",
        "model.dials.imagic.text=0.3",
        "model.dials.imagic.weight=5",
    ]
    cfg = composed("method=imagic", "budget=model", "model.dials.imagic.embedding_mix=0.9", *own)
    assert (
        cfg.lr,
        cfg.steps,
        cfg.method.embedding.lr,
        cfg.sampler.guidance.weight,
        cfg.sampler.text.eta,
    ) == (1e-3, 9, 0.3, 5, 0.9)
    assert (
        composed("method=imagic", "optimizer=adafactor", *own).lr == 1e-2
        and composed("method=imagic", "lr=7", *own).method.tune.base.lr == 7
    )
    other = composed("budget=model", "sampler=imagic", *own)
    assert (other.lr, other.steps, other.sampler.guidance.weight) == (
        composed().lr,
        composed().model.dials.unitune.steps,
        5,
    )
    word = composed(
        "method=textual_inversion",
        "model.dials.textual_inversion.word=0.5",
        "model.dials.textual_inversion.weight=6",
    )
    assert (word.method.embedding.lr, word.sampler.guidance.weight, word.lr) == (
        0.5,
        6,
        word.model.lr.adamw,
    )
    for method, dials in {"unitune": "unitune", "untuned": "sdedit"}.items():
        cfg = composed(
            f"method={method}", f"model.dials.{dials}.start=0.6", f"model.dials.{dials}.weight=9"
        )
        assert (cfg.sampler.start, cfg.sampler.guidance.weight) == (0.6, 9)
    assert (
        composed("method=dreambooth", "model.dials.dreambooth.weight=8").sampler.guidance.weight
        == 8
    )
    assert composed("method=untuned", "budget=model").steps == 0


def paths(tree: dict, above: str = "") -> set[str]:
    return {
        p
        for k, v in tree.items()
        for p in (paths(v, f"{above}{k}.") if isinstance(v, dict) else {above + k})
    }


@pytest.mark.parametrize("name", ["if_xl", "sd15"])
def test_no_model_inherits_the_dials_that_were_found_on_another(name):
    pocket, own = (
        yaml.safe_load((CONF / f"model/{file}.yaml").read_text()) for file in ("pocket", name)
    )
    found = {
        path
        for path in paths(pocket)
        if path.split(".")[0] in ("steps", "step", "guidance", "lr", "sr", "dials", "crop")
    }
    covered = paths(own)  # a node that refers to another stands for all that is below it
    assert len(found) > 25 and not {
        path
        for path in found
        if not any(path == own or path.startswith(f"{own}.") for own in covered)
    }


POCKET = yaml.safe_load((CONF / "model/pocket.yaml").read_text())
STEPS = {"ancestral": "DDPM()", "deterministic": "DDIM(eta=0.0)"}


@pytest.mark.parametrize(
    ("model", "steps", "step", "sr_steps", "sr_step"),
    [
        ("pocket", POCKET["steps"], "ancestral", POCKET["sr"]["steps"], "deterministic"),
        *((name, 100, "ancestral", 50, "ancestral") for name in ("if_xl", "if_l", "if_m")),
        *((name, 50, "deterministic", 1, "deterministic") for name in ("sd15", "sd21")),
    ],
)
def test_steps_and_their_rules_are_the_models(run, model, steps, step, sr_steps, sr_step):
    for name in ("base", "unitune", "sdedit", "cfg"):
        sampler = run.make(composed(f"model={model}", f"sampler={name}").sampler)
        assert (sampler.steps, repr(sampler.step), sampler.sr.steps, repr(sampler.sr.step)) == (
            steps,
            STEPS[step],
            sr_steps,
            STEPS[sr_step],
        )
    pictures = run.make(composed(f"model={model}", "method=dreambooth").method).class_images
    assert (pictures.steps, pictures.sr.steps, repr(pictures.sr.step)) == (
        steps,
        sr_steps,
        STEPS[sr_step],
    )
    published = {
        "imagic": "deterministic",
        "textual_inversion": "deterministic",
        "dreambooth": "ancestral",
        "prompt_to_prompt": "deterministic",
    }
    for name, rule in published.items():
        sampler = run.make(composed(f"model={model}", f"sampler={name}").sampler)
        assert repr(sampler.step) == STEPS[rule] and sampler.steps == (
            50 if name == "prompt_to_prompt" else steps
        )


def test_a_step_rule_from_the_command_line(run):
    cfg = composed(
        "sampler.step=${model.rules.deterministic}",
        "sampler.sr.step=${model.rules.ancestral}",
        "sampler.steps=7",
    )
    sampler = run.make(cfg.sampler)
    assert (repr(sampler.step), repr(sampler.sr.step), sampler.steps) == (
        "DDIM(eta=0.0)",
        "DDPM()",
        7,
    )
    assert (
        run.make(
            composed("sampler.step={_target_:unitune.diffusion.steps.DDIM,eta:0.5}").sampler
        ).step.eta
        == 0.5
    )


def test_weights_are_the_models_own():
    """IF's for its first stage and the pipeline's of Stable Diffusion stand where none was measured with a tuned model."""
    for sampler in (
        "unitune",
        "sdedit",
        "dreambooth",
        "textual_inversion",
        "imagic",
        "cfg",
        "masked",
        "prompt_guidance",
    ):
        for model, weight in {
            "if_xl": 7.0,
            "sd15": 7.5,
            "pocket": POCKET["dials"].get(sampler, {"weight": POCKET["guidance"]})["weight"],
        }.items():
            assert (
                composed(f"model={model}", f"sampler={sampler}").sampler.guidance.weight == weight
            )


def test_dreambooth_samples_super_resolution_at_the_level_it_is_tuned_at():
    for sampler in ("dreambooth", "unitune"):
        cfg = composed("method=dreambooth", f"sampler={sampler}")
        assert cfg.method.tune.sr256.low_level == cfg.sampler.sr.noise_level == 1e-5
    assert (
        composed("method=unitune", "sampler=dreambooth").sampler.sr.noise_level
        == POCKET["sr"]["noise_level"]
    )


def test_the_tuning_prompt_is_the_tokens_or_the_models():
    told = {
        token: composed(f"token={token}").method for token in ("description", "beikkpic", "model")
    }
    assert [(m.prompt, m.uncaptioned, m.template) for m in told.values()] == [
        ("{caption}", "", ""),
        ("beikkpic", "beikkpic", ""),
        ("{caption}", "beikkpic", ""),
    ]
    assert {composed(f"model={model}").method.prompt for model in ("if_m", "sd15")} == {"beikkpic"}


@pytest.mark.parametrize("method", ["unitune", "dreambooth", "imagic"])
def test_super_resolution_has_its_own_number_of_steps_in_every_method_that_tunes_weights(method):
    cfg = composed(f"method={method}", "steps=7")
    assert (cfg.method.tune.base.steps, cfg.method.tune.sr256.steps) == (7, 7)
    cfg = composed(f"method={method}", "steps=7", "budget.sr_steps=3")
    assert (cfg.method.tune.base.steps, cfg.method.tune.sr256.steps) == (7, 3)


def test_two_runs_of_one_second_get_different_folders():
    folders = set()
    for _ in range(2):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", return_hydra_config=True)
        folders |= {
            cfg.hydra.run.dir,
            OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["dir"],
        }
        OmegaConf.clear_cache(cfg)
    assert len(folders) == 3 and all("outputs/" in folder for folder in folders)


EXEMPT = {"_target_", "name", "defaults"}
CODE = re.compile(r"^(?P<code>(?:[^#\"']|\"[^\"]*\"|'[^']*')*)(?P<comment>#.*)?$")


def fields(text: str) -> list[tuple[str, str, str]]:
    """(key, its comment, the comment line above it) of every field that has a value; what stands under `hydra:` belongs to Hydra."""
    found, above = [], ""
    for line in text.partition("\nhydra:")[0].splitlines():
        match = CODE.match(line)
        assert match is not None, line
        code, comment = match["code"].rstrip(), match["comment"] or ""
        keys = (
            []
            if code.lstrip().startswith("- ")
            else re.findall(r"(\w+):(?=\s|$)", re.sub(r"\"[^\"]*\"|'[^']*'", "", code))
        )
        found += [(key, comment, above) for key in keys]
        above = comment if not code else ""
    return found


@pytest.mark.parametrize(
    "file",
    [*sorted(CONF.glob("*.yaml")), *sorted(CONF.glob("*/*.yaml"))],
    ids=lambda file: str(file.relative_to(CONF)),
)
def test_every_field_is_explained(file):
    """On its line, above it, in the file's header, or where another file of the group (which this one changes) has it."""
    text = file.read_text()
    header = " ".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    assert header.replace("# @package _global_", "").strip("# "), (
        "a file begins with a comment that says what it is"
    )
    known = {
        key
        for other in file.parent.glob("*.yaml")
        for key, comment, above in fields(other.read_text())
        if comment or above
    }
    known |= {
        key
        for key, comment, above in fields((CONF / "config.yaml").read_text())
        if comment or above
    }
    bare = {
        key
        for key, comment, above in fields(text)
        if not (comment or above or key in EXEMPT or key in known)
    }
    assert not {key for key in bare if not re.search(rf"\b{key}\b", header, re.IGNORECASE)}


def test_fields_are_found():
    text = 'a: 1  # why\nb:  # B\n  c: "#x: y"\n# above\nd: {e: 1, f: [2]}\n- override /g: h\nhydra:\n  i: 1\n'
    above = "# above"
    assert fields(text) == [
        ("a", "# why", ""),
        ("b", "# B", ""),
        ("c", "", ""),
        ("d", "", above),
        ("e", "", above),
        ("f", "", above),
    ]
