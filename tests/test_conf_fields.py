"""Every field of conf/ is explained by a comment."""

import itertools
import re

import pytest
from test_conf import CONF

EXEMPT = {"_target_", "name", "defaults"}
CODE = re.compile(r"^(?P<code>(?:[^#\"']|\"[^\"]*\"|'[^']*')*)(?P<comment>#.*)?$")


def fields(text: str) -> list[tuple[str, str, str]]:
    """(key, its comment, the comment line above it) of every field that has a value.

    What stands under `hydra:` belongs to Hydra.
    """
    found, above = [], ""
    for line in text.partition("\nhydra:")[0].splitlines():
        match = CODE.match(line)
        assert match is not None, line
        code, comment = match["code"].rstrip(), match["comment"] or ""
        keys = (
            []
            if code.lstrip().startswith("- ")
            else re.findall(r"(\w+):(?=\s|$)", re.sub(r"\"[^\"]*\"|'[^']*'", "", code))
        )
        found += [(key, comment, above) for key in keys]
        above = comment if not code else ""
    return found


@pytest.mark.parametrize(
    "file",
    [*sorted(CONF.glob("*.yaml")), *sorted(CONF.glob("*/*.yaml"))],
    ids=lambda file: str(file.relative_to(CONF)),
)
def test_every_field_is_explained(file):
    """On its line, above it, in the file's header, or where another file of the group has it."""
    text = file.read_text()
    header = " ".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    assert header.replace("# @package _global_", "").strip("# "), (
        "a file begins with a comment that says what it is"
    )
    known = {
        key
        for other in file.parent.glob("*.yaml")
        for key, comment, above in fields(other.read_text())
        if comment or above
    }
    known |= {
        key
        for key, comment, above in fields((CONF / "config.yaml").read_text())
        if comment or above
    }
    bare = {
        key
        for key, comment, above in fields(text)
        if not (comment or above or key in EXEMPT or key in known)
    }
    assert not {key for key in bare if not re.search(rf"\b{key}\b", header, re.IGNORECASE)}


def test_fields_are_found():
    text = 'a: 1  # why\nb:  # B\n  c: "#x: y"\n# above\nd: {e: 1, f: [2]}\n'
    text += "- override /g: h\nhydra:\n  i: 1\n"
    above = "# above"
    assert fields(text) == [
        ("a", "# why", ""),
        ("b", "# B", ""),
        ("c", "", ""),
        ("d", "", above),
        ("e", "", above),
        ("f", "", above),
    ]
