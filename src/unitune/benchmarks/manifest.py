"""The one format of benchmarks: a folder with images and `edits.jsonl`, one line per edit; lines with the same image are one Example.

A line holds `image` and `edit`, and may hold caption, kind, aligned, target, mask (paths inside the folder; white = may change), facts,
and which of them the edit must make appear and which must stay.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from unitune import images
from unitune.types import Example, Refused, Request

log = logging.getLogger(__name__)
FIELDS = {"image", "edit", "caption", "kind", "aligned", "target", "mask", "facts", "appear", "stay", "imagic"}


@dataclass(frozen=True)
class Folder:
    """A benchmark on disk; `limit` takes the first images only (0 = all)."""

    path: Path
    fit: str = "crop"
    limit: int = 0
    name: str = "folder"

    def examples(self, resolution: int) -> list[Example]:
        """Read all examples at `resolution` px; every path must stay inside the folder."""
        root = Path(self.path)
        file = root / "edits.jsonl"
        if not file.is_file():
            raise Refused(f"no benchmark at {root}: it needs edits.jsonl (one JSON object a line with image and edit)")
        lines: dict[str, list[dict]] = {}
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                image, _ = line["image"], line["edit"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise Refused(f"{file}, line {number}: expected a JSON object with image and edit ({error})") from None
            if unknown := set(line) - FIELDS:
                raise Refused(f"{file}, line {number}: unknown field {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(FIELDS))}")
            lines.setdefault(image, []).append(line)
        chosen = list(lines.items())[: self.limit or None]
        return [self._example(root, image, edits, resolution) for image, edits in chosen]

    def _example(self, root: Path, image: str, edits: list[dict], resolution: int) -> Example:
        loaded = images.load(inside(root, image), size=resolution, fit=self.fit)
        for note in loaded.notes:
            log.info("%s", note)
        requests = tuple(
            Request(
                prompt=line["edit"],
                kind=line.get("kind", ""),
                aligned=line.get("aligned"),
                target=images.load(inside(root, line["target"]), size=resolution, fit=self.fit).image if line.get("target") else None,
                mask=self._mask(root, line["mask"], resolution) if line.get("mask") else None,
                facts=line.get("facts", {}),
            )
            for line in edits
        )
        return Example("-".join(Path(image).with_suffix("").parts), loaded.image, requests, caption=edits[0].get("caption", ""))

    def _mask(self, root: Path, path: str, resolution: int) -> torch.Tensor:
        grey = images.load(inside(root, path), size=resolution, fit=self.fit).image.mean(dim=1, keepdim=True)
        return (grey > -1).float()


def inside(root: Path, path: str) -> Path:
    """Resolve a path of a manifest; refuse one that leaves the folder."""
    full = (root / path).resolve()
    if "\0" in path or not full.is_relative_to(root.resolve()):
        raise Refused(f"{path!r} leaves the benchmark's folder {root}; paths must stay inside it")
    return full


@dataclass(frozen=True)
class Picture:
    """One's own picture with its edit prompts."""

    path: Path
    prompts: tuple[str, ...]
    fit: str = "crop"
    caption: str = ""
    noun: str = ""
    name: str = "image"

    def examples(self, resolution: int) -> list[Example]:
        """Read the picture at `resolution` px."""
        if not self.prompts:
            raise Refused("no edit prompt was given; say what the result should show, e.g. edit='a cat in the snow'")
        loaded = images.load(self.path, size=resolution, fit=self.fit)
        for note in loaded.notes:
            log.info("%s", note)
        return [Example(Path(self.path).stem, loaded.image, tuple(Request(p) for p in self.prompts), caption=self.caption, noun=self.noun)]
