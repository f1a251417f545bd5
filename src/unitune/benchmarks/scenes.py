"""Writes scenes edits as a benchmark folder: base images, exact targets, exact masks, facts for the judge."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from unitune import images
from unitune.scenes import Scene, caption, render
from unitune.scenes.edits import SceneEdit


def facts(scene: Scene) -> dict[str, object]:
    """What a judge must find in a picture of the scene."""
    return {"nouns": sorted(o.noun for o in scene.objects), "place": scene.place, "time": scene.time, "style": scene.style, "count": len(scene.objects)}


def write(folder: Path, edits: Sequence[SceneEdit]) -> None:
    """Write edits of scenes; edits of an equal scene share its base image. The same edits give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[Scene, str] = {}
    lines = []
    for number, edit in enumerate(edits):
        if edit.before not in names:
            names[edit.before] = f"{'-'.join(o.noun for o in edit.before.objects)}-{edit.before.place}-{len(names)}.png"
            images.save_png(images.from_uint8(render(edit.before)[0]), folder / names[edit.before])
        target, mask = f"target-{number:03}.png", f"mask-{number:03}.png"
        images.save_png(images.from_uint8(edit.target()), folder / target)
        white = torch.from_numpy(edit.mask()).float()[None, None].expand(1, 3, -1, -1) * 2 - 1
        images.save_png(white, folder / mask)
        lines.append({
            "image": names[edit.before], "edit": edit.prompt, "caption": caption(edit.before), "kind": edit.kind, "aligned": edit.aligned,
            "target": target, "mask": mask, "facts": facts(edit.after),
        })  # fmt: skip
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
