"""Where curves, grids, settings and the table go beside scores.jsonl: CSV always, and TensorBoard or Weights & Biases where that is asked for.

A logger takes `log_metrics` while a run goes on and `finalize` at its end, as Lightning's do; what else it shows it reads from the run's folder then.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from unitune.models.compat import ensure_torchvision

ensure_torchvision()  # Lightning brings in torchmetrics, which imports torchvision

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

from unitune.report import tables  # noqa: E402
from unitune.storage import records  # noqa: E402
from unitune.types import Refused  # noqa: E402

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)


def needs(package: str) -> None:
    """Refuse a logger whose package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise Refused(
            f"logger={package} needs the package {package}, which is not installed: "
            f"pip install {package}, or logger=csv"
        )


class Csv:
    """Curves as curves/metrics.csv in the run's folder."""

    def __init__(self, save_dir: str) -> None:
        self.folder = Path(save_dir)
        self.csv = CSVLogger(save_dir, name="", version="curves")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        self.csv.log_metrics({**metrics}, step)

    def finalize(self, status: str) -> None:
        """Write what is left."""
        means = _means(self.folder) if status == "success" else {}
        if means:
            self.log_metrics(means)
        self.csv.finalize(status)


class TensorBoard:
    """The same as an event file, with the grids, the settings and the table by prompt: tensorboard --logdir outputs."""

    def __init__(self, save_dir: str) -> None:
        needs("tensorboard")
        self.folder, self.csv = Path(save_dir), Csv(save_dir)
        self.board = TensorBoardLogger(save_dir, name="", version="tensorboard")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        self.csv.log_metrics(metrics, step)
        self.board.log_metrics(metrics, step)

    def finalize(self, status: str) -> None:
        """Add means, pictures and texts, and close the file."""
        means = _means(self.folder) if status == "success" else {}
        if means:
            self.board.log_metrics(means)
        for grid in _grids(self.folder):
            self.board.experiment.add_image(
                grid.stem, np.asarray(Image.open(grid).convert("RGB")), dataformats="HWC"
            )
        for name, text in _texts(self.folder):
            self.board.experiment.add_text(
                name, "".join(f"    {line}\n" for line in text.splitlines())
            )  # indented: shown as it is
        self.board.finalize(status)
        self.csv.finalize(status)


class Wandb:
    """The same as a run of Weights & Biases; one that is asked for online goes offline, with one warning, where there is no key or no network."""

    def __init__(self, save_dir: str, *, project: str = "unitune", offline: bool = True) -> None:
        needs("wandb")
        self.folder, self.csv = Path(save_dir), Csv(save_dir)
        self.project, self.mode = project, "offline" if offline else online_or_not()
        self._run: wandb.Run | None = None

    @property
    def run(self) -> "wandb.Run":
        """The run, begun when it is first needed; one that a cell of a sweep left open is closed before."""
        import wandb

        if self._run is None:
            if wandb.run is not None:
                wandb.finish()
            config = (
                yaml.safe_load(text) if (text := dict(_texts(self.folder)).get("config")) else {}
            )
            said = {
                "project": self.project,
                "dir": str(self.folder),
                "name": self.folder.name,
                "config": config,
            }
            self._run = wandb.init(
                **said, mode=self.mode, settings=wandb.Settings(silent=True, console="off")
            )  # type: ignore[arg-type]
            self._run.define_metric(
                "*", step_metric="step"
            )  # steps begin again with every stage, which wandb's own step may not
        return self._run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        self.csv.log_metrics(metrics, step)
        if step is None:
            self.run.summary.update({**metrics})
        else:
            self.run.log({**metrics, "step": step})

    def finalize(self, status: str) -> None:
        """Add means, pictures and the table, and end the run."""
        import wandb

        if status == "success":
            self.run.summary.update(_means(self.folder))

        shown: dict[str, Any] = {grid.stem: wandb.Image(str(grid)) for grid in _grids(self.folder)}
        if (file := self.folder / records.FILE).is_file():
            columns, data = tables.numbers(records.read(file))
            shown["scores"] = wandb.Table(columns=[*columns], data=data)
        self.run.log(shown)
        self.run.finish(0 if status == "success" else 1)
        self.csv.finalize(status)
        if self.mode == "offline":
            log.info("wandb's files lie in %s/wandb; `wandb sync` uploads them", self.folder)


@cache
def online_or_not() -> str:
    """Decide once, before wandb's first run, whether runs can be sent: a key is there, the server answers and takes it."""
    import wandb
    import wandb.errors

    if (told := os.environ.get("WANDB_MODE", "online")) != "online":
        return told
    try:
        why = (
            ""
            if wandb.login(prompt=False, verify=True)
            else "there is no key (wandb login, or WANDB_API_KEY)"
        )
    except (wandb.errors.Error, ValueError) as error:  # ValueError: what cannot be a key
        why = str(error).partition(":")[0]
    if why:
        log.warning("wandb stays offline: %s; `wandb sync` uploads the run later", why)
    return "offline" if why else "online"


def _means(folder: Path) -> dict[str, float]:
    """Return the mean of each score over a run's images, as "label/score"."""
    file = folder / records.FILE
    return tables.overall(records.read(file)) if file.is_file() else {}


def _grids(folder: Path) -> list[Path]:
    return sorted(folder.glob("grid*.png"))


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    if (config := folder / "config.yaml").is_file():
        yield "config", config.read_text(encoding="utf-8")
    if (folder / records.FILE).is_file():
        yield "scores", tables.plain(tables.by_prompt(records.read(folder / records.FILE)))
