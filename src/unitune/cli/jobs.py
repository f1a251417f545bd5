"""The jobs that a config can choose: each is a function of the config and of its run's folder.

A config becomes objects here and nowhere else; what a job does with them stands in other rooms.
"""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from unitune.cli import arguments, kinds, typed
from unitune.cli.advice import advice
from unitune.cli.settings import check_rescoring, check_settings
from unitune.cli.sweep import of_cell
from unitune.cli.targets import check_targets
from unitune.errors import Refused

SERIAL = "unitune.launcher.serial.Serial"
ASSETS = Path(str(resources.files("unitune") / "assets"))

log = logging.getLogger(__name__)


def conf_beside(assets: Path) -> Path:
    """Return the folder of configs: the package's own or, in a checkout, the one at its top."""
    packaged = assets.parent / "conf"
    return packaged if packaged.is_dir() else assets.parents[2] / "conf"


@lru_cache(maxsize=1)
def known_fields() -> kinds.Fields:
    """What conf/ has for each field."""
    return kinds.fields(conf_beside(ASSETS))


def plain(cfg: Any, *, whole: bool = True) -> Any:
    """Return a config as plain data after checking the shape of its fields.

    Refused is what is missing, unless `whole` is false.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=whole)
    kinds.check(settings, known_fields())
    return settings


def make(node: Any, **more: object) -> Any:
    """Instantiate a node of the config, or plain data, after checking every _target_ in it."""
    plain = node
    if OmegaConf.is_config(node):
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    check_targets(plain)
    try:
        return instantiate(arguments.literals(plain), _convert_="all", **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, Refused):
            raise error.__cause__ from None
        raise error from None


def metrics_of(cfg: Any) -> list[Any]:
    """Make the metrics; one that the config calls optional is left out where it is missing."""
    made = []
    use: Any = OmegaConf.to_container(cfg.metrics.use, resolve=True, throw_on_missing=True)
    for metric in use:
        optional = metric.pop("optional", False)
        try:
            made.append(make(metric))
        except Refused as missing:
            if not optional:
                raise
            log.warning("%s; its column is left out", missing)
    return made


@lru_cache(maxsize=1)
def cascade(model: Any, device: Any, dtype: Any, store: Any) -> Any:
    """Load a cascade once per process: the jobs of a sweep share it."""
    from unitune.models.cascade import build

    return build(model, device=device, dtype=dtype, store=store)


def settled(cfg: Any) -> Any:
    """Return the config as a run keeps it: with the settings of from= and the prompts of a file.

    Its paths are absolute, and where a sweep's cells run is left out.
    """
    kinds.check({"from": cfg["from"]}, known_fields())
    if cfg["from"]:
        earlier = OmegaConf.load(arguments.config_of(cfg["from"]))
        cfg = OmegaConf.merge(earlier, {"from": None, "store": cfg.store})
    settings = plain(cfg)
    check_settings(settings)
    kinds.check(settings, known_fields(), exact=True)
    cfg = of_cell(cfg)
    cfg.edit = [typed.literal(prompt) for prompt in arguments.edit_prompts(cfg.edit)] or None
    return typed.absolute(cfg)


def edit(cfg: Any, folder: Path) -> None:
    """Tune, sample, score, record; print the table and the grid's path.

    Whatever can be refused before the model loads is refused there. A folder that holds the result
    of these settings already is shown as it is.
    """
    from unitune.models import files, machine, parameters
    from unitune.report import summary
    from unitune.runs import config, experiment, paste, preflight
    from unitune.runs import folder as run_folder
    from unitune.storage import records

    if "launcher" in cfg and (cfg.launcher["_target_"] != SERIAL or cfg.sweep):
        raise Refused("launcher= and sweep= are of the cells of a sweep; add -m, or leave them out")
    cfg = settled(cfg)
    settings = plain(cfg)
    if run_folder.claim(folder, OmegaConf.to_yaml(cfg)):
        log.info("%s holds the result of these settings: nothing is done again", folder)
        print(*summary.of_run(folder, records.merge(records.read(folder))), sep="\n")
        return
    sampler, plan, method, benchmark, selection = (
        make(cfg[name]) for name in ("sampler", "plan", "method", "benchmark", "selection")
    )
    device = machine.device(cfg.machine.device)
    dtype = machine.precision(cfg.machine.precision, device)
    machine.use_threads(cfg.machine.threads)
    examples = benchmark.examples(cfg.model.resolution)
    described = files.described(settings["model"])
    inputs = preflight.Inputs(
        method, sampler, plan, examples, folder=folder, store=Path(cfg.store.path).expanduser(),
        budget_gib=cfg.store.budget_gib, selection=selection, load_metrics=lambda: metrics_of(cfg),
        sizes=parameters.sizes(described), snapshot=cfg.snapshot, oracle=cfg.oracle,
    )  # fmt: skip
    preflight.check(inputs)
    paster = paste.Paste(Path(cfg.benchmark.path), cfg.fit) if cfg.paste else None
    store, logger = make(cfg.store), make(cfg.logger, save_dir=str(folder))
    for line in advice(settings, ASSETS):
        log.warning("%s", line)
    model = cascade(described, device, dtype, store)
    config.write(OmegaConf.to_yaml(cfg), folder)
    chosen = experiment.Experiment(
        model, method, sampler, inputs.metrics, store, plan, seed=cfg.seed, oracle=cfg.oracle,
        plain_weight=cfg.model.guidance, snapshot=cfg.snapshot, logger=logger, selection=selection,
        paste=paster,
    )  # fmt: skip
    done = experiment.run(chosen, examples, folder=folder)
    print(*summary.of_run(folder, done), sep="\n")


def score(cfg: Any, folder: Path) -> None:
    """Score saved pictures again."""
    from unitune.report import tables
    from unitune.runs import rescore
    from unitune.storage import records

    plain(cfg)
    chosen = metrics_of(cfg)
    runs: dict[Path, Any] = {
        folder: OmegaConf.load(arguments.config_of(folder)) for folder in records.folders(cfg.runs)
    }
    for settings in runs.values():  # before any of them is scored
        check_rescoring(settings, cfg.metrics)
    for run, settings in runs.items():
        examples = make(settings.benchmark).examples(settings.model.resolution)
        print(tables.by_prompt(rescore.score(run, examples, chosen=chosen)).plain())


def precomputed(cfg: Any, folder: Path) -> None:
    """Score what another method published; keep the config, so that it can be scored again."""
    from unitune.report import tables
    from unitune.runs import config
    from unitune.runs import folder as run_folder
    from unitune.runs import precomputed as published
    from unitune.storage import records

    check_targets(plain(cfg))
    text = OmegaConf.to_yaml(typed.absolute(cfg))
    if run_folder.claim(folder, text):
        log.info("%s holds the scores of these settings: nothing is done again", folder)
        print(tables.by_prompt(records.merge(records.read(folder))).plain())
        return
    config.write(text, folder)
    done = published.score(
        make(cfg.benchmark), metrics_of(cfg), name=cfg.outputs,
        resolution=cfg.model.resolution, folder=folder,
    )  # fmt: skip
    print(tables.by_prompt(done).plain(), f"grid: {folder / 'grid.png'}", sep="\n")


def _plain(module: str, *, whole: bool = True) -> Callable[[Any, Path], None]:
    """Return a job that hands the config's fields to a module's run() and prints what it says."""

    def job(cfg: Any, folder: Path) -> None:
        fields = plain(cfg, whole=whole)
        if "folder" in cfg:
            fields["folder"] = Path(cfg.folder)
        for line in import_module(module).run(**fields) or ():
            print(line)

    return job


JOBS: Mapping[str, Callable[[Any, Path], None]] = {
    "config": edit,
    "doctor": _plain("unitune.cli.doctor", whole=False),
    "precomputed": precomputed,
    "report": _plain("unitune.report.page"),
    "scenes": _plain("unitune.benchmarks.scenes"),
    "score": score,
    "store": _plain("unitune.storage.inventory"),
}
