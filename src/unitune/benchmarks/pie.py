"""PIE-Bench (PnP Inversion, arXiv 2310.01506): 700 images of 512 px with one edit each.

An edit has a prompt, its own caption and the mask of what it may change. Read as published:
`mapping_file.json`, {key: {image_path, original_prompt, editing_prompt, editing_type_id,
blended_word, mask}}, and `annotation_images/IMAGE_PATH`; another method's outputs lie in
`output/METHOD/annotation_images/IMAGE_PATH`. Three rules of its own code are kept:
- square brackets mark the words that an edit changes; they are taken out of both prompts;
- a mask is runs of start and length over the 512 x 512 pixels, row by row, 1 = may change; a run
  over the end stops there;
- the outermost rows and columns are set to 1, whatever the mask says, as annotations err there.
At another resolution a pixel may change where any of its pixels at 512 px may; the published
numbers need 512.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitune import images
from unitune.benchmarks.manifest import by_stem, first, inside, output, some
from unitune.types import Edit, Example, Picture, Refused, Request, whole

FILE, IMAGES, SIDE = "mapping_file.json", "annotation_images", 512
TEXTS = ("image_path", "original_prompt", "editing_prompt")
KINDS = (
    "random",
    "change object",
    "add object",
    "delete object",
    "content",
    "pose",
    "colour",
    "material",
    "background",
    "style",
)  # editing_type_id 0 to 9


@dataclass(frozen=True)
class PIEBench:
    """PIE-Bench on disk; `limit` takes the first images only (0 = all).

    An example's noun is the first of its blended words, where it has any.
    """

    path: Path
    limit: int = 0
    name: str = "pie"

    def examples(self, resolution: int) -> list[Example]:
        """Read all examples at `resolution` px."""
        return [self._example(key, item, resolution) for key, item in self._items()]

    def outputs(self, name: str, resolution: int) -> list[Edit]:
        """Read the outputs of a method, which must be square: a strip of pictures is not cut."""
        made = []
        for key, item in self._items():
            example = self._example(key, item, resolution)
            path = Path("output") / name / IMAGES / item["image_path"]
            made.append(output(example, example.requests[0], self._square(path, resolution)))
        return made

    def _items(self) -> list[tuple[str, dict]]:
        file = Path(self.path) / FILE
        if not file.is_file():
            raise Refused(
                f"no PIE-Bench at {self.path}: it needs {FILE} beside {IMAGES}/, as published"
            )
        try:
            # As pairs, so that a key that is there twice is seen.
            pairs = json.loads(file.read_bytes(), object_pairs_hook=list)  # in any Unicode
            items = [(str(key), dict(item)) for key, item in pairs]
            for key, item in items:
                _check(key, item)
        except (ValueError, TypeError) as error:
            raise Refused(
                f"{file} is not PIE-Bench's mapping of keys to image_path, original_prompt, "
                f"editing_prompt and mask ({error})"
            ) from None
        paths = [by_stem(item["image_path"]) for _, item in items]
        for what, names in (("key", [key for key, _ in items]), ("image", paths)):
            if twice := next((name for name, count in Counter(names).items() if count > 1), None):
                raise Refused(f"{file} has the {what} {twice} twice; list each once")
        return first(some(items, file), self.limit)

    def _example(self, key: str, item: dict, resolution: int) -> Example:
        image = self._square(Path(IMAGES) / item["image_path"], resolution, side=SIDE)
        try:
            mask = F.adaptive_max_pool2d(decode(item["mask"]), resolution)
        except Refused as error:
            raise Refused(f"{Path(self.path) / FILE}, key {key}: {error}") from None
        given = item.get("editing_type_id")
        number = "" if given is None else str(given)
        kind = KINDS[int(number)] if number.isdecimal() and int(number) < len(KINDS) else number
        request = Request(plain(item["editing_prompt"]), kind=kind, mask=mask)
        caption, words = plain(item["original_prompt"]), str(item.get("blended_word") or "").split()
        noun = words[0] if words else ""
        return Example(by_stem(item["image_path"]), image, (request,), caption=caption, noun=noun)

    def _square(self, path: Path, resolution: int, *, side: int = 0) -> Picture:
        loaded = images.load(inside(Path(self.path), str(path)), size=resolution)
        w, h = loaded.source
        if w != h or (side and w != side):
            needed = "that size" if side else "the square edit alone"
            raise Refused(
                f"{path} is {w}x{h} px; PIE-Bench's masks are of {SIDE}x{SIDE} px, so give {needed}"
            )
        return loaded.image


def _check(key: str, item: Mapping[str, object]) -> None:
    """Raise TypeError for an item that lacks a field, or whose texts are none."""
    for name in TEXTS:
        if not isinstance(item.get(name), str):
            raise TypeError(f"key {key}: {name} is {item.get(name)!r}, no text")
    if not plain(str(item["editing_prompt"])):
        raise TypeError(f"key {key}: editing_prompt is empty")
    if "mask" not in item:
        raise TypeError(f"key {key}: there is no mask")


def plain(prompt: str) -> str:
    """Take the square brackets out of a prompt."""
    return prompt.replace("[", "").replace("]", "").strip()


def decode(runs: Sequence[int], *, side: int = SIDE) -> Float[Tensor, "1 1 side side"]:
    """Turn runs of start and length into a mask, 1 = may change, its border set to 1."""
    if not isinstance(runs, list) or len(runs) % 2 or not all(whole(n) and n >= 0 for n in runs):
        raise Refused(
            "a mask must be a list of start, length, start, length ... "
            "of whole numbers of at least 0"
        )
    mask = torch.zeros(side * side)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if start >= side * side:
            raise Refused(
                f"a run begins at pixel {start}, but a mask of {side} px has {side * side}; "
                "this mask is of another size"
            )
        mask[start : start + length] = 1
    mask = mask.reshape(1, 1, side, side)
    mask[..., [0, -1], :] = mask[..., [0, -1]] = 1
    return mask
