"""What a person types, made safe for Hydra's grammar; and what a config may name."""

import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.errors import Refused, number
from unitune.models import files

FREE_TEXT = (
    "image",
    "mask_file",
    "edit",
    "caption",
    "noun",
    "from",
    "runs",
)  # values that are prose or file names, not Hydra expressions
TARGETS = ("unitune.", "pytorch_lightning.loggers.")  # what a config's _target_ may name
WHOLE = ("seed", "seeds", "oracle", "steps", "batch_size")
NEEDED = (
    "image",
    "edit",
    "benchmark",
    "model",
    "method",
    "sampler",
    "stage",
    "optimizer",
    "store",
    "snapshot",
    "selection",
    "paste",
    *WHOLE,
)
FAR_BELOW = 10  # times
BESIDE_FROM = ("store.", "hydra.", "hydra/")  # what may be set beside from=: where things are kept

log = logging.getLogger(__name__)


def prepared(arguments: Sequence[str]) -> list[str]:
    """Turn what was typed into what Hydra reads; flags may stand anywhere."""
    _check_from(arguments)
    settings = [
        argument
        for argument in arguments
        if argument.startswith("~") or ("=" in argument and not argument.startswith("-"))
    ]
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
    return (
        [literals(child) for child in tree]
        if isinstance(tree, list)
        else literal(literal(tree))
        if isinstance(tree, str)
        else tree
    )


def with_benchmark(arguments: Sequence[str]) -> list[str]:
    """Let image= or edit= choose benchmark=image; edit= alone edits the demo's picture."""
    keys = _keys(arguments)
    added = []
    if keys & {"image", "edit"} and "benchmark" not in keys:
        added = ["benchmark=image"] + (
            [] if "image" in keys else ["image=${assets:demo/cat-city-0.png}"]
        )
    added += ["mask=file"] if "mask_file" in keys and "mask" not in keys else []
    return [*arguments, *added]


def _keys(arguments: Sequence[str]) -> set[str]:
    return {
        argument.lstrip("+").partition("=")[0]
        for argument in arguments
        if "=" in argument and not argument.startswith("-")
    }


def _check_from(arguments: Sequence[str]) -> None:
    keys = _keys(arguments)
    if "from" in keys and (
        more := sorted(key for key in keys - {"from"} if not key.startswith(BESIDE_FROM))
    ):
        raise Refused(
            f"from= runs a folder's own settings again, so {more[0]}= would have no effect; leave it out (store.* may be given)"
        )


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
        raise Refused(
            f"the edit prompts in {file} cannot be read ({error}); edit=@FILE reads UTF-8 text, one prompt a line"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def config_of(run: str | Path) -> Path:
    """Return the file with the settings of an earlier run."""
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise Refused(f"no run in {run}: a run's folder holds config.yaml and scores.jsonl")
    try:
        file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"the settings {file} cannot be read ({error}); name a folder whose config.yaml this program wrote"
        ) from None
    return file


def check_settings(settings: Any) -> None:
    """Refuse what can be seen to be wrong in the main job's config alone, as plain data."""
    check_targets(settings)
    if missing := [name for name in NEEDED if name not in settings]:
        raise Refused(
            f"the settings hold no {missing[0]}; a run's config.yaml holds all of {', '.join(NEEDED)}"
        )
    benchmark, model = settings["benchmark"]["name"], settings["model"]
    if benchmark != "image" and not (settings["image"] is None and settings["edit"] is None):
        raise Refused(
            f"image= and edit= have no effect with benchmark={benchmark}; leave one of them out"
        )
    if benchmark != "image" and (
        given := [name for name in ("caption", "noun") if settings.get(name)]
    ):
        raise Refused(
            f"{given[0]}= describes one's own picture (image=FILE); benchmark={benchmark} brings its own: leave it out, or change its edits.jsonl"
        )
    if settings.get("mask_file") is not None and (
        benchmark != "image" or (settings["sampler"].get("mask") or {}).get("name") != "file"
    ):
        raise Refused(
            "mask_file= takes effect with image= and mask=file only; leave it out, or choose these"
        )
    if "path" in settings["benchmark"] and settings["benchmark"]["path"] is None:
        raise Refused(f"benchmark={benchmark} needs a picture: image=FILE")
    if settings["benchmark"].get("caption") == "" and _needs_caption(settings):
        raise Refused(
            "{caption} stands in a prompt of this method or sampler, and the picture has none; describe it: caption='a cat in a city'"
        )
    if settings.get("paste") and "prompts" not in settings["benchmark"]:
        raise Refused(
            f"paste=true puts edits back into one's own picture (image=FILE, benchmark=photo); benchmark={benchmark} is of finished squares"
        )
    if scoring := _chooses_and_scores(settings, settings.get("metrics")):
        raise Refused(
            f"selection={settings['selection']['name']} would choose by the CLIP that scores ({_named(scoring)}); set selection.clip to another"
        )
    _check_numbers(settings)
    files.check(files.described(model), tuned=settings["stage"]["tuned"])


