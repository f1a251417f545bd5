"""Where curves, grids, settings and the table go beside scores.jsonl.

CSV always, and TensorBoard or Weights & Biases where that is asked for. A logger takes
`log_metrics` while a run goes on and `finalize` at its end, as Lightning's do; what else it shows
it reads from the run's folder then.
"""

import logging
import os
from collections.abc import Mapping
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from unitune.models.compat import ensure_torchvision

ensure_torchvision()  # Lightning brings in torchmetrics, which imports torchvision

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

from unitune.report import tables  # noqa: E402
from unitune.runs import config  # noqa: E402
from unitune.storage import records  # noqa: E402
from unitune.storage.records import Record  # noqa: E402
from unitune.types import Refused  # noqa: E402

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)


class Csv:
    """Curves as curves/metrics.csv in the run's folder."""

    def __init__(self, save_dir: str) -> None:
        self.folder = Path(save_dir)
        self.csv = CSVLogger(save_dir, name="", version="curves")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        self.csv.log_metrics({**metrics}, step)

    def finalize(self, status: str) -> None:
        """Note the mean of each score over images, and write what is left."""
        found = self.recorded if status == "success" else []
        means = tables.overall(found) if found else {}
        if means:
            self.log_metrics(means)
        self.csv.finalize(status)

    @property
    def recorded(self) -> list[Record]:
        """The run's records, of which there may be none."""
        file = self.folder / records.FILE
        return records.read(file) if file.is_file() else []

    @property
    def settings(self) -> str:
        """The text of the run's config.yaml."""
        file = self.folder / config.FILE
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @property
    def grids(self) -> list[Path]:
        """The run's contact sheets."""
        return sorted(self.folder.glob("grid*.png"))


class TensorBoard(Csv):
    """The same as an event file, with the grids, the settings and the table by prompt.

    tensorboard --logdir outputs shows it.
    """

    def __init__(self, save_dir: str) -> None:
        _require("tensorboard")
        super().__init__(save_dir)
        self.board = TensorBoardLogger(save_dir, name="", version="tensorboard")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        super().log_metrics(metrics, step)
        self.board.log_metrics({**metrics}, step)

    def finalize(self, status: str) -> None:
        """Add means, pictures and texts, and close the file."""
        super().finalize(status)
        show = self.board.experiment
        for grid in self.grids:
            with Image.open(grid) as picture:
                show.add_image(grid.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
        found = self.recorded
        table = tables.by_prompt(found).plain() if found else ""
        for name, text in (("config", self.settings), ("scores", table)):
            if text:  # indented: shown as it is
                show.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))
        self.board.finalize(status)


class Wandb(Csv):
    """The same as a run of Weights & Biases.

    One that is asked for online goes offline, with one warning, where there is no key or no
    network.
    """

    def __init__(self, save_dir: str, *, project: str = "unitune", offline: bool = True) -> None:
        _require("wandb")
        super().__init__(save_dir)
        self.project, self.mode = project, "offline" if offline else online_or_not()

    @cached_property
    def run(self) -> "wandb.Run":
        """The run, begun when it is first needed; one that is still open is closed before."""
        import wandb

        if wandb.run is not None:  # of another cell of the sweep
            wandb.finish()
        run = wandb.init(
            project=self.project,
            dir=str(self.folder),
            name=self.folder.name,
            config=yaml.safe_load(self.settings) or {},
            mode=self.mode,  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Steps begin again with every stage, which wandb's own step may not.
        run.define_metric("*", step_metric="step")
        return run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note numbers of a step, or of the whole run."""
        super().log_metrics(metrics, step)
        if step is None:
            self.run.summary.update({**metrics})
        else:
            self.run.log({**metrics, "step": step})

    def finalize(self, status: str) -> None:
        """Add means, pictures and the table, and end the run."""
        import wandb

        super().finalize(status)
        shown: dict[str, Any] = {grid.stem: wandb.Image(str(grid)) for grid in self.grids}
        if found := self.recorded:
            columns, data = tables.numbers(found)
            shown["scores"] = wandb.Table(columns=[*columns], data=data)
        self.run.log(shown)
        self.run.finish(0 if status == "success" else 1)
        if self.mode == "offline":
            log.info("wandb's files lie in %s/wandb; `wandb sync` uploads them", self.folder)


@cache
def online_or_not() -> str:
    """Decide once, before wandb's first run, whether the server answers and takes a key."""
    import wandb
    import wandb.errors

    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return mode
    try:
        known = wandb.login(prompt=False, verify=True)
        why = "" if known else "there is no key (wandb login, or WANDB_API_KEY)"
    except (wandb.errors.Error, ValueError) as error:  # ValueError: what cannot be a key
        why = str(error).partition(":")[0]
    if why:
        log.warning("wandb stays offline: %s; `wandb sync` uploads the run later", why)
    return "offline" if why else "online"


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise Refused(
            f"logger={package} needs the package {package}, which is not installed: "
            f"pip install {package}, or logger=csv"
        )
