"""TEdBench (Imagic, arXiv 2210.09276): 100 pairs of an image and a target text, with outputs.

Read as published (the folder `tedbench` of imagic-editing.github.io): `input_list.json`, a list of
{"img_name", "target_text"}; `originals/IMG_NAME`; what Imagic's authors published,
`imagic/IMG_NAME-TARGET_TEXT.png`, the text without its last full stop and with underscores for
spaces. A folder with `edits.jsonl` instead is read as any other benchmark, the field `imagic`
naming the output.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unitune.benchmarks import manifest
from unitune.benchmarks.manifest import Folder, Line
from unitune.storage.names import readable
from unitune.types import Refused

FILE = "input_list.json"


@dataclass(frozen=True)
class TEdBench(Folder):
    """TEdBench on disk, with the outputs "imagic"."""

    name: str = "tedbench"

    def identify(self, image: str) -> str:
        """Name an example after its file and the file's type: there are bird.jpeg and bird.png."""
        return readable(Path(image).name.replace(".", "-"))

    def lines(self) -> list[Line]:
        """Return the published list, or else edits.jsonl."""
        root = Path(self.path)
        if not (root / FILE).is_file():
            if (root / "edits.jsonl").is_file():
                return manifest.read(root)
            raise Refused(
                f"no TEdBench at {root}: it needs {FILE} beside originals/ and imagic/, "
                "as published, or an edits.jsonl"
            )
        try:
            pairs = json.loads((root / FILE).read_bytes())  # also with a mark, or as UTF-16
            if not isinstance(pairs, list):
                raise TypeError(f"it holds {type(pairs).__name__}")
            lines = [_line(pair, at) for at, pair in enumerate(pairs, start=1)]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{root / FILE} is not TEdBench's list of objects with img_name and target_text "
                f"({error})"
            ) from None
        return manifest.some(lines, root / FILE)


def _line(pair: Mapping[str, object], at: int) -> Line:
    image, text = pair["img_name"], pair["target_text"]
    if not isinstance(image, str) or not isinstance(text, str):
        name = "target_text" if isinstance(image, str) else "img_name"
        raise TypeError(f"pair {at}: {name} is {pair[name]!r}, no text")
    if not text.strip():
        raise TypeError(f"pair {at}: target_text is empty")
    underscored = text.removesuffix(".").replace(" ", "_")
    return {
        "image": f"originals/{image}",
        "edit": text,
        "outputs": {"imagic": f"imagic/{image}-{underscored}.png"},
    }
