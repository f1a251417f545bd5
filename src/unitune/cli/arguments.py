"""What a person types, made safe for Hydra's grammar; the files that it names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.cli import typed
from unitune.cli.groups import check_groups
from unitune.errors import Refused
from unitune.runs import config

# What may be set beside from=: where things are kept, and where cells run.
BESIDE_FROM = ("store.", "hydra.", "hydra/", "launcher", "sweep")
MORE = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")  # options of one's own


def prepared(
    arguments: Sequence[str], *, groups: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Turn what was typed into what Hydra reads; flags may stand anywhere.

    `groups` are the options of conf's groups by the group's name, each of which needs one.
    """
    flags = [one for one in arguments if one.startswith("-") or not is_setting(one)]
    settings = [one for one in arguments if one not in flags]
    check_groups(settings, groups or {}, more=any(one.startswith(MORE) for one in arguments))
    keys = _keys(settings)
    more = sorted(key for key in keys - {"from"} if not key.startswith(BESIDE_FROM))
    if "from" in keys and more:
        raise Refused(
            f"from= runs a folder's own settings again, so {more[0]}= would have no effect; "
            "leave it out (store.* may be given)"
        )
    sweep = bool({"-m", "--multirun"} & {*flags})
    return [*flags, *with_benchmark(quoted(settings, sweep=sweep))]


def is_setting(argument: str) -> bool:
    """Whether an argument sets something; it is a flag or a flag's value otherwise."""
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


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


def quoted(settings: Sequence[str], *, sweep: bool = False) -> list[str]:
    """Quote texts and paths, so that Hydra reads them as they were typed (see typed.py)."""
    return [typed.quoted(one, sweep=sweep) for one in settings]


def literals(tree: Any) -> Any:
    """Escape every string of plain data that Hydra instantiates: it resolves a config twice."""
    if isinstance(tree, Mapping):
        return {name: literals(child) for name, child in tree.items()}
    if isinstance(tree, list):
        return [literals(child) for child in tree]
    return typed.literal(typed.literal(tree)) if isinstance(tree, str) else tree


def edit_prompts(edit: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the prompts of edit=: one, several, or @FILE with a prompt a line."""
    if edit is None:
        return ()
    if not isinstance(edit, str):
        if wrong := [one for one in edit if not isinstance(one, str | int)]:
            raise Refused(f"edit holds {wrong[0]!r}, which is no text; put each prompt in quotes")
        return tuple(str(prompt) for prompt in edit)
    if not edit.startswith("@"):
        return (edit,)
    file = Path(typed.home(edit[1:]))
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
