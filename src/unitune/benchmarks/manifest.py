"""The one format of benchmarks: a folder with images and `edits.jsonl`, one line per edit.

Lines with the same image are one Example. A line holds `image` and `edit`, and may hold caption,
noun (class of the main object), kind, instruction (the same edit as an instruction), local (less
than half of the picture may change), composed_alike (the objects of the base keep place and
outline), target, mask (paths inside the folder; white = may change), facts (what a judge must find
in the result), appear and stay (those of them that the base image lacks, and those that it has),
and `outputs`: pictures that other methods made of this edit, {name: path}. A field `imagic` is an
older spelling of outputs: {"imagic": path}.
"""

import codecs
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unitune import images
from unitune.images import LoadedImage
from unitune.storage.names import readable
from unitune.types import Edit, Example, Mask, Picture, Refused, Request, whole

log = logging.getLogger(__name__)
Line = dict  # of edits.jsonl
TEXTS = ("image", "edit", "caption", "noun", "kind", "instruction", "target", "mask", "imagic")
LABELS = ("local", "composed_alike")
FACTS = ("facts", "appear", "stay")
IN_REQUEST = ("kind", "instruction", *LABELS, *FACTS)  # as they are
NEEDED = ("image", "edit", *FACTS)  # where they stand they say something; others may be null
FIELDS = {*TEXTS, *LABELS, *FACTS, "outputs"}
EXAMPLE_OF_FACTS = '{"nouns": ["cat"], "place": "snow"}'
# (fields, their type where they are given, what to give instead)
TYPES = (
    (TEXTS, str, "text"),
    (LABELS, bool | None, "true or false, or leave it out"),
    (FACTS, dict, f"an object, e.g. {EXAMPLE_OF_FACTS}"),
)


@dataclass(frozen=True)
class Folder:
    """A benchmark on disk; `limit` takes the first images only (0 = all)."""

    path: Path
    fit: str = "crop"
    limit: int = 0
    name: str = "folder"

    def lines(self) -> list[Line]:
        """Return the edits as lines of edits.jsonl."""
        return read(Path(self.path))

    def identify(self, image: str) -> str:
        """Name an example after its image."""
        return by_stem(image)

    def examples(self, resolution: int) -> list[Example]:
        """Read all examples at `resolution` px; every path must stay inside the folder."""
        return [self._example(image, lines, resolution) for image, lines in self._by_image()]

    def outputs(self, name: str, resolution: int) -> list[Edit]:
        """Read the pictures that another method made of these edits; cropped as the images are."""
        made = []
        for example, (_, lines) in zip(self.examples(resolution), self._by_image(), strict=True):
            for request, line in zip(example.requests, lines, strict=True):
                held = {"imagic": line["imagic"]} if "imagic" in line else {}
                held |= line.get("outputs", {})
                if name not in held:
                    raise Refused(
                        f"{self.path} holds no output {name!r} of {request.prompt!r}; "
                        f"it holds: {', '.join(sorted(held)) or 'none'}"
                    )
                made.append(output(example, request, self._picture(held[name], resolution)))
        return made

    def _by_image(self) -> list[tuple[str, list[Line]]]:
        """Group edits by image; two images of one id, and one edit twice, are refused."""
        grouped: dict[str, list[Line]] = {}
        for line in self.lines():
            edits = grouped.setdefault(line["image"], [])
            if any(line["edit"] == other["edit"] for other in edits):
                raise Refused(
                    f"{self.path} has the edit {line['edit']!r} of {line['image']} twice; "
                    "list each edit once"
                )
            edits.append(line)
        known: dict[str, str] = {}
        for image in grouped:
            name = self.identify(image)
            other = known.setdefault(name, image)
            if other != image:
                raise Refused(
                    f"{self.path}: {other} and {image} would both have the id {name!r}, "
                    "which tells their results apart; rename one"
                )
        return first([*grouped.items()], self.limit)

    def _example(self, image: str, lines: Sequence[Line], resolution: int) -> Example:
        loaded = load(inside(Path(self.path), image), resolution, self.fit)
        requests = tuple(self._request(line, resolution, loaded.source) for line in lines)
        caption, noun = (lines[0].get(name, "") for name in ("caption", "noun"))
        return Example(self.identify(image), loaded.image, requests, caption=caption, noun=noun)

    def _request(self, line: Line, resolution: int, size: tuple[int, int]) -> Request:
        target, mask = line.get("target"), line.get("mask")
        given = {name: line[name] for name in IN_REQUEST if name in line}
        return Request(
            line["edit"],
            target=self._picture(target, resolution) if target else None,
            mask=self._mask(mask, resolution, size) if mask else None,
            **given,
        )

    def _picture(self, path: str, resolution: int) -> Picture:
        return images.load(inside(Path(self.path), path), size=resolution, fit=self.fit).image

    def _mask(self, path: str, resolution: int, size: tuple[int, int]) -> Mask:
        file = inside(Path(self.path), path)
        mask, (w, h) = images.load_mask(file, size=resolution, fit=self.fit)
        if (w, h) != size:
            raise Refused(
                f"the mask {path} is {w}x{h} px, its image {size[0]}x{size[1]} px; "
                "give a mask of the image's size"
            )
        return mask


