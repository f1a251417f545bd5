"""The one format of benchmarks: a folder with images and `edits.jsonl`, one line per edit; lines with the same image are one Example.

A line holds `image` and `edit`, and may hold caption, noun (class of the main object), kind, instruction (the same edit as an instruction), local (less than
half of the picture may change), composed_alike (the objects of the base keep place and outline), target, mask (paths inside the folder; white = may
change), facts (what a judge must find in the result), appear and stay (those of them that the base image lacks, and those that it has), and `outputs`:
pictures that other methods made of this edit, {name: path}.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from unitune import images
from unitune.types import Edit, Example, Refused, Request, whole

log = logging.getLogger(__name__)
LABELS = ("local", "composed_alike")
FACTS = ("facts", "appear", "stay")
TEXTS = ("image", "edit", "caption", "noun", "kind", "instruction", "target", "mask", "imagic")
FIELDS = {*TEXTS, *LABELS, *FACTS, "outputs"}
Line = dict  # of edits.jsonl


@dataclass(frozen=True)
class Folder:
    """A benchmark on disk; `limit` takes the first images only (0 = all)."""

    path: Path
    fit: str = "crop"
    limit: int = 0
    name: str = "folder"

    def examples(self, resolution: int) -> list[Example]:
        """Read all examples at `resolution` px; every path must stay inside the folder."""
        return examples(
            Path(self.path),
            read(Path(self.path)),
            resolution=resolution,
            fit=self.fit,
            limit=self.limit,
        )

    def outputs(self, name: str, resolution: int) -> list[Edit]:
        """Read the pictures that another method made of these edits."""
        return outputs(
            Path(self.path),
            read(Path(self.path)),
            name,
            resolution=resolution,
            fit=self.fit,
            limit=self.limit,
        )


def read(root: Path) -> list[Line]:
    """Read and check the lines of a folder's edits.jsonl."""
    file = root / "edits.jsonl"
    if not file.is_file():
        raise Refused(
            f"no benchmark at {root}: it needs edits.jsonl (one JSON object a line with image and edit)"
        )
    lines = []
    for number, text in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode())
            _ = line["image"], line["edit"]
        except (ValueError, KeyError, TypeError) as error:  # ValueError: no JSON, or no UTF-8
            raise Refused(
                f"{file}, line {number}: expected a JSON object with image and edit ({error})"
            ) from None
        if unknown := set(line) - FIELDS:
            raise Refused(
                f"{file}, line {number}: unknown field {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(FIELDS))}"
            )
        if wrong := _mistyped(line):
            raise Refused(f"{file}, line {number}: {wrong}")
        lines.append(line)
    return lines


def _mistyped(line: Line) -> str:
    """Say what is wrong with a field's type, "" where nothing is; what is left out is not wrong."""
    if wrong := [name for name in TEXTS if not isinstance(line.get(name, ""), str)]:
        return f"{wrong[0]} is {line[wrong[0]]!r}; give text"
    if wrong := [name for name in LABELS if not isinstance(line.get(name), bool | None)]:
        return f"{wrong[0]} is {line[wrong[0]]!r}; give true or false, or leave it out"
    if wrong := [name for name in FACTS if not isinstance(line.get(name, {}), dict)]:
        return f'{wrong[0]} is {line[wrong[0]]!r}; give an object, e.g. {{"nouns": ["cat"], "place": "snow"}}'
    outputs = line.get("outputs", {})
    if not isinstance(outputs, dict) or not all(isinstance(path, str) for path in outputs.values()):
        return f'outputs is {outputs!r}; give paths by method, e.g. {{"imagic": "imagic/a.png"}}'
    return ""


def first(found: Sequence, limit: int) -> list:
    """Take the first `limit` images (0 = all)."""
    if not (whole(limit) and limit >= 0):
        raise Refused(
            f"benchmark.limit must be a whole number of images of at least 0 (0 = all), got {limit!r}"
        )
    return [*found[: limit or None]]


def by_stem(image: str) -> str:
    """Name an example after its image file, without the file's type."""
    return "-".join(PurePosixPath(image).with_suffix("").parts)


def examples(
    root: Path,
    lines: Sequence[Line],
    *,
    resolution: int,
    fit: str = "crop",
    limit: int = 0,
    identify: Callable[[str], str] = by_stem,
) -> list[Example]:
    """Build the examples of a benchmark's lines; two images of one id, and an edit that an image has twice, are refused."""
    grouped: dict[str, list[Line]] = {}
    for line in lines:
        edits = grouped.setdefault(line["image"], [])
        if any(line["edit"] == other["edit"] for other in edits):
            raise Refused(
                f"{root} has the edit {line['edit']!r} of {line['image']} twice; list each edit once"
            )
        edits.append(line)
    known: dict[str, str] = {}
    for image in grouped:
        if (other := known.setdefault(identify(image), image)) != image:
            raise Refused(
                f"{root}: {other} and {image} would both have the id {identify(image)!r}, and their results one file name; rename one"
            )
    return [
        _example(root, image, edits, resolution, fit, identify(image))
        for image, edits in first([*grouped.items()], limit)
    ]


