"""The one entry point, `unitune` or `python run.py`: a command line becomes a config and a job.

`unitune --help` lists every group and field.
"""

import logging
import os
import sys
from importlib import resources
from pathlib import Path
from signal import SIGINT, SIGPIPE
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unitune.cli import arguments
from unitune.cli.ending import Ending
from unitune.cli.jobs import ASSETS, JOBS, edit
from unitune.errors import Diverged, Inactive, Refused, Stopped, Unfit

REFUSALS = (Refused, HydraException, OmegaConfBaseException, YAMLError)


def conf() -> Path:
    """Return the folder of configs: the package's own or, in a checkout, the one at its top."""
    packaged = ASSETS.parent / "conf"
    return packaged if packaged.is_dir() else ASSETS.parents[2] / "conf"


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
OmegaConf.register_new_resolver("assets", lambda path: str(ASSETS / path), replace=True)
OmegaConf.register_new_resolver("skimage", example_of_skimage, replace=True)
# Hydra makes some folders before any of our code runs; `noted` is how they come to be known.
OmegaConf.register_new_resolver("noted", ending.noted, replace=True)


@hydra.main(version_base="1.3", config_path=str(conf()), config_name="config")
def _main(cfg: DictConfig) -> None:
    """Run the job that --config-name chose.

    What goes wrong is noted, so that the other cells of a sweep go on.
    """
    now: Any = HydraConfig.get()
    folder = Path(ending.noted(now.runtime.output_dir))
    ending.swept = Path(now.sweep.dir) if now.mode.name == "MULTIRUN" else None
    try:
        JOBS.get(now.job.config_name, edit)(cfg, folder)
    except BrokenPipeError:
        raise Stopped(SIGPIPE) from None
    except Exception as error:
        if isinstance(error, OmegaConfBaseException) and isinstance(error.__cause__, Refused):
            error = error.__cause__  # of one of the resolvers above
        cell = folder.name if ending.swept else ""
        refused = isinstance(error, REFUSALS)
        ending.failed(error, refused=refused, cell=cell, overrides=now.overrides.task)
        if not isinstance(error, (*REFUSALS, Diverged, Inactive, Unfit)):
            logging.getLogger("unitune").exception("failed")


def main() -> int:
    """Run a command line and turn what can go wrong into a line and an exit code.

    The code is 0 when all is done, 1 when a run failed, 2 for refused input and 128 + n after
    signal n.
    """
    ending.begin()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    try:
        groups = [folder.name for folder in conf().iterdir() if folder.is_dir()]
        sys.argv[1:] = arguments.prepared(sys.argv[1:], groups=groups)
        _main()
        if ending.swept:
            from unitune.report import summary

            print(*summary.of_sweep(ending.swept, began=ending.began), sep="\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, as after `unitune --help | head -1`
        ending.signal = SIGPIPE
    except (*REFUSALS, OSError) as error:
        # Of the system's errors only those of Hydra's own folders come here: a run's were noted.
        ending.failed(error, refused=True)
    except (Stopped, KeyboardInterrupt) as stop:
        ending.signal = stop.signal if isinstance(stop, Stopped) else SIGINT
    if ending.signal == SIGPIPE:
        # Python writes at its end what it still holds, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ending.tell(sys.stderr)
