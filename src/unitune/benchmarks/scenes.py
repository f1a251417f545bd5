"""The benchmark `scenes`: edits of held-out scenes drawn by a seed, as a folder with base images, exact targets, exact masks and facts for a judge.

The same seed and size give the same bytes (with the same versions of Pillow and numpy); another seed makes a fresh private copy.
"""

import filecmp
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitune import images
from unitune.benchmarks import manifest
from unitune.metrics.judge import SIZE, Judge, found, read_facts, reduced, shared_judge
from unitune.models.pocket import FOLDER as POCKET
from unitune.scenes import Scene, caption, render, sprites
from unitune.scenes.edits import SceneEdit
from unitune.scenes.scene import NOUN_LIST, PLACE_LIST, STYLE_LIST, held_out, world_digest
from unitune.scenes.suite import generate
from unitune.types import Example, Refused

log = logging.getLogger(__name__)
JUDGE = POCKET / "judge"

README = """# Scenes: edits whose right answers are known

{edits} edit prompts for {images} base images: ten kinds of edit (replace, add, remove, recolour, restyle, background, time, move, count, two of these at
once), half of them composed as the base image is. Seed {seed}, {per_type} of each kind; of {drawn} drawn edits {dropped} were dropped and drawn anew,
because the embedded judge did not find all facts in their exact targets. Made by

    python run.py --config-name scenes seed={seed} per_type={per_type} folder=FOLDER

which gives the same bytes again, and fresh ones for another seed. `edits.jsonl` has a line for each edit: base image, its caption and the noun of its
first object, edit prompt (it describes the result), the same as an instruction, kind, local or not (less than half of the picture may change), composed
alike or not (every object of the base has its place and outline in the result), exact target, exact mask (white may change; outside it base and target are
the same pixels), and the facts that a judge must find: those that must appear, those that must stay, and both together. All scenes, before and after, are
compositions of noun, place and style that pretraining never sees; `held_out.txt` lists them all. `benchmark.json` holds the sha256 of every file.

Licence: the objects are glyphs of Noto Color Emoji (SIL Open Font License 1.1, text in the package's `assets/sprites/OFL.txt`), and so these pictures are
under that licence too; the rest is under the Apache License 2.0.
"""


def run(*, folder: Path, seed: int, per_type: int) -> None:
    """Generate the benchmark of a seed with `per_type` edits of each kind and write it into a new folder."""
    _check_numbers(seed=seed, per_type=per_type)
    edits, about = draw(seed=seed, per_type=per_type)
    write(folder, edits, about=about)


@dataclass
class Legible:
    """Accepts an edit where the judge finds all facts of its exact target; counts those that it was asked about and turned down."""

    judge: Judge
    asked: int = 0
    dropped: int = 0

    def __call__(self, edit: SceneEdit) -> bool:
        """Read the exact target."""
        (seen,) = read_facts(self.judge, reduced(images.from_uint8(edit.target()), SIZE))
        good = found(edit.facts, seen)
        self.asked, self.dropped = self.asked + 1, self.dropped + (not good)
        return good


def draw(
    *, seed: int, per_type: int, judge: Path = JUDGE
) -> tuple[list[SceneEdit], dict[str, object]]:
    """Draw edits whose exact targets the judge reads right; also return what `benchmark.json` says of the draw.

    An edit that the judge fails is drawn anew, as no method could succeed on it; `drawn` and `dropped` say how many there were.
    """
    accept = Legible(shared_judge(judge))
    edits = generate(seed=seed, per_type=per_type, accept=accept)
    return edits, {
        "seed": seed,
        "per_type": per_type,
        "drawn": accept.asked,
        "dropped": accept.dropped,
    }


def _check_numbers(*, seed: int, per_type: int) -> None:
    for name, value, least in (("seed", seed, 0), ("per_type", per_type, 1)):
        if not isinstance(value, int) or value < least:
            raise Refused(f"{name} must be a whole number of at least {least}, got {value!r}")


