"""What a person types, made safe for Hydra's grammar; what a config may name; and what the program answers when it cannot go on."""

import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from unitune.errors import Refused

FREE_TEXT = ("image", "edit", "caption", "from", "runs")  # values that are prose or file names, not Hydra expressions
TARGETS = ("unitune.", "pytorch_lightning.loggers.")  # what a config's _target_ may name
OURS = ("config.yaml", "multirun.yaml")  # files of a run's folder that are worth nothing without a result
FAILED, REFUSED = 1, 2  # exit codes
WHOLE = ("seed", "seeds", "steps", "batch_size")
FAR_BELOW = 10  # times
BESIDE_FROM = ("store.", "hydra.", "hydra/")  # what may be set beside from=: where things are kept

log = logging.getLogger(__name__)


def prepared(arguments: Sequence[str]) -> list[str]:
    """Turn what was typed into what Hydra reads; flags may stand anywhere."""
    _check_from(arguments)
    settings = [argument for argument in arguments if argument.startswith("~") or ("=" in argument and not argument.startswith("-"))]
    flags = [argument for argument in arguments if argument not in settings]
    return [*flags, *with_benchmark(quoted(settings))]


def quoted(arguments: Sequence[str]) -> list[str]:
    """Quote the values of free-text fields, unless a value stands in quotes or is a [list]: commas, apostrophes, brackets and accents stay as typed."""
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    enclosed = len(value) > 1 and value[0] + value[-1] in ("''", '""', "[]")
    if not equals or key.lstrip("+") not in FREE_TEXT or enclosed or value == "null":
        return argument
    # In a quoted value of Hydra's grammar only backslashes before a quote, and the quote, need escaping.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", literal(value)).replace("'", "\\'")
    return f"{key}='{escaped}'"


def literal(text: str) -> str:
    """Escape what a config would take for an interpolation, so that `${` stays as typed."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def literals(tree: Any) -> Any:
    """Escape every string of plain data that Hydra instantiates: it resolves a config in place, and then again."""
    if isinstance(tree, Mapping):
        return {name: literals(child) for name, child in tree.items()}
    return [literals(child) for child in tree] if isinstance(tree, list) else literal(literal(tree)) if isinstance(tree, str) else tree


def with_benchmark(arguments: Sequence[str]) -> list[str]:
    """Let image= or edit= choose benchmark=image; edit= alone edits the demo's picture."""
    keys = _keys(arguments)
    added = []
    if keys & {"image", "edit"} and "benchmark" not in keys:
        added = ["benchmark=image"] + ([] if "image" in keys else ["image=${assets:demo/cat-city-0.png}"])
    return [*arguments, *added]


def _keys(arguments: Sequence[str]) -> set[str]:
    return {argument.lstrip("+").partition("=")[0] for argument in arguments if "=" in argument and not argument.startswith("-")}


def _check_from(arguments: Sequence[str]) -> None:
    keys = _keys(arguments)
    if "from" in keys and (more := sorted(key for key in keys - {"from"} if not key.startswith(BESIDE_FROM))):
        raise Refused(f"from= runs a folder's own settings again, so {more[0]}= would have no effect; leave it out (store.* may be given)")


def edit_prompts(edit: str | Sequence[str] | None) -> tuple[str, ...]:
    """One prompt, several, or @FILE with a prompt a line."""
    if edit is None:
        return ()
    if not isinstance(edit, str):
        return tuple(str(prompt) for prompt in edit)
    if not edit.startswith("@"):
        return (edit,)
    file = Path(edit[1:])
    if not file.is_file():
        raise Refused(f"no file {file} with edit prompts (edit=@FILE reads one prompt a line)")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the edit prompts in {file} cannot be read ({error}); edit=@FILE reads UTF-8 text, one prompt a line") from None
    return tuple(line.strip() for line in lines if line.strip())


def config_of(run: str | Path) -> Path:
    """Return the file with the settings of an earlier run."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise Refused(f"no run in {run}: a run's folder holds config.yaml and scores.jsonl")
    return file


def check_settings(settings: Any, assets: Path) -> None:
    """Refuse what can be seen to be wrong in the main job's config alone, as plain data; log what will not work as hoped."""
    check_targets(settings)
    benchmark, model = settings["benchmark"]["name"], settings["model"]
    if benchmark != "image" and not (settings["image"] is None and settings["edit"] is None):
        raise Refused(f"image= and edit= have no effect with benchmark={benchmark}; leave one of them out")
    if settings["benchmark"].get("path") is None:
        raise Refused(f"benchmark={benchmark} needs a picture: image=FILE")
    if settings["benchmark"].get("caption") == "" and "{caption}" in f"{settings['method']} {settings['sampler']}":
        raise Refused("{caption} stands in a prompt of this method or sampler, and the picture has none; describe it: caption='a cat in a city'")
    _check_numbers(settings)
    if not Path(model["path"]).is_dir():
        raise Refused(f"no model folder {model['path']}; give model.path the folder that holds {', '.join(model['stages'])}")
    for line in advice(settings, assets):
        log.warning("%s", line)


