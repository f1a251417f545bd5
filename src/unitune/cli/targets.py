"""Which classes a config may name: a config file must not run arbitrary code."""

import importlib
import inspect
from collections.abc import Mapping

from unitune.errors import Refused

ALLOWED = ("unitune.", "pytorch_lightning.loggers.")

OPTIONAL = "optional"  # a field of metrics, which the job reads: see cli/jobs.py

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


def check_targets(tree: object, where: str = "") -> None:
    """Refuse a `_target_` anywhere in a config, as plain data, that is not a class of ours.

    Refused is a field that its class does not take, too; `where` is the dotted name of the tree.
    """
    if isinstance(tree, Mapping):
        target = tree.get("_target_")
        made = None if target is None else _checked(str(target), shown=repr(target))
        for name, child in tree.items():
            check_targets(child, f"{where}.{name}" if where else str(name))
        if made is not None:
            _check_fields(made, tree, where)
    elif isinstance(tree, list | tuple):
        for child in tree:
            check_targets(child, where)


def _checked(target: str, *, shown: str) -> type:
    """Return the named class."""
    if (found := _class_of_ours(target)) is not None:
        return found
    if target in MOVED:
        raise Refused(
            f"_target_ {shown} is of an earlier version; its name is now {MOVED[target]}: "
            "write that in the config"
        )
    packages = " and ".join(package.rstrip(".") for package in ALLOWED)
    raise Refused(f"_target_ {shown} is not allowed; allowed are classes of {packages}")


def _check_fields(made: type, tree: Mapping[str, object], where: str) -> None:
    """Refuse a field that a class does not take."""
    takes = inspect.signature(made).parameters
    if any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        return
    option = f"{where}={tree['name']}" if where and "name" in tree else where or made.__name__
    for name in tree:
        if name not in takes and name != OPTIONAL and not str(name).startswith("_"):
            raise Refused(
                f"{where or made.__name__}.{name} has no effect: {option} takes "
                f"{', '.join(takes)}; leave it out, or choose what takes it"
            )


def _class_of_ours(target: str) -> type | None:
    """Return the named class where it was written in an allowed package, else None.

    Functions, and what such a package imports from elsewhere, are none.
    """
    module, _, name = target.rpartition(".")
    if not target.startswith(ALLOWED):
        return None
    try:
        named = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    ours = isinstance(named, type) and named.__module__.startswith(ALLOWED)
    return named if ours else None
