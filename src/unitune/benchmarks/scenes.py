"""The benchmark `scenes`: edits of held-out scenes drawn by a seed, as a folder.

It holds base images, exact targets, exact masks and facts for a judge. The same seed and size give
the same bytes (with the same versions of Pillow and numpy); another seed makes a private copy.
"""

import filecmp
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from unitune import images
from unitune.benchmarks.manifest import Folder
from unitune.metrics.judge import SIZE, found, read_facts, reduced, shared_judge
from unitune.models.pocket import FOLDER as POCKET
from unitune.scenes import Scene, caption, render, sprites
from unitune.scenes.edits import SceneEdit
from unitune.scenes.scene import NOUN_LIST, PLACE_LIST, STYLE_LIST, held_out, world_digest
from unitune.scenes.suite import generate
from unitune.types import Example, Refused, whole

log = logging.getLogger(__name__)
JUDGE = POCKET / "judge"

README = """# Scenes: edits whose right answers are known

{edits} edit prompts for {images} base images: ten kinds of edit (replace, add, remove, recolour, \
restyle, background, time, move, count, two of these at
once), half of them composed as the base image is. Seed {seed}, {per_type} of each kind; of \
{drawn} drawn edits {dropped} were dropped and drawn anew,
because the embedded judge did not find all facts in their exact targets. Made by

    python run.py --config-name scenes seed={seed} per_type={per_type} folder=FOLDER

which gives the same bytes again, and fresh ones for another seed. `edits.jsonl` has a line for \
each edit: base image, its caption and the noun of its
first object, edit prompt (it describes the result), the same as an instruction, kind, local or \
not (less than half of the picture may change), composed
alike or not (every object of the base has its place and outline in the result), exact target, \
exact mask (white may change; outside it base and target are
the same pixels), and the facts that a judge must find: those that must appear, those that must \
stay, and both together. All scenes, before and after, are
compositions of noun, place and style that pretraining never sees; `held_out.txt` lists them all. \
`benchmark.json` holds the sha256 of every file.

Licence: the objects are glyphs of Noto Color Emoji (SIL Open Font License 1.1, text in the \
package's `assets/sprites/OFL.txt`), and so these pictures are
under that licence too; the rest is under the Apache License 2.0.
"""


def run(*, folder: Path, seed: int, per_type: int) -> None:
    """Draw the benchmark of a seed, `per_type` edits of each kind, and write it as a new folder."""
    edits, about = draw(seed=seed, per_type=per_type)
    write(folder, edits, about=about)


def draw(*, seed: int, per_type: int) -> tuple[list[SceneEdit], dict[str, object]]:
    """Draw edits in whose exact targets the judge finds all facts; also what `about` says of them.

    An edit that the judge fails is drawn anew, as no method could succeed on it; `drawn` and
    `dropped` say how many there were.
    """
    for name, value, least in (("seed", seed, 0), ("per_type", per_type, 1)):
        if not (whole(value) and value >= least):
            raise Refused(f"{name} must be a whole number of at least {least}, got {value!r}")
    judge = shared_judge(JUDGE)
    legible: list[bool] = []  # of each edit that was drawn

    def accept(edit: SceneEdit) -> bool:
        (seen,) = read_facts(judge, reduced(images.from_uint8(edit.target()), SIZE))
        legible.append(found(edit.facts, seen))
        return legible[-1]

    edits = generate(seed=seed, per_type=per_type, accept=accept)
    counts = {"drawn": len(legible), "dropped": legible.count(False)}
    return edits, {"seed": seed, "per_type": per_type, **counts}