def write(folder: Path, edits: Sequence[SceneEdit], *, about: Mapping[str, object]) -> None:
    """Write edits as a folder, whole or not at all; edits of an equal scene share its base image. `about` says in `benchmark.json` where they come from.

    A folder that holds the same already is left as it is; Refused where it holds something else or cannot be written.
    """
    folder = Path(folder)
    work = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        work.mkdir(parents=True)
        _fill(work, edits, about)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if other := _difference(work, folder):
                raise Refused(
                    f"{folder} exists and holds something else ({other}); name another folder, or remove it first"
                )
        else:
            os.replace(work, folder)
    except OSError as error:
        raise Refused(
            f"{folder} cannot be written ({error.strerror}); choose a folder that can, on a disk with room"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    log.info(
        "%d edits of %d scenes in %s, %.1f MB",
        len(edits),
        len({edit.before for edit in edits}),
        folder,
        size / 1e6,
    )


def _fill(folder: Path, edits: Sequence[SceneEdit], about: Mapping[str, object]) -> None:
    names: dict[Scene, str] = {}
    lines = []
    digits = max(3, len(str(len(edits) - 1)))
    for number, edit in enumerate(edits):
        before = edit.before
        if before not in names:
            names[before] = (
                "-".join(
                    [*dict.fromkeys(o.noun for o in before.objects), before.place, str(len(names))]
                )
                + ".png"
            )
            images.save_png(images.from_uint8(render(before)[0]), folder / names[before])
        target, mask = f"target-{number:0{digits}}.png", f"mask-{number:0{digits}}.png"
        images.save_png(images.from_uint8(edit.target()), folder / target)
        images.save_mask(edit.mask(), folder / mask)
        lines.append({
            "image": names[before], "edit": edit.prompt, "caption": caption(before), "noun": next((o.noun for o in before.objects), ""),
            "kind": edit.kind, "instruction": edit.instruction, "local": edit.local, "composed_alike": edit.composed_alike,
            "target": target, "mask": mask, "facts": edit.facts, "appear": edit.appear, "stay": edit.stay,
        })  # fmt: skip
    counts = {"edits": len(edits), "images": len(names)}
    _text(folder / "edits.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    _text(folder / "held_out.txt", held_out_list())
    _text(
        folder / "README.md",
        README.format(
            **{
                "seed": "SEED",
                "per_type": "N",
                "drawn": "the",
                "dropped": "some",
                **about,
                **counts,
            }
        ),
    )
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }
    _text(
        folder / "benchmark.json",
        json.dumps({**about, **counts, "world": world(), "files": files}, indent=1) + "\n",
    )


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def _difference(new: Path, old: Path) -> str:
    """Name a file that two folders do not share; "" where they are equal."""
    names = [
        sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for folder in (new, old)
    ]
    if names[0] != names[1]:
        return min(set(names[0]) ^ set(names[1]))
    _, different, unread = filecmp.cmpfiles(new, old, names[0], shallow=False)
    return next(iter(sorted([*different, *unread])), "")


def held_out_list() -> str:
    """List the compositions that pretraining never sees, one a line after a header."""
    lines = [
        f"{n} {p} {s}"
        for n in NOUN_LIST
        for p in PLACE_LIST
        for s in STYLE_LIST
        if held_out(n, p, s)
    ]
    return f"# {len(lines)} compositions that pretraining never sees: noun place style\n" + "".join(
        f"{line}\n" for line in lines
    )


def world() -> str:
    """Name the version of the world: a digest of its words and shares and of its sprites."""
    digest = hashlib.sha256(world_digest().encode())
    for noun in NOUN_LIST:
        digest.update((sprites.BANK / f"{noun}.png").read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DrawnScenes:
    """Edits of scenes that are drawn by a seed when they are asked for, so that dials are chosen on other images than those that are reported.

    `apart_from` is the folder of a benchmark of scenes; a draw that shares an image with it is refused. `limit` takes the first images only (0 = all).
    """

    seed: int
    apart_from: Path
    per_type: int = 2
    limit: int = 0
    name: str = "development"

    def examples(self, resolution: int) -> list[Example]:
        """Draw the scenes and read them at `resolution` px."""
        _check_numbers(seed=self.seed, per_type=self.per_type)
        known = self._known()
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "scenes"
            edits, about = draw(seed=self.seed, per_type=self.per_type)
            write(root, edits, about=about)
            lines = manifest.read(root)
            for line in lines:
                for file in (line["image"], line["target"]):
                    if hashlib.sha256((root / file).read_bytes()).hexdigest() in known:
                        raise Refused(
                            f"seed {self.seed} draws {file}, which is in {self.apart_from} too; dials are chosen on other images: take another seed"
                        )
            return manifest.examples(root, lines, resolution=resolution, limit=self.limit)

    def _known(self) -> set[str]:
        """Return the sha256 of every file of the benchmark that the draw is apart from."""
        try:
            return set(
                json.loads((Path(self.apart_from) / "benchmark.json").read_text(encoding="utf-8"))[
                    "files"
                ].values()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise Refused(
                f"benchmark.apart_from={self.apart_from} holds no benchmark of scenes (its benchmark.json); give the folder of one"
            ) from None