def outputs(
    root: Path,
    lines: Sequence[Line],
    name: str,
    *,
    resolution: int,
    fit: str = "crop",
    limit: int = 0,
    identify: Callable[[str], str] = by_stem,
) -> list[Edit]:
    """Build an Edit of each line's output of that name; what is cropped of the base image is cropped of the output."""
    files = {
        (line["image"], line["edit"]): ({"imagic": line["imagic"]} if "imagic" in line else {})
        | line.get("outputs", {})
        for line in lines
    }
    images_of = {identify(line["image"]): line["image"] for line in lines}
    found = []
    for example in examples(
        root, lines, resolution=resolution, fit=fit, limit=limit, identify=identify
    ):
        for request in example.requests:
            held = files[images_of[example.id], request.prompt]
            if name not in held:
                raise Refused(
                    f"{root} holds no output {name!r} of {request.prompt!r}; it holds: {', '.join(sorted(held)) or 'none'}"
                )
            picture = images.load(inside(root, held[name]), size=resolution, fit=fit).image
            found.append(
                Edit(
                    example,
                    request,
                    seed=0,
                    weight=1.0,
                    start=1.0,
                    prompt=request.prompt,
                    image=picture,
                )
            )
    return found


def _example(
    root: Path, image: str, edits: list[Line], resolution: int, fit: str, name: str
) -> Example:
    loaded = images.load(inside(root, image), size=resolution, fit=fit)
    for note in loaded.notes:
        log.info("%s", note)
    requests = tuple(
        Request(
            prompt=line["edit"],
            kind=line.get("kind", ""),
            instruction=line.get("instruction", ""),
            local=line.get("local"),
            composed_alike=line.get("composed_alike"),
            target=images.load(inside(root, line["target"]), size=resolution, fit=fit).image
            if line.get("target")
            else None,
            mask=_mask(root, line["mask"], resolution, fit, loaded.source)
            if line.get("mask")
            else None,
            facts=line.get("facts", {}),
            appear=line.get("appear", {}),
            stay=line.get("stay", {}),
        )
        for line in edits
    )
    return Example(
        name,
        loaded.image,
        requests,
        caption=edits[0].get("caption", ""),
        noun=edits[0].get("noun", ""),
    )


def _mask(root: Path, path: str, resolution: int, fit: str, size: tuple[int, int]) -> torch.Tensor:
    mask, (w, h) = images.load_mask(inside(root, path), size=resolution, fit=fit)
    if (w, h) != size:
        raise Refused(
            f"the mask {path} is {w}x{h} px, its image {size[0]}x{size[1]} px; give a mask of the image's size"
        )
    return mask


def inside(root: Path, path: str) -> Path:
    """Resolve a path of a manifest; refuse one that leaves the folder, or is not relative to it: results are named after it."""
    try:
        full = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):  # a NUL, half a character, a loop of links
        raise Refused(f"{path!r} is no file's name; give paths relative to {root}") from None
    if PurePosixPath(path).is_absolute() or not full.is_relative_to(root.resolve()):
        raise Refused(
            f"{path!r} leaves the benchmark's folder {root}; paths must be relative to it and stay inside"
        )
    return full


@dataclass(frozen=True)
class Picture:
    """One's own picture with its edit prompts."""

    path: Path
    prompts: tuple[str, ...]
    fit: str = "crop"
    caption: str = ""
    noun: str = ""
    mask: Path | None = None  # white where the picture may change
    name: str = "image"

    def examples(self, resolution: int) -> list[Example]:
        """Read the picture at `resolution` px."""
        if not self.prompts:
            raise Refused(
                "no edit prompt was given; say what the result should show, e.g. edit='a cat in the snow'"
            )
        loaded = images.load(self.path, size=resolution, fit=self.fit)
        for note in loaded.notes:
            log.info("%s", note)
        mask = None if self.mask is None else self._mask(loaded.source, resolution)
        requests = tuple(Request(prompt, mask=mask) for prompt in self.prompts)
        return [
            Example(
                Path(self.path).stem, loaded.image, requests, caption=self.caption, noun=self.noun
            )
        ]

    def _mask(self, size: tuple[int, int], resolution: int) -> torch.Tensor:
        mask, (w, h) = images.load_mask(Path(self.mask or ""), size=resolution, fit=self.fit)
        if (w, h) != size:
            raise Refused(
                f"mask_file={self.mask} is {w}x{h} px, {self.path} is {size[0]}x{size[1]} px; give a mask of the picture's size"
            )
        if (one := mask.unique()).numel() == 1:
            said = (
                "white everywhere, so everything may change: leave it out"
                if one.item()
                else "black everywhere, so nothing may change: paint white what may"
            )
            raise Refused(f"mask_file={self.mask} is {said}")
        return mask