def _check_numbers(settings: Any) -> None:
    for name in WHOLE:
        if not isinstance(settings[name], int):
            raise Refused(f"{name} must be a whole number, got {settings[name]!r}")
    at = settings["snapshot"]
    for stage, tuning in _tuned(settings).items():
        kept = sorted({0, tuning["steps"], *(step for step in tuning["snapshots"] if step < tuning["steps"])})
        if at is not None and at not in kept:
            raise Refused(f"no snapshot of {stage} at {at} steps; there are {', '.join(map(str, kept))}: change snapshot= or snapshots=")


def _tuned(settings: Any) -> dict[str, Any]:
    """How each tuned stage is tuned, of a method that says so."""
    return {stage: tuning for stage, tuning in settings["method"].get("tune", {}).items() if stage in settings["stage"]["tuned"]}


def advice(settings: Any, assets: Path) -> list[str]:
    """List what will not work as hoped: a learning rate far below the measured one, a picture (not of `assets`) from outside the model's world."""
    model, benchmark, optimizer = settings["model"], settings["benchmark"], settings["optimizer"]["name"]
    measured = model["lr"][optimizer]
    lines = [
        f"lr {lr:g} of {stage} is far below the {measured:g} that {model['name']} was measured to need with {optimizer}: expect little of the tuning"
        for stage, tuning in _tuned(settings).items()
        if isinstance(lr := tuning["lr"], int | float) and 0 < lr < measured / FAR_BELOW
    ]
    own = benchmark["name"] in ("image", "photo") and not Path(benchmark["path"]).is_relative_to(assets)
    return [*lines, model["note"]] if own and model["note"] else lines


def check_targets(tree: object) -> None:
    """Refuse a `_target_` anywhere in a config, as plain data, that is not a class of ours: a config file must not run arbitrary code."""
    if isinstance(tree, Mapping):
        if (target := tree.get("_target_")) is not None and not _allowed(str(target)):
            raise Refused(f"_target_ {target!r} is not allowed; allowed are classes of {' and '.join(p.rstrip('.') for p in TARGETS)}")
        for child in tree.values():
            check_targets(child)
    elif isinstance(tree, list | tuple):
        for child in tree:
            check_targets(child)


def _allowed(target: str) -> bool:
    """Whether a target is a class that was written in an allowed package: functions, and what such a package imports from elsewhere, are not."""
    if not target.startswith(TARGETS):
        return False
    module, _, name = target.rpartition(".")
    try:
        owner = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(owner, type) and owner.__module__.startswith(TARGETS)


def one_line(error: BaseException) -> str:
    """Return the first telling line of an error, with the options where Hydra lists them on the lines after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    options = ", ".join(line for line in lines[1:] if re.fullmatch(r"[\w./-]+", line))
    said = lines[0] if lines else type(error).__name__
    if "Available options" in str(error) and options:
        return f"{said}; available: {options}"
    if said.endswith(":") and len(lines) > 1:  # what went wrong stands on the next line
        said = f"{said} {lines[1]}"
    where = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return said if where in said else f"{said} ({where})"


@dataclass(frozen=True)
class Failure:
    """A run that ended early; `cell` names it within a sweep, "" outside of one."""

    error: Exception
    refused: bool
    cell: str
    overrides: Sequence[str]


@dataclass
class Ended:
    """How the runs of this process ended, and the folders that were made for them."""

    failures: list[Failure] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    signal: int = 0  # that stopped the program

    def noted(self, folder: str) -> str:
        """Note a folder that is made for a run or a sweep, and return it."""
        self.folders.append(Path(folder))
        return folder

    def failed(self, error: Exception, *, refused: bool, cell: str = "", overrides: Sequence[str] = ()) -> None:
        """Note that a run ended early."""
        self.failures.append(Failure(error, refused, cell, overrides))

    def stopped(self, signal: int) -> None:
        """Note that a signal ended the program."""
        self.signal = signal

    @property
    def code(self) -> int:
        """The exit code: 0 done, 1 failed, 2 refused input, 128 + n stopped by signal n."""
        if self.signal or not self.failures:
            return 128 + self.signal if self.signal else 0
        return REFUSED if all(failure.refused for failure in self.failures) else FAILED

    def report(self) -> list[str]:
        """Say which runs failed: one line outside a sweep, else a table with one line per failed cell."""
        if not any(failure.cell for failure in self.failures):
            return [f"unitune: {one_line(failure.error)}" for failure in self.failures]
        rows = [(failure.cell, one_line(failure.error), " ".join(failure.overrides)) for failure in self.failures]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        some = "1 run of the sweep" if len(rows) == 1 else f"{len(rows)} runs of the sweep"
        return [f"unitune: {some} failed:", *(f"  {cell:{widths[0]}}  {why:{widths[1]}}  {what}" for cell, why, what in rows)]

    def tell(self, stream: TextIO) -> int:
        """Say what went wrong and return the exit code; after refused input alone, remove the folders that hold no result."""
        lines = self.report() + (["unitune: stopped; the same command goes on from the last step that was saved"] if self.signal else [])
        stream.writelines(f"{line}\n" for line in lines)
        for folder in self.folders if self.code == REFUSED else []:
            remove_leftovers(folder)
        return self.code


def remove_leftovers(folder: Path) -> None:
    """Remove a run's folder that holds no result, and then the folders above it that are left empty, up to the working directory."""
    folder, here = folder.absolute(), Path.cwd()
    while folder != here and folder not in here.parents and folder.is_dir() and {file.name for file in folder.iterdir()} <= set(OURS):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        folder = folder.parent
