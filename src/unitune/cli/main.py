"""The one entry point, `unitune` or `python run.py`: a command line becomes a config and a job.

`unitune --help` lists every group and field.
"""

import logging
import logging.config
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from signal import SIGINT, SIGPIPE
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unitune.cli import arguments, groups
from unitune.cli.ending import Ending, Failure
from unitune.cli.jobs import ASSETS, JOBS, conf_beside, edit, make, settled
from unitune.cli.sweep import Sweep
from unitune.errors import Diverged, Inactive, Refused, Stopped, Unfit
from unitune.runs import config
from unitune.runs.folder import finished
from unitune.storage import names

REFUSALS = (Refused, HydraException, OmegaConfBaseException, YAMLError)
RUNNING = ".running"  # in a cell's folder: the lease of the process that runs it
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last two before a job's end


def conf() -> Path:
    """Return the folder of configs: the package's own or, in a checkout, the one at its top."""
    return conf_beside(ASSETS)


def example_of_skimage(name: str) -> str:
    """Return the path of a picture that scikit-image holds; Refused where it is missing."""
    try:
        return str(resources.files("skimage") / "data" / name)
    except ModuleNotFoundError:
        raise Refused(
            f"the picture {name} comes with scikit-image, which is not installed: "
            "pip install scikit-image, or name your own picture (image=FILE)"
        ) from None


ending = Ending(conf())
sweep = Sweep()
OmegaConf.register_new_resolver("assets", lambda path: str(ASSETS / path), replace=True)
OmegaConf.register_new_resolver("skimage", example_of_skimage, replace=True)
OmegaConf.register_new_resolver("named", names.file_name, replace=True)
# Hydra makes some folders before any of our code runs; `noted` is how they come to be known.
OmegaConf.register_new_resolver("noted", ending.noted, replace=True)
OmegaConf.register_new_resolver(
    "sweep_folder", lambda name, default=None: sweep.folder(name, default), replace=True
)
OmegaConf.register_new_resolver("cell", lambda *, _root_: sweep.cell_name(_root_), replace=True)
OmegaConf.register_new_resolver("varied", lambda *, _root_: sweep.plain_name(_root_), replace=True)


@hydra.main(version_base="1.3", config_path=str(conf()), config_name="config")
def _main(cfg: DictConfig) -> None:
    """Run the job that --config-name chose.

    What goes wrong is noted, so that the other cells of a sweep go on.
    """
    now: Any = HydraConfig.get()
    folder = Path(ending.noted(now.runtime.output_dir))
    job = JOBS.get(now.job.config_name, edit)
    swept = now.mode.name == "MULTIRUN"
    ending.composed = True
    overrides = now.overrides.task
    if swept and job is edit:
        attempt(
            lambda: sweep.add(settled(cfg), folder, overrides, launcher=cfg.launcher),
            cell=folder.name, overrides=overrides,
        )  # fmt: skip
        return
    attempt(lambda: job(cfg, folder), cell=folder.name if swept else "", overrides=overrides)


def attempt(job: Callable[[], None], *, cell: str = "", overrides: Sequence[str] = ()) -> None:
    """Do a job, and note what goes wrong."""
    try:
        job()
    except BrokenPipeError:
        raise Stopped(SIGPIPE) from None
    except Exception as error:
        if isinstance(error, OmegaConfBaseException) and isinstance(error.__cause__, Refused):
            error = error.__cause__  # of one of the resolvers above
        refused = isinstance(error, REFUSALS)
        ending.failed(error, refused=refused, cell=cell, overrides=overrides)
        if not isinstance(error, (*REFUSALS, Diverged, Inactive, Unfit)):
            logging.getLogger("unitune").exception("failed")


def run_cell(cell: Path) -> None:
    """Run the cell of a sweep that lies in a folder; note there what goes wrong.

    Another process that runs the cell, as a worker whose driver was killed, is waited for.
    """
    from unitune.launcher import cells
    from unitune.storage.lease import lease

    def job() -> None:
        with lease(cell / RUNNING):
            if not finished(cell):
                edit(OmegaConf.load(cell / config.FILE), cell)

    before = len(ending.failures)
    attempt(job)
    for failure in ending.failures[before:]:
        with suppress(OSError):  # of a full disk, which is what is told
            cells.fail(cell, failure.said, refused=failure.refused)
    del ending.failures[before:]


def log_plainly() -> None:
    """Log as a run of Hydra does, for what runs after Hydra or without it."""
    file = conf() / "hydra" / "job_logging" / "plain.yaml"
    logging.config.dictConfig(yaml.safe_load(file.read_text(encoding="utf-8")))


def run_sweep() -> None:
    """Run the cells of a sweep that have no result, and note which have none in the end."""
    from unitune.launcher import cells
    from unitune.report import summary

    log_plainly()
    folder, here = next(iter(sweep.cells)).parent, Path.cwd()
    ending.swept = folder.relative_to(here) if folder.is_relative_to(here) else folder
    try:
        launcher = make(sweep.launcher)
        launcher.check()
        sweep.run(launcher, run_cell)
    finally:
        ending.kept = f"{len(sweep.done())} of {len(sweep.cells)} cells are kept in {ending.swept}"
    for cell, overrides in sweep.cells.items():
        if failure := cells.failure(cell):
            ending.failures.append(Failure(failure.said, failure.refused, cell.name, overrides))
        elif not finished(cell):
            said = "it has no result, and no reason could be written into its folder"
            ending.failures.append(Failure(said, False, cell.name, overrides))
    print(*summary.of_sweep(ending.swept, began=ending.began), sep="\n")


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let signals that ask to stop end what runs by Stopped, so that all is closed and kept."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Run a command line and turn what can go wrong into a line and an exit code.

    The code is 0 when all is done, 1 when a run failed, 2 for refused input and 128 + n after
    signal n.
    """
    ending.begin()
    sweep.begin()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    try:
        sys.argv[1:] = arguments.prepared(sys.argv[1:], groups=groups.options(conf()))
        sweep.settings = [one for one in sys.argv[1:] if arguments.is_setting(one)]
        with stopped_by_signals():
            _main()
            if sweep.cells:
                run_sweep()
            elif ending.folders and not ending.composed:
                raise Refused("this sweep has no cell; give values that are separated by commas")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, as after `unitune --help | head -1`
        ending.signal = SIGPIPE
    except (*REFUSALS, OSError) as error:
        # Before cells run, the system's errors are of Hydra's own folders; a run's were noted.
        ending.failed(error, refused=not (sweep.runs and isinstance(error, OSError)))
    except (Stopped, KeyboardInterrupt) as stop:
        ending.signal = stop.signal if isinstance(stop, Stopped) else SIGINT
    if ending.signal == SIGPIPE:
        # Python writes at its end what it still holds, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ending.tell(sys.stderr)