def _needs_caption(settings: Any) -> bool:
    """Whether a template asks for the caption where no rare token may take its place."""
    method = settings["method"]
    replaced = {
        name: value
        for name, value in method.items()
        if not (
            name in ("prompt", "token") and (method.get("uncaptioned") or method.get("identifier"))
        )
    }
    return "{caption}" in f"{replaced} {settings['sampler']}"


def scorable(settings: Any, metrics: Any) -> Any:
    """Return the settings of an earlier run; refuse to score it with the CLIP that chose its samples."""
    if scoring := _chooses_and_scores(settings, metrics):
        raise Refused(
            f"selection={settings['selection']['name']} of that run chose by the CLIP that would score ({_named(scoring)}); score with another"
        )
    return settings


def _chooses_and_scores(settings: Any, metrics: Any) -> dict[str, Any]:
    """The settings of a CLIP that both chose and scores; empty where there is none."""
    if not (selection := settings.get("selection")):
        return {}
    chose = _real(selection["clip"])
    return chose if chose in [_real(metric.get("clip")) for metric in metrics["use"]] else {}


def _real(clip: Any) -> Any:
    """The settings of a CLIP with its folder's or file's real path: two names of one folder are equal."""
    return {
        name: str(Path(value).resolve()) if name in ("folder", "file") and value else value
        for name, value in (clip or {}).items()
    }


def _named(clip: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for name, value in clip.items() if name != "_target_" and value)


def _check_numbers(settings: Any) -> None:
    for name in WHOLE:
        if type(settings[name]) is not int:  # nor a yes or no, which Python counts as one
            raise Refused(f"{name} must be a whole number, got {settings[name]!r}")
    if settings["oracle"] < 0:
        raise Refused(
            f"oracle must be 0 (no reference samples) or more of them, got {settings['oracle']}"
        )
    if not (number(budget := settings["store"]["budget_gib"]) and budget > 0):
        raise Refused(f"store.budget_gib must be a number above 0, got {budget!r}")


def _tuned(settings: Any) -> dict[str, Any]:
    """How each tuned stage is tuned, of a method that says so."""
    return {
        stage: tuning
        for stage, tuning in settings["method"].get("tune", {}).items()
        if stage in settings["stage"]["tuned"]
    }


def advise(settings: Any, assets: Path) -> None:
    """Log what will not work as hoped; said once everything that can be refused is not."""
    for line in advice(settings, assets):
        log.warning("%s", line)


def advice(settings: Any, assets: Path) -> list[str]:
    """List what will not work as hoped: a rate far below the one of conf or of no tuned stage, a picture (not of `assets`) from outside the model's world."""
    model, benchmark, optimizer = (
        settings["model"],
        settings["benchmark"],
        settings["optimizer"]["name"],
    )
    lines = [
        f"lr {lr:g} of {stage} is far below the {rate:g} that conf gives {model['name']} with {optimizer}: expect little of the tuning"
        for stage, tuning in _tuned(settings).items()
        if isinstance(lr := tuning["lr"], int | float)
        and 0 < lr < (rate := _rate(settings, first=stage == model["stages"][0])) / FAR_BELOW
    ]
    lines += _without_effect(settings)
    own = benchmark["name"] in ("image", "photo") and not Path(benchmark["path"]).is_relative_to(
        assets
    )
    return [*lines, model["note"]] if own and model["note"] else lines


def _rate(settings: Any, *, first: bool) -> float:
    """The rate that conf gives the weights of the first stage under this method, or of the later stages; older settings have one for all."""
    rates = (
        (settings.get("dials") or {}).get("lr")
        if first
        else settings["model"].get("sr", {}).get("lr")
    )
    return (rates or settings["model"]["lr"])[settings["optimizer"]["name"]]


def _without_effect(settings: Any) -> list[str]:
    """Say of a given rate that nothing is tuned by it. A rate counts as given where it is not the one of conf."""
    tuned, first, name = (
        _tuned(settings),
        settings["model"]["stages"][0],
        settings["method"]["name"],
    )
    given = {
        field: settings.get(field, rate) != rate
        for field, rate in (
            ("lr", _rate(settings, first=True)),
            ("sr_lr", _rate(settings, first=False)),
        )
    }
    if not tuned and "embedding" in settings["method"]:
        return [
            f"{field}= is the rate of weights, and method={name} tunes none: set method.embedding.lr"
            for field in given
            if given[field]
        ]
    if given["lr"] and tuned and first not in tuned:
        return [f"lr= is the rate of {first}, and {', '.join(tuned)} alone is tuned: set sr_lr"]
    return (
        [f"sr_lr= is the rate of the stages above {first}, and {first} alone is tuned: set lr"]
        if given["sr_lr"] and [*tuned] == [first]
        else []
    )


def check_targets(tree: object) -> None:
    """Refuse a `_target_` anywhere in a config, as plain data, that is not a class of ours: a config file must not run arbitrary code."""
    if isinstance(tree, Mapping):
        if (target := tree.get("_target_")) is not None and not _allowed(str(target)):
            raise Refused(
                f"_target_ {target!r} is not allowed; allowed are classes of {' and '.join(p.rstrip('.') for p in TARGETS)}"
            )
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
