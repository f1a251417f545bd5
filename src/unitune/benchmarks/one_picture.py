"""One's own picture as a benchmark of one image."""

from dataclasses import dataclass
from pathlib import Path

from unitune import images
from unitune.benchmarks.manifest import by_stem, load
from unitune.types import Example, Mask, Refused, Request


@dataclass(frozen=True)
class OnePicture:
    """One's own picture with its edit prompts; `mask` is white where the picture may change."""

    path: Path
    prompts: tuple[str, ...]
    fit: str = "crop"
    caption: str = ""
    noun: str = ""
    mask: Path | None = None
    name: str = "image"

    def examples(self, resolution: int) -> list[Example]:
        """Read the picture at `resolution` px."""
        if not self.prompts:
            raise Refused(
                "no edit prompt was given; "
                "say what the result should show, e.g. edit='a cat in the snow'"
            )
        path = Path(self.path)
        loaded = load(path, resolution, self.fit)
        mask = None if self.mask is None else self._mask(self.mask, loaded.source, resolution)
        requests = tuple(Request(prompt, mask=mask) for prompt in self.prompts)
        return [
            Example(
                by_stem(path.name), loaded.image, requests, caption=self.caption, noun=self.noun
            )
        ]

    def _mask(self, file: Path, size: tuple[int, int], resolution: int) -> Mask:
        mask, (w, h) = images.load_mask(file, size=resolution, fit=self.fit)
        if (w, h) != size:
            raise Refused(
                f"mask_file={file} is {w}x{h} px, {self.path} is {size[0]}x{size[1]} px; "
                "give a mask of the picture's size"
            )
        if bool((mask == 1).all()):
            said = "white everywhere, so everything may change: leave it out"
        elif bool((mask == 0).all()):
            said = "black everywhere, so nothing may change: paint white what may"
        else:
            return mask
        raise Refused(f"mask_file={file} is {said}")
