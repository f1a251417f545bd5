"""TEdBench (Imagic, arXiv 2210.09276): 100 pairs of an image and a target text, with the outputs that Imagic's authors published.

Read as published (the folder `tedbench` of imagic-editing.github.io): `input_list.json`, a list of {"img_name", "target_text"}; `originals/IMG_NAME`;
`imagic/IMG_NAME-TARGET_TEXT.png`, the text without its last full stop and with underscores for spaces. A folder with `edits.jsonl` instead is read as any
other benchmark, the field `imagic` naming the output.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from unitune.benchmarks import manifest
from unitune.benchmarks.manifest import Line
from unitune.types import Edit, Example, Refused

FILE = "input_list.json"


@dataclass(frozen=True)
class TEdBench:
    """TEdBench on disk; `limit` takes the first images only (0 = all)."""

    path: Path
    fit: str = "crop"
    limit: int = 0
    name: str = "tedbench"

    def examples(self, resolution: int) -> list[Example]:
        """Read all examples at `resolution` px."""
        root = Path(self.path)
        return manifest.examples(
            root,
            lines(root),
            resolution=resolution,
            fit=self.fit,
            limit=self.limit,
            identify=by_name,
        )

    def outputs(self, name: str, resolution: int) -> list[Edit]:
        """Read the published outputs of a method: "imagic"."""
        root = Path(self.path)
        return manifest.outputs(
            root,
            lines(root),
            name,
            resolution=resolution,
            fit=self.fit,
            limit=self.limit,
            identify=by_name,
        )


def by_name(image: str) -> str:
    """Name an example after its file and the file's type: TEdBench has a bird.jpeg and a bird.png."""
    return Path(image).name.replace(".", "-")


def lines(root: Path) -> list[Line]:
    """Return the published list, or else edits.jsonl, as a manifest's lines."""
    if not (root / FILE).is_file():
        if not (root / "edits.jsonl").is_file():
            raise Refused(
                f"no TEdBench at {root}: it needs {FILE} beside originals/ and imagic/, as published, or an edits.jsonl"
            )
        return manifest.read(root)
    try:
        pairs = [
            (pair["img_name"], pair["target_text"])
            for pair in json.loads((root / FILE).read_text(encoding="utf-8"))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{root / FILE} is not TEdBench's list of objects with img_name and target_text ({error})"
        ) from None
    return [
        {
            "image": f"originals/{image}",
            "edit": text,
            "outputs": {"imagic": f"imagic/{image}-{_underscored(text)}.png"},
        }
        for image, text in pairs
    ]


def _underscored(text: str) -> str:
    return text.removesuffix(".").replace(" ", "_")
