"""What kind of value each field of conf/ holds; one of another kind is refused in a line."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unitune.cli import typed
from unitune.errors import Refused, number
from unitune.storage import disk

Fields = Mapping[str, list[Any]]  # every value that conf/ has for a field, by its dotted name
NAMED = re.compile(r"\$\{([\w.]+)\}")  # an interpolation that names another field
PACKAGE = re.compile(r"(?:override )?/?(?P<group>[\w/]+)@(?P<package>[\w.]+)$")
NOTHING, SWITCH, NUMBER, TEXT = "nothing (null)", "true or false", "a number", "a text"
LIST, GROUP = "a list", "fields"
OPEN = "open"  # of a field whose kind is seen in a run alone
SINGLE = {SWITCH, NUMBER, TEXT}


def fields(conf: Path) -> dict[str, list[Any]]:
    """Read what conf/ has for each field, groups among them."""
    import yaml  # here, because --help must stay quick

    found: dict[str, list[Any]] = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    read: dict[Path, tuple[str, dict[str, Any]]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        read[file] = text, yaml.load(text, loader) or {}
    packages: dict[str, str] = dict(_packages(tree for _, tree in read.values()))
    for file, (text, tree) in read.items():
        group = file.parent.relative_to(conf).as_posix()
        if group.startswith("hydra"):
            continue
        of_top = group == "." or "@package _global_" in text
        prefix = "" if of_top else packages.get(group, group)
        tree = {name: tree[name] for name in tree if name not in ("defaults", "hydra")}
        for name, value in _flat(tree, prefix):
            found.setdefault(name, []).append(value)
    return found


def check(settings: Mapping[str, Any], known: Fields, *, exact: bool = False) -> None:
    """Refuse a value, in settings as plain data, of a kind that conf/ does not have for its field.

    A single value in place of a number is refused where `exact`; before, code that knows the
    number's range has the word.
    """
    for name, value in _flat(settings, ""):
        if name not in known:
            continue
        expected, given = of(name, known), kind(value)
        if given == GROUP and "_target_" not in value and _makes(name, known):
            raise Refused(f"{name} names no class (_target_); leave it, and set its fields alone")
        if not expected or given in expected:
            continue
        if not exact and given in SINGLE and NUMBER in expected:
            continue
        raise Refused(_said(name, value, expected, known))


def kind(value: Any) -> str:
    """Name the kind of a value."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return SWITCH
    if isinstance(value, int | float):
        return NUMBER
    if isinstance(value, Mapping):
        return GROUP
    return TEXT if isinstance(value, str) else LIST


def _packages(trees: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Say where the options of a group come to stand, where a list of defaults moves them."""
    for tree in trees:
        for entry in tree.get("defaults", ()):
            for key in entry if isinstance(entry, Mapping) else ():
                if moved := PACKAGE.match(str(key)):
                    yield moved["group"], moved["package"].removeprefix("_global_.")


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """List every field with its value, a field that holds fields among them."""
    if prefix:
        yield prefix, tree
    for name, value in tree.items():
        full = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, full)
        else:
            yield full, value


def of(name: str, known: Fields, seen: tuple[str, ...] = ()) -> set[str]:
    """Return the kinds of a field; none where conf/ leaves them open."""
    found: set[str] = set()
    for value in known[name]:
        if other := _named(value, known, seen):
            found |= of(other, known, (*seen, name)) or {OPEN}
        elif value != "???":
            found.add(_kind_in_conf(value))
    if typed.is_single(name):
        return {TEXT, NOTHING} & {TEXT, *found}
    return set() if OPEN in found or found <= {NOTHING} else found


def _named(value: Any, known: Fields, seen: tuple[str, ...]) -> str:
    """Return the other field that a value of conf/ names, as ${steps} does; empty for none."""
    named = NAMED.fullmatch(value) if isinstance(value, str) else None
    return named[1] if named and named[1] in known and named[1] not in seen else ""


def _held(name: str, known: Fields, seen: tuple[str, ...] = ()) -> Iterator[Any]:
    """List what conf/ has for a field, and in place of another field's name what that one has."""
    for value in known[name]:
        if other := _named(value, known, seen):
            yield from _held(other, known, (*seen, name))
        else:
            yield value


def _makes(name: str, known: Fields) -> bool:
    """Whether an object is made of a field."""
    return any(isinstance(held, Mapping) and "_target_" in held for held in _held(name, known))


def _kind_in_conf(value: Any) -> str:
    if isinstance(value, str) and "${" in value:
        return OPEN
    return NUMBER if _reads_as_number(value) else kind(value)


def _reads_as_number(value: Any) -> bool:
    """Whether a text is a number to the config's reader, as 1e-5 is and YAML 1.1 has it not."""
    try:
        return isinstance(value, str) and number(float(value))
    except ValueError:
        return False


def _said(name: str, value: Any, expected: set[str], known: Fields) -> str:
    given = disk.shown(repr(value))
    if expected == {GROUP}:
        held = [one for one in _held(name, known) if isinstance(one, Mapping)]
        inner = sorted({key for one in held for key in one})
        inner = [key for key in inner if not key.startswith("_")]
        holds = f" ({', '.join(inner)})" if inner else ""
        how = f"set one of these, as {name}.{inner[0]}=..." if inner else "leave it"
        return f"{name} holds fields{holds}, got {given}; {how}"
    takes = " or ".join(sorted(expected))
    shown = next((f", as {name}={_written(held)}" for held in known[name] if _shows(held)), "")
    more = ""
    if kind(value) == LIST and value and LIST not in expected:
        more = "; to run several values give them to -m, with commas and no brackets"
    return f"{name} takes {takes}{shown}, got {given}{more}"


def _shows(value: Any) -> bool:
    """Whether a value of conf/ can stand in a line as an example."""
    if "${" in str(value):
        return False
    if isinstance(value, list):
        return bool(value) and not any(isinstance(one, Mapping) for one in value)
    return value not in (None, "", "???")


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_written(one) for one in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
