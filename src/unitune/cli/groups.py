"""The groups of conf/: each is given the name of one of its options."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitune.cli import typed
from unitune.errors import Refused
from unitune.storage import disk


def options(conf: Path) -> dict[str, list[str]]:
    """List the options of each group by its name, of nested ones as method/tuning."""
    folders = sorted(folder for folder in conf.rglob("*") if folder.is_dir())
    return {
        folder.relative_to(conf).as_posix(): sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in folders
    }


def check_groups(
    settings: Sequence[str], groups: Mapping[str, Sequence[str]], *, more: bool = False
) -> None:
    """Refuse what chooses no option of a group: nothing, several at once, or none of its names.

    With `more` there may be options beside the known ones.
    """
    for setting in settings:
        name = typed.field(setting)
        if not name:
            raise Refused(f"{disk.shown(setting)} names no field; write FIELD=VALUE")
        if name not in groups:
            continue
        given = disk.shown(setting)
        known = groups[name]
        listed = f"available: {', '.join(known)}" if known else "see python run.py --help"
        if setting.startswith("~"):
            raise Refused(f"{given} takes away what every run needs; choose an option; {listed}")
        for value in typed.options(setting):
            if value is None:
                raise Refused(f"{given} chooses nothing; {listed}")
            if isinstance(value, list):
                raise Refused(
                    f"{given} names several options at once; name one, or run each of them with "
                    f"-m {name}=ONE,OTHER; {listed}"
                )
            own = more or not known or name.startswith("hydra")
            if not isinstance(value, str) or not (value in known or (value and own)):
                raise Refused(f"{given} names no option{_near(str(value), known)}; {listed}")


def _near(value: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