def write(folder: Path, edits: Sequence[SceneEdit], *, about: Mapping[str, object]) -> None:
    """Write edits as a folder, whole or not at all; `about` stands in its `benchmark.json`.

    A folder that holds the same already is left as it is; Refused where it holds something else or
    cannot be written.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"
        ) as work:
            made = Path(work) / folder.name
            made.mkdir()
            _fill(made, edits, about)
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                if other := _difference(made, folder):
                    raise Refused(
                        f"{folder} exists and holds something else ({other}); "
                        "name another folder, or remove it first"
                    )
            else:
                os.replace(made, folder)
    except OSError as error:
        raise Refused(
            f"{folder} cannot be written ({error.strerror}); "
            "choose a folder that can, on a disk with room"
        ) from error
    scenes = len({edit.before for edit in edits})
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    log.info("%d edits of %d scenes in %s, %.1f MB", len(edits), scenes, folder, size)


def _fill(folder: Path, edits: Sequence[SceneEdit], about: Mapping[str, object]) -> None:
    """Write all files; edits of an equal scene share its base image."""
    names: dict[Scene, str] = {}
    lines = []
    digits = max(3, len(str(len(edits) - 1)))
    for number, edit in enumerate(edits):
        before = edit.before
        nouns = [thing.noun for thing in before.objects]
        if before not in names:
            parts = [*dict.fromkeys(nouns), before.place, str(len(names))]
            names[before] = "-".join(parts) + ".png"
            images.save_png(images.from_uint8(render(before)[0]), folder / names[before])
        target, mask = f"target-{number:0{digits}}.png", f"mask-{number:0{digits}}.png"
        images.save_png(images.from_uint8(edit.target()), folder / target)
        images.save_mask(edit.mask(), folder / mask)
        line = {
            "image": names[before],
            "edit": edit.prompt,
            "caption": caption(before),
            "noun": nouns[0] if nouns else "",
            "kind": edit.kind,
            "instruction": edit.instruction,
            "local": edit.local,
            "composed_alike": edit.composed_alike,
            "target": target,
            "mask": mask,
            "facts": edit.facts,
            "appear": edit.appear,
            "stay": edit.stay,
        }
        lines.append(json.dumps(line) + "\n")
    counts = {"edits": len(edits), "images": len(names)}
    unknown = {"seed": "SEED", "per_type": "N", "drawn": "the", "dropped": "some"}
    _text(folder / "edits.jsonl", "".join(lines))
    _text(folder / "held_out.txt", _held_out_list())
    _text(folder / "README.md", README.format(**{**unknown, **about, **counts}))
    files = sorted(folder.iterdir())
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    described = {**about, **counts, "world": _world(), "files": digests}
    _text(folder / "benchmark.json", json.dumps(described, indent=1) + "\n")


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def _difference(new: Path, old: Path) -> str:
    """Name a file that two folders do not share; "" where they are equal."""
    names, others = (
        {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        for folder in (new, old)
    )
    if names != others:
        return min(names ^ others)
    _, different, unread = filecmp.cmpfiles(new, old, names, shallow=False)
    return min([*different, *unread], default="")


def _held_out_list() -> str:
    """List the compositions that pretraining never sees, one a line after a header."""
    compositions = product(NOUN_LIST, PLACE_LIST, STYLE_LIST)
    lines = [" ".join(words) + "\n" for words in compositions if held_out(*words)]
    head = f"# {len(lines)} compositions that pretraining never sees: noun place style\n"
    return head + "".join(lines)


def _world() -> str:
    """Name the version of the world: a digest of its words and shares and of its sprites."""
    digest = hashlib.sha256(world_digest().encode())
    for noun in NOUN_LIST:
        digest.update((sprites.BANK / f"{noun}.png").read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DrawnScenes:
    """Edits of scenes that are drawn by a seed when they are asked for.

    So dials are chosen on other images than those that are reported: `apart_from` is the folder of
    a benchmark of scenes, and a draw that shares an image with it is refused. `limit` takes the
    first images only (0 = all).
    """

    seed: int
    apart_from: Path
    per_type: int = 2
    limit: int = 0
    name: str = "development"

    def examples(self, resolution: int) -> list[Example]:
        """Draw the scenes and read them at `resolution` px."""
        known = self._known()
        edits, about = draw(seed=self.seed, per_type=self.per_type)
        with tempfile.TemporaryDirectory() as folder:
            drawn = Folder(Path(folder) / "scenes", limit=self.limit)
            write(drawn.path, edits, about=about)
            for file in (line[name] for line in drawn.lines() for name in ("image", "target")):
                if hashlib.sha256((drawn.path / file).read_bytes()).hexdigest() in known:
                    raise Refused(
                        f"seed {self.seed} draws {file}, which is in {self.apart_from} too; "
                        "dials are chosen on other images: take another seed"
                    )
            return drawn.examples(resolution)

    def _known(self) -> set[str]:
        """Return the sha256 of every file of the benchmark that the draw is apart from."""
        file = Path(self.apart_from) / "benchmark.json"
        try:
            return set(json.loads(file.read_text(encoding="utf-8"))["files"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise Refused(
                f"benchmark.apart_from={self.apart_from} holds no benchmark of scenes "
                "(its benchmark.json); give the folder of one"
            ) from None