def read(root: Path) -> list[Line]:
    """Read and check the lines of a folder's edits.jsonl."""
    file = root / "edits.jsonl"
    if not file.is_file():
        raise Refused(
            f"no benchmark at {root}: "
            "it needs edits.jsonl (one JSON object a line with image and edit)"
        )
    lines = []
    for number, text in enumerate(_utf8(file.read_bytes()).split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode())
            _ = line["image"], line["edit"]
        except (ValueError, KeyError, TypeError) as error:  # ValueError: no JSON, or no UTF-8
            raise Refused(
                f"{file}, line {number}: expected a JSON object with image and edit ({error})"
            ) from None
        line = {name: line[name] for name in line if line[name] is not None or name in NEEDED}
        if wrong := _wrong(line):
            raise Refused(f"{file}, line {number}: {wrong}")
        lines.append(line)
    return some(lines, file)


def some(edits: list, file: Path) -> list:
    """Refuse a file without any edit."""
    if not edits:
        raise Refused(f"{file} holds no edit; give one at least, or name another folder")
    return edits


def _utf8(data: bytes) -> bytes:
    """Take away the mark that editors write before a text, and read UTF-16 by it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _wrong(line: Line) -> str:
    """Say what is wrong with a line's fields, "" where nothing is."""
    if unknown := set(line) - FIELDS:
        return f"unknown field {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(FIELDS))}"
    for names, kind, instead in TYPES:
        for name in names:
            if name in line and not isinstance(line[name], kind):
                return f"{name} is {line[name]!r}; give {instead}"
    if not line["edit"].strip():
        return "edit is empty; describe the desired result"
    outputs = line.get("outputs", {})
    if not isinstance(outputs, dict) or not all(isinstance(path, str) for path in outputs.values()):
        return f'outputs is {outputs!r}; give paths by method, e.g. {{"imagic": "imagic/a.png"}}'
    return ""


def first(found: Sequence, limit: int) -> list:
    """Take the first `limit` images (0 = all)."""
    if not (whole(limit) and limit >= 0):
        raise Refused(
            "benchmark.limit must be a whole number of images of at least 0 (0 = all), "
            f"got {limit!r}"
        )
    return [*found[: limit or None]]


def by_stem(image: str) -> str:
    """Name an example after its image file, without the file's type."""
    path = PurePosixPath(image)
    return readable("-".join([*path.parent.parts, path.stem]))


def output(example: Example, request: Request, image: Picture) -> Edit:
    """Make an Edit of another method's picture, whose dials are not known."""
    return Edit(example, request, seed=0, weight=1.0, start=1.0, prompt=request.prompt, image=image)


def load(path: Path, resolution: int, fit: str) -> LoadedImage:
    """Read a base image; what was done to its pixels is logged."""
    loaded = images.load(path, size=resolution, fit=fit)
    for note in loaded.notes:
        log.info("%s", note)
    return loaded


def inside(root: Path, path: str) -> Path:
    """Resolve a path of a benchmark; refuse one that leaves the folder or is not relative to it."""
    try:
        full = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):  # a NUL, half a character, a loop of links
        raise Refused(f"{path!r} is no file's name; give paths relative to {root}") from None
    if PurePosixPath(path).is_absolute() or not full.is_relative_to(root.resolve()):
        raise Refused(
            f"{path!r} leaves the benchmark's folder {root}; "
            "paths must be relative to it and stay inside"
        )
    return full
