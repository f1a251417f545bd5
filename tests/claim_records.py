"""Records that tests of claims ask about."""

import sys
from pathlib import Path

from unitune.storage import records
from unitune.storage.records import Record

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments"
sys.path[:0] = [str(HERE), str(HERE / "measured")]

from claims.labels import SCORES  # noqa: E402

NAMES = [name for name in SCORES if name != "progress"]
SCORED = {"error_inside": 0.1, "base_error_inside": 0.2} | dict.fromkeys(NAMES, 0.5)
GLOBAL = ("restyle", "background", "time")
KINDS = (("replace", True), ("add", False), ("restyle", True))


def record(
    run: str = "cost/snapshot=64",
    example: str = "image-0",
    kind: str = "add",
    alike: bool | None = False,
    method: str = "unitune",
    **more,
) -> Record:
    usual = {
        "sampler": "" if "row" in more else "unitune",
        "prompt": f"{kind} {example}",
        "seed": 0,
        "weight": 6.0,
        "start": 0.9,
        "scores": SCORED,
    }
    return Record(
        run=run, method=method, model="pocket", example=example, kind=kind, text="", steps=64,
        local=kind not in GLOBAL, composed_alike=alike, image="a.png", cost={"seconds": 1.0},
        environment={}, **(usual | more),
    )  # fmt: skip


def of_images(cell: str, images: int = 24, **scores: float) -> list[Record]:
    """A cell's edits whose scores differ a little from image to image."""
    return [
        record(
            f"x/a={cell}",
            f"image-{k}",
            scores={"both": 0.5} | {name: value + 0.01 * (k % 3) for name, value in scores.items()},
        )
        for k in range(images)
    ]


def copies(images: int = 24, **scores: float | None) -> list[Record]:
    run, scored = "x/reference=copy", {"both": 0.0, **scores}
    return [record(run, f"image-{k}", method="", row="copy", scores=scored) for k in range(images)]


def of_image(image: int) -> list[Record]:
    """What a finished cell holds of an image: its edits and their exact targets."""
    made = [record("cell", f"image-{image}", kind, alike) for kind, alike in KINDS]
    return made + [
        record("cell", f"image-{image}", kind, alike, "", row="target") for kind, alike in KINDS
    ]


def write(folder: Path, made: list[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in made:
        records.append(folder / records.FILE, line)
