"""What a person types for one field of conf/, made safe for Hydra's grammar.

A text (a prompt, a caption, a token) and a path are taken as typed: only the quotes around a whole
value mean something, and in the few fields that hold several texts a [list]. Every other value is
Hydra's: numbers, [lists], {mappings}, and commas between the runs of a sweep. In a sweep, quotes
say whether a comma belongs to a text or separates two.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from unitune.errors import Refused
from unitune.runs import config
from unitune.storage import disk

# Patterns of fields. Of these the texts of LISTS may be a [list] of several.
LISTS = ("edit", "benchmark.prompts", "method.templates", "sampler.control.blend.words")
TEXTS = (
    *LISTS,
    *("caption", "noun", "benchmark.caption", "benchmark.noun", "token.*"),
    *("model.token", "model.note", "mask.words", "mask.reference"),
    *("sampler.template", "sampler.control.source", "*.guidance.reference"),
    *("method.prompt", "method.uncaptioned", "method.template", "method.token"),
    *("method.identifier", "method.class_prompt", "method.word", "method.initializer"),
    *("logger.project", "outputs", "sweep", "launcher.address", "launcher.partition"),
)
# Folders on this machine or, where there is none of that name, repositories of the hub.
HUB = ("model.repos.*", "mask.segmenter.model", "metrics.structure.source")
HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
PATHS = (
    *HUB,
    *HYDRA,
    *("image", "mask_file", "from", "runs", "folder", "*.path", "*.folder", "*.file"),
    *("benchmark.mask", "benchmark.apart_from", "metrics.judge"),
)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
INTERPOLATION = re.compile(r"(?<!\\)\$\{")
UNREADABLE = object()
RESOLVER = re.compile(r"\$\{([\w.]+):")


def is_text(name: str) -> bool:
    """Whether a field holds a text, or a list of texts."""
    return _is(name, TEXTS)


def is_path(name: str) -> bool:
    """Whether a field holds the path of a file or a folder."""
    return _is(name, PATHS)


def is_single(name: str) -> bool:
    """Whether a field holds one text, or one path."""
    return (is_text(name) or is_path(name)) and not _is(name, LISTS)


def field(setting: str) -> str:
    """Return the name of the field, or of the group, that a setting sets."""
    return setting.partition("=")[0].lstrip("+~").partition("@")[0]


def unreadable(setting: str) -> Refused:
    """Say of a setting that Hydra cannot read it."""
    return Refused(f"{disk.shown(setting)} cannot be read; put its value in quotes")


def options(setting: str) -> list[Any]:
    """List what a setting chooses of a group, several in a sweep; patterns are left to Hydra."""
    read = _read(setting)
    if read is UNREADABLE:
        raise unreadable(setting)
    values = [] if isinstance(read, Glob) else _values(read)
    return [one.text if isinstance(one, QuotedString) else one for one in values]


def quoted(setting: str, *, sweep: bool = False) -> str:
    """Quote a text or a path as it was typed; another setting stays as it is.

    Refused are values that Hydra could not read, and several of them outside of a `sweep`.
    """
    key, equals, value = setting.partition("=")
    name = field(setting)
    if not equals:
        return setting
    if value == "null" and name in HYDRA:
        raise Refused(f"{setting} names no folder; give one, or leave it out")
    read = _read(setting)
    if key.startswith("~") or value == "null" or not (is_text(name) or is_path(name)):
        if read is UNREADABLE:
            raise unreadable(setting)
        if isinstance(read, ChoiceSweep) and not sweep:
            raise Refused(
                f"{disk.shown(setting)} holds several values; -m runs each of them, and a field "
                f"that takes a list is given one in brackets: [{value}]"
            )
        return setting
    if _is(name, LISTS) and _are(read, list):
        return setting
    if _is(name, LISTS) and value.startswith(("['", '["')):
        raise Refused(
            f"{disk.shown(setting)} begins as a list and cannot be read as one; "
            f"write {key}=['a dog','a cat']"
        )
    if _are(read, QuotedString):
        texts = [one.text for one in _values(read)]
    else:
        texts = [value]
        if sweep and name not in HYDRA:
            _check_comma(name, value)
    if len(texts) > 1 and not sweep:
        raise Refused(f"{disk.shown(setting)} holds several values; -m runs each of them")
    meant = [_path(name, text) if is_path(name) else literal(text) for text in texts]
    if meant == texts and (_are(read, QuotedString) or read == value):
        return setting  # what Hydra reads as typed
    return f"{key}={','.join(map(_escaped, meant))}"


def absolute(cfg: Any) -> Any:
    """Return a config whose paths hold from any folder: relative ones are of the working directory.

    Interpolations stay, and so do the names of repositories.
    """
    settled = cfg.copy()
    plain: Any = OmegaConf.to_container(cfg)
    for name, value in config.leaves(plain):
        if not is_path(name) or not isinstance(value, str) or INTERPOLATION.search(value):
            continue
        path = Path(OmegaConf.select(cfg, name))
        if not path.is_absolute() and (path.exists() or not _is(name, HUB)):
            OmegaConf.update(settled, name, literal(str(Path.cwd() / path)))
    return settled


def home(path: str) -> str:
    """Write the home folder in place of ~ where a path begins with it."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # no such user: a name that begins so
        return path


def literal(text: str) -> str:
    """Escape what a config would take for an interpolation, so that `${` stays as typed."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _is(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@lru_cache(maxsize=1)
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _read(setting: str) -> Any:
    """Return what Hydra reads in a setting; UNREADABLE where it cannot."""
    try:
        return _parser().parse_override(setting)._value  # value() would drop the quotes
    except HydraException:
        return UNREADABLE


def _values(read: Any) -> list[Any]:
    """List the values of a sweep, or the one outside of it."""
    return read.list if isinstance(read, ChoiceSweep) and read.simple_form else [read]


def _are(read: Any, kind: type) -> bool:
    return all(isinstance(one, kind) for one in _values(read))


def _check_comma(name: str, value: str) -> None:
    """Refuse a comma that might stand between the runs of a sweep.

    One before a space is a text's, and so is that of a file or folder that is there.
    """
    if not re.search(r",(?!\s|$)", value) or (is_path(name) and Path(home(value)).exists()):
        return
    several = ",".join(f"'{part}'" for part in value.split(","))
    raise Refused(
        f"{name}={disk.shown(value)} in a sweep (-m) may be one value or several; quotes say "
        f'which: "{name}=\'{disk.shown(value)}\'" is one, "{name}={disk.shown(several)}" several'
    )


def _escaped(text: str) -> str:
    """Write a quoted value of Hydra's grammar.

    Only the quote, and backslashes before one, are escaped in it.
    """
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"


def _path(name: str, text: str) -> str:
    """Check a path and write the home folder in place of ~.

    What a resolver of conf/ stands for, as ${assets:...}, stays, and all of Hydra's own templates.
    """
    if not text.strip():
        raise Refused(f"{name}= is empty; name a file or folder, or leave it out")
    if ADDRESS.match(text):
        raise Refused(
            f"{name}={disk.shown(text)} is an address, from which nothing is fetched; download "
            "it and name the file or folder on this machine"
        )
    text = home(text)
    resolves = any(OmegaConf.has_resolver(one) for one in RESOLVER.findall(text))
    return text if resolves or name in HYDRA else literal(text)
