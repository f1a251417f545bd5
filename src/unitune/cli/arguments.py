"""What a person types, made safe for Hydra's grammar; the files that it names."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.runs import config

# Values that are prose or file names, not expressions of Hydra.
FREE_TEXT = ("image", "mask_file", "edit", "caption", "noun", "from", "runs")
BESIDE_FROM = ("store.", "hydra.", "hydra/")  # what may be set beside from=: where things are kept


def prepared(arguments: Sequence[str], *, groups: Collection[str] = ()) -> list[str]:
    """Turn what was typed into what Hydra reads; flags may stand anywhere.

    `groups` are the names of conf's groups, each of which needs an option.
    """
    flags = [one for one in arguments if one.startswith("-") or not _is_setting(one)]
    settings = [one for one in arguments if one not in flags]
    for group in groups:
        if f"{group}=null" in settings:
            raise Refused(
                f"{group}=null chooses nothing; name one of the options that "
                "python run.py --help lists"
            )
    keys = _keys(settings)
    more = sorted(key for key in keys - {"from"} if not key.startswith(BESIDE_FROM))
    if "from" in keys and more:
        raise Refused(
            f"from= runs a folder's own settings again, so {more[0]}= would have no effect; "
            "leave it out (store.* may be given)"
        )
    return [*flags, *with_benchmark(quoted(settings))]


def _is_setting(argument: str) -> bool:
    return "=" in argument or argument.startswith("~")


def _keys(settings: Sequence[str]) -> set[str]:
    return {one.lstrip("+").partition("=")[0] for one in settings if "=" in one}


def with_benchmark(settings: Sequence[str]) -> list[str]:
    """Let image= or edit= choose benchmark=image, and mask_file= choose mask=file.

    edit= alone edits the demo's picture.
    """
    keys, added = _keys(settings), []
    if keys & {"image", "edit"} and "benchmark" not in keys:
        added.append("benchmark=image")
        if "image" not in keys:
            added.append("image=${assets:demo/cat-city-0.png}")
    if "mask_file" in keys and "mask" not in keys:
        added.append("mask=file")
    return [*settings, *added]


def quoted(settings: Sequence[str]) -> list[str]:
    """Quote free text that stands in no quotes and is no [list].

    Commas, apostrophes, brackets and accents stay as typed.
    """
    return [_quoted(one) for one in settings]


def _quoted(setting: str) -> str:
    key, equals, value = setting.partition("=")
    enclosed = len(value) > 1 and value[0] + value[-1] in ("''", '""', "[]")
    if not equals or key.lstrip("+") not in FREE_TEXT or enclosed or value == "null":
        return setting
    # In a quoted value of Hydra's grammar only the quote, and backslashes before one, are escaped.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", literal(value)).replace("'", "\\'")
    return f"{key}='{escaped}'"


def literal(text: str) -> str:
    """Escape what a config would take for an interpolation, so that `${` stays as typed."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def literals(tree: Any) -> Any:
    """Escape every string of plain data that Hydra instantiates: it resolves a config twice."""
    if isinstance(tree, Mapping):
        return {name: literals(child) for name, child in tree.items()}
    if isinstance(tree, list):
        return [literals(child) for child in tree]
    return literal(literal(tree)) if isinstance(tree, str) else tree


def edit_prompts(edit: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the prompts of edit=: one, several, or @FILE with a prompt a line."""
    if edit is None:
        return ()
    if not isinstance(edit, str):
        return tuple(str(prompt) for prompt in edit)
    if not edit.startswith("@"):
        return (edit,)
    file = Path(edit[1:])
    if not file.is_file():
        raise Refused(f"no file {file} with edit prompts (edit=@FILE reads one prompt a line)")
    text = _text(file, "edit prompts in", "edit=@FILE reads UTF-8 text, one prompt a line")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def config_of(run: str | Path) -> Path:
    """Return the file with the settings of an earlier run."""
    file = Path(run) / config.FILE
    if not file.is_file():
        raise Refused(f"no run in {run}: a run's folder holds config.yaml and scores.jsonl")
    text = _text(file, "settings", "name a folder whose config.yaml this program wrote")
    config.check_version(text, Path(run))
    return file


def _text(file: Path, what: str, advice: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the {what} {file} cannot be read ({error}); {advice}") from None
