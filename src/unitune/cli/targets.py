"""Which classes a config may name: a config file must not run arbitrary code."""

import importlib
from collections.abc import Mapping

from unitune.errors import Refused

ALLOWED = ("unitune.", "pytorch_lightning.loggers.")

MOVED = {  # what configs of earlier versions name -> what it is called now
    "unitune.backends.clipseg.ClipSeg": "unitune.models.clipseg.ClipSeg",
    "unitune.benchmarks.manifest.Picture": "unitune.benchmarks.one_picture.OnePicture",
    "unitune.benchmarks.scenes.Drawn": "unitune.benchmarks.scenes.DrawnScenes",
    "unitune.diffusion.blend.Interpolation": "unitune.diffusion.interpolation.Interpolation",
    "unitune.loggers.Csv": "unitune.report.loggers.Csv",
    "unitune.loggers.TensorBoard": "unitune.report.loggers.TensorBoard",
    "unitune.loggers.Wandb": "unitune.report.loggers.Wandb",
    "unitune.metrics.clip.Pocket": "unitune.metrics.clip.PocketClip",
    "unitune.metrics.stock_clip.Stock": "unitune.metrics.clip.StockClip",
    "unitune.plans.Dials": "unitune.runs.plans.Dials",
    "unitune.plans.Seeds": "unitune.runs.plans.Seeds",
    "unitune.selection.Best": "unitune.runs.selection.Best",
    "unitune.selection.Gate": "unitune.runs.selection.Gate",
    "unitune.store.Store": "unitune.storage.store.Store",
    "unitune.tuning.finetune.Tuning": "unitune.tuning.recipe.Tuning",
    "unitune.tuning.select.Selection": "unitune.tuning.select.ParameterSelection",
}


def check_targets(tree: object) -> None:
    """Refuse a `_target_` anywhere in a config, as plain data, that is not a class of ours."""
    if isinstance(tree, Mapping):
        if (target := tree.get("_target_")) is not None:
            _check(str(target), shown=repr(target))
        for child in tree.values():
            check_targets(child)
    elif isinstance(tree, list | tuple):
        for child in tree:
            check_targets(child)


def _check(target: str, *, shown: str) -> None:
    if _is_class_of_ours(target):
        return
    if target in MOVED:
        raise Refused(
            f"_target_ {shown} is of an earlier version; its name is now {MOVED[target]}: "
            "write that in the config"
        )
    packages = " and ".join(package.rstrip(".") for package in ALLOWED)
    raise Refused(f"_target_ {shown} is not allowed; allowed are classes of {packages}")


def _is_class_of_ours(target: str) -> bool:
    """Whether the named thing is a class that was written in an allowed package.

    Functions, and what such a package imports from elsewhere, are not.
    """
    module, _, name = target.rpartition(".")
    if not target.startswith(ALLOWED):
        return False
    try:
        named = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(named, type) and named.__module__.startswith(ALLOWED)
