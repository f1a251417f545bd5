"""The one entry point and the only file that knows Hydra: config -> objects -> unitune.experiment. `python run.py --help` lists everything."""

import logging
import os
import sys
from functools import lru_cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unitune import commandline, ending
from unitune.errors import Diverged, Inactive, Refused, Stopped, Unfit

ASSETS = Path(__file__).parent / "src" / "unitune" / "assets"
PLAIN = {"doctor": "doctor", "precomputed": "published", "report": "figures.report", "scenes": "benchmarks.scenes"}
REFUSALS = (Refused, HydraException, OmegaConfBaseException, YAMLError)
ended = ending.Ended(Path(__file__).parent / "conf")

RESOLVERS = {"assets": lambda path: str(ASSETS / path), "skimage": lambda name: str(resources.files("skimage") / "data" / name)}
for resolver in (RESOLVERS | {"noted": ended.noted}).items():  # noted: a folder that Hydra makes before any of our code runs
    OmegaConf.register_new_resolver(*resolver, replace=True)


def make(node: DictConfig, **more: object) -> Any:
    """Instantiate a node of the config after checking every _target_ in it."""
    commandline.check_targets(plain := OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
    try:
        return instantiate(commandline.literals(plain), _convert_="all", **more)
    except InstantiationException as error:
        raise error.__cause__ if isinstance(error.__cause__, Refused) else error from None


@lru_cache(maxsize=1)
def cascade(model: Any, device: Any, dtype: Any, store: Any) -> Any:
    """Load a cascade once per process: the jobs of a sweep share it."""
    return import_module("unitune.backends.cascade").build(model, device=device, dtype=dtype, store=store)


def edit(cfg: Any, folder: Path) -> None:
    """Tune, sample, score, record; print the table and the grid's path. Whatever can be refused before the model loads is refused there."""
    from unitune import experiment, machine, metrics, models, parameters, paste, preflight

    if cfg["from"]:
        cfg = OmegaConf.merge(OmegaConf.load(commandline.config_of(cfg["from"])), {"from": None, "store": cfg.store})
    settings: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    commandline.check_settings(settings)
    cfg.edit = [commandline.literal(prompt) for prompt in commandline.edit_prompts(cfg.edit)] or None
    sampler, plan, method, benchmark, selection = (cfg[name] and make(cfg[name]) for name in ("sampler", "plan", "method", "benchmark", "selection"))
    dtype = machine.precision(cfg.machine.precision, device := machine.device(cfg.machine.device))
    machine.use_threads(cfg.machine.threads)
    examples = benchmark.examples(cfg.model.resolution)
    sizes, room = parameters.sizes(described := models.described(settings["model"])), {"store": Path(cfg.store.path), "budget_gib": cfg.store.budget_gib}
    preflight.check(method, plan, examples, at=cfg.snapshot, sizes=sizes, folder=folder, oracle=cfg.oracle, **room)
    preflight.check_parts(method, sampler, plan, selection, examples)
    metrics.check(chosen := [make(metric) for metric in cfg.metrics.use], examples)
    paster, store, logger = (paste.Paste(Path(cfg.benchmark.path), cfg.fit) if cfg.paste else None), make(cfg.store), make(cfg.logger, save_dir=str(folder))
    commandline.advise(settings, ASSETS)
    model = cascade(described, device, dtype, store)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg), encoding="utf-8")
    parts = experiment.Setting(model, method, sampler, chosen, store, plan, cfg.seed, cfg.oracle, cfg.model.guidance, cfg.snapshot, logger, selection, paster)
    print(*import_module("unitune.figures.report").finished(folder, experiment.run(parts, examples, folder=folder)), sep="\n")


def score(cfg: Any, folder: Path) -> None:
    """Score saved pictures again."""
    from unitune import records, rescoring

    chosen = [make(metric) for metric in cfg.metrics.use]
    settings: Any = {run: commandline.scorable(OmegaConf.load(commandline.config_of(run)), cfg.metrics) for run in records.folders(cfg.runs)}
    for run, old in settings.items():
        print(rescoring.table(run, make(old.benchmark).examples(old.model.resolution), chosen=chosen))


def plain(cfg: Any, folder: Path) -> None:
    """Run a job of PLAIN, whose fields are its run()'s arguments (of precomputed the objects made of them); print what it says."""
    fields: Any = OmegaConf.to_container(cfg, resolve=True) | {name: Path(cfg[name]) for name in ("folder", "text_encoder") if name in cfg}  # type: ignore
    made = {**make(cfg), "folder": folder, "config": OmegaConf.to_yaml(cfg)} if (job := str(HydraConfig.get().job.config_name)) == "precomputed" else {}
    for line in import_module(f"unitune.{PLAIN[job]}").run(**(made or fields)) or ():
        print(line)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """Run the job that --config-name chose; note what goes wrong, so that the other cells of a sweep go on."""
    now: Any = HydraConfig.get()
    folder = Path(ended.noted(now.runtime.output_dir))
    ended.swept = Path(now.sweep.dir) if now.mode.name == "MULTIRUN" else None
    try:
        ({"score": score} | dict.fromkeys(PLAIN, plain)).get(now.job.config_name, edit)(cfg, folder)
    except Exception as error:
        ended.failed(error, refused=isinstance(error, REFUSALS), cell=folder.name if ended.swept else "", overrides=now.overrides.task)
        if not isinstance(error, (*REFUSALS, Diverged, Inactive, Unfit)):
            logging.getLogger("unitune").exception("failed")


def started() -> int:
    """Run and turn what can go wrong into a line and an exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    try:
        sys.argv[1:] = commandline.prepared(sys.argv[1:])
        main()
        for line in import_module("unitune.figures.comparison").conclude(ended.swept, began=ended.began) if ended.swept else ():
            print(line)
    except (*REFUSALS, OSError) as error:  # of the system only Hydra's own folders are left: a run's errors were caught in main
        ended.failed(error, refused=True)
    except (Stopped, KeyboardInterrupt) as stop:
        ended.stopped(stop.signal if isinstance(stop, Stopped) else 2)
    return ended.tell(sys.stderr)


if __name__ == "__main__":
    sys.exit(started())
