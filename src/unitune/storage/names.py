"""The one maker of file and folder names: short and plain, whatever the text that asks for one.

Images, settings and methods may have names of any length and script; the text itself stands in the
records.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

LONGEST = 100  # letters; with what is put behind a name it stays below a file system's 255 bytes
KEPT = 60  # letters of a text that is no name
UNUSUAL = re.compile(r"[^A-Za-z0-9._,=+-]+")
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{k}" for port in ("com", "lpt") for k in range(10)),
}


def readable(text: str) -> str:
    """Return a text that can be written as UTF-8, with ? for each byte of a name that is none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def file_name(text: str, *, taken: Collection[str] = ()) -> str:
    """Return a text that is a plain name as it is, else a short name with a digest of the text.

    Plain are ASCII letters, digits and `._,=+-`, with no dot or dash at an end, no name that
    Windows keeps for a device, and none that begins as a `taken` one does.
    """
    short = _short(text)
    device = short.partition(".")[0].casefold() in DEVICES
    reserved = not short or device or short.casefold().startswith(tuple(taken))
    if short == text and len(text) <= LONGEST and not reserved:
        return text
    return _with_digest(f"name-{short}" if reserved else short, text)


def file_names(
    texts: Collection[str], *, endings: Collection[str] = ("",), taken: Collection[str] = ()
) -> dict[str, str]:
    """Name texts that are in use together: no two are alike, also where case does not count.

    Nor are they with any of the `endings` that are put behind them.
    """
    names = {text: file_name(text, taken=taken) for text in dict.fromkeys(texts)}
    digested: set[str] = set()
    while True:  # a name that is made may be that of another text
        used = Counter(f"{name}{end}".casefold() for name in names.values() for end in endings)
        alike = {
            text
            for text, name in names.items()
            if any(used[f"{name}{end}".casefold()] > 1 for end in endings)
        }
        if alike <= digested:
            return names
        names |= {text: _with_digest(names[text], text) for text in alike - digested}
        digested |= alike


def _short(text: str) -> str:
    """Return what is left of a text without accents and unusual letters."""
    letters = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return UNUSUAL.sub("-", bare).strip("-.")


def _with_digest(name: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{name[:KEPT].rstrip('-.')}-{digest}"
