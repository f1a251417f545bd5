"""What comes back from the GPU: the exported folders packed into few files of limited size, and a report beside them."""

import dataclasses
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import torch

from unitune.pretrain.gpu.world import Part, Plan
from unitune.types import Refused

log = logging.getLogger(__name__)
FILE_LIMIT, FILES = 16 * 2**20 - 2**16, 8  # bytes and number of what comes back


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, flush to the disk, rename: the file is whole or as it was."""
    partial = file.with_name(f".{file.name}.partial")
    write(partial)
    with partial.open("rb+") as f:
        os.fsync(f.fileno())
    partial.replace(file)


def state_of(part: Part, work: Path) -> dict:
    """Return what the last checkpoint of a part says of its training; empty without one."""
    file = work / part.name / "done.json"
    return json.loads(file.read_text()) if file.exists() else {}


def pack(work: Path, out: Path, plan: Plan, *, finished: bool, machine_name: str) -> None:
    """Write the exported folders as uncompressed tar files under the limits, and training.json beside them."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted((p for part in plan.parts for p in (work / part.name / "export").rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)
    bins: list[list[Path]] = []
    for file in files:  # first fit, largest first; a member takes its size and less than 2 KiB more
        size = file.stat().st_size + 2048
        if size > FILE_LIMIT:
            raise Refused(f"{file} has {size / 2**20:.1f} MiB; what comes back must stay under 16 MiB a file, so export smaller shards")
        fit = next((b for b in bins if sum(f.stat().st_size + 2048 for f in b) + size <= FILE_LIMIT), None)
        bins += [] if fit else [[]]
        (fit or bins[-1]).append(file)
    if len(bins) + 2 > FILES:
        raise Refused(f"the weights fill {len(bins)} files of 16 MiB; {FILES - 2} may come back beside training.json and samples.png")
    for k, members in enumerate(bins):
        write_whole(out / f"weights-{k}.tar", lambda file, members=members: _tar(file, members, work))
    for stale in sorted(out.glob("weights-*.tar"))[len(bins) :]:
        stale.unlink()
    parts = {part.name: state_of(part, work) for part in plan.parts}
    report = {"complete": finished, "machine": machine_name, "torch": torch.__version__, "plan": dataclasses.asdict(plan), "parts": parts}
    write_whole(out / "training.json", lambda file: file.write_text(json.dumps(report, indent=1) + "\n"))


def _tar(file: Path, members: list[Path], root: Path) -> None:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in sorted(members):
            info = tarfile.TarInfo(str(member.relative_to(root)))
            info.size = member.stat().st_size
            with member.open("rb") as f:
                archive.addfile(info, f)


def unpack(source: Path, folder: Path) -> None:
    """Put what came back into FOLDER/PART/export, with done.json (what assemble writes into training.json) and curve.jsonl beside it."""
    if not (source / "training.json").exists():
        raise Refused(f"{source} holds no training (training.json is missing); name the folder that holds what came back from the GPU")
    report = json.loads((source / "training.json").read_text())
    trained = {name: done for name, done in report["parts"].items() if done}
    for name in trained:
        if (folder / name / "checkpoint.pt").exists():
            raise Refused(f"{folder / name} holds a training of its own (checkpoint.pt); unpack into another folder")
        shutil.rmtree(folder / name / "export", ignore_errors=True)
    for file in sorted(source.glob("weights-*.tar")):
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    for name, done in trained.items():
        kept = {key: done[key] for key in ("step", "samples", "minutes", "before")} | {"machine": report["machine"]}
        (folder / name / "done.json").write_text(json.dumps(kept, indent=2) + "\n")
        (folder / name / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in done["curve"]))
    log.info("%s: %s", folder, ", ".join(f"{name} ({done['samples']} samples)" for name, done in trained.items()))
