"""What will not work, before hours are spent: python run.py --config-name doctor.

It takes whatever the main job takes and prints a line per check: ok, warn (may not work, or not as
hoped) or fail (will not work), what was found and what to do. No model is loaded, no connection is
opened, no file is left anywhere. Exit code 0 when nothing fails, 1 when a check does.
"""

import importlib.util
import netrc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from unitune.cli import estimate
from unitune.cli.estimate import class_name, gib, networks, tunings
from unitune.cli.installation import (
    FAIL,
    OK,
    WARN,
    Finding,
    Settings,
    device,
    launcher,
    libraries,
    python,
    torchvision,
)
from unitune.errors import Refused, Unfit
from unitune.models import files, machine
from unitune.models.families import family
from unitune.models.hub import Repo

RUN_BYTES = 200 * 2**20  # of one run's folder: pictures, curves, records
SMALLER = (
    "a smaller model, stage=base, optimizer=adafactor, a smaller batch_size, "
    "fewer layers (freeze=), or a larger machine"
)


def run(**settings: Any) -> Iterator[str]:
    """Yield a line per check of the main job's settings; raises Unfit when a check failed."""
    failed = []
    for check in CHECKS:
        name = check.__name__
        try:
            finding = check(settings)
        except Refused as refused:
            finding = Finding(FAIL, str(refused))
        if finding.level == FAIL:
            failed.append(name)
        yield finding.line(name)
    if failed:
        raise Unfit(
            f"{len(failed)} of {len(CHECKS)} checks failed ({', '.join(failed)}); "
            "see the lines above"
        )


def model(settings: Settings) -> Finding:
    """Find out whether the model's files are there and whole, or to be had."""
    chosen = files.described(settings["model"])
    sources = {stage: chosen.source(stage) for stage in chosen.stages}
    notes = [repository(s, chosen) for s in sources.values() if isinstance(s, Repo)]
    for stage in sources:
        if (folder := chosen.folder(stage)) is not None:
            files.check_stage(chosen, stage, folder)
    if notes:
        worst = max(notes, key=lambda note: (OK, WARN, FAIL).index(note.level))
        found = "; ".join(dict.fromkeys(note.found for note in notes))
        return Finding(worst.level, found, worst.advice)
    sizes = networks(settings["model"]).items()
    counted = ", ".join(f"{name} {net.parameters / 1e6:.1f} M" for name, net in sizes)
    return Finding(OK, f"{chosen.name}: {counted} parameters")


def memory(settings: Settings) -> Finding:
    """Compare the memory there is with an estimate for tuning the chosen stages."""
    nets, plans = networks(settings["model"]), tunings(settings)
    chosen = machine.device(settings["machine"]["device"])
    mixed = machine.precision(settings["machine"]["precision"], chosen) == torch.bfloat16
    weight = 2 if mixed and settings["model"].get("weights") == "machine" else estimate.FLOAT32
    need, made = estimate.memory(nets, plans, mixed=mixed, weight=weight)
    checkpoint = estimate.CHECKPOINT_COPIES * max(
        (estimate.checkpoint(nets[stage], plan) for stage, plan in plans.items()), default=0
    )
    on_gpu = chosen.type == "cuda"
    free, total = torch.cuda.mem_get_info(chosen) if on_gpu else machine.memory()
    if checkpoint and not on_gpu:  # written while activations are gone
        need += max(0, checkpoint - made.get("activations", 0))
        made = made | {"a checkpoint": checkpoint}
    what = (
        f"about {gib(need)} ({', '.join(f'{name} {gib(size)}' for name, size in made.items())}), "
        f"{gib(free)} free of {gib(total)} on the {chosen.type}"
    )
    if need > total:
        return Finding(FAIL, what, SMALLER)
    if need > free:
        return Finding(WARN, what, f"end other programs, or: {SMALLER}")
    host, _ = machine.memory()
    if on_gpu and checkpoint > host:
        writing = f"writing a checkpoint takes {gib(checkpoint)} of the host's memory"
        return Finding(WARN, f"{what}; {writing}, {gib(host)} are free", SMALLER)
    return Finding(OK, what)


def store(settings: Settings) -> Finding:
    """Find out whether tunings can be kept."""
    entry, peak = estimate.disk(networks(settings["model"]), tunings(settings))
    budget = settings["store"]["budget_gib"] * 2**30
    purpose = f"one tuning stores at most {gib(entry)}, {gib(peak)} while it is made"
    advice = "set store.path to another disk, or keep fewer snapshots="
    finding = space(settings["store"]["path"], peak, purpose, advice)
    if finding.level != OK or entry <= budget:
        return finding
    over = f"above store.budget_gib={gib(int(budget))}: every new tuning removes all earlier ones"
    return Finding(WARN, f"{finding.found}, {over}", "raise store.budget_gib")


def outputs(settings: Settings) -> Finding:
    """Find out whether results can be written."""
    advice = "start from another folder"
    return space(settings["outputs"], RUN_BYTES, "runs make their folders there", advice)


def hub(settings: Settings) -> Finding:
    """Say where models of the hub lie and whether they may be fetched."""
    from huggingface_hub import constants, get_token

    chosen = files.described(settings["model"])
    local = (isinstance(chosen.source(stage), Path) for stage in chosen.stages)
    if chosen.path is not None or all(local):
        return Finding(OK, f"{chosen.name} needs no download")
    token = "a token is there" if get_token() else "no token"
    offline = "HF_HUB_OFFLINE is set: nothing is fetched"
    mode = offline if constants.HF_HUB_OFFLINE else "downloads are allowed"
    advice = "set HF_HOME to a folder that can be written"
    return space(constants.HF_HUB_CACHE, 0, f"{token}, {mode}", advice)


def logger(settings: Settings) -> Finding:
    """Say where curves go, and whether they can."""
    chosen = settings["logger"]
    kind = class_name(chosen)
    package = kind.removesuffix("Logger").lower()
    needs = package if package in ("wandb", "tensorboard") else None
    if needs is not None and importlib.util.find_spec(needs) is None:
        found = f"{kind} needs the package {needs}, which is missing"
        return Finding(FAIL, found, "make setup, or logger=csv")
    if needs != "wandb":
        return Finding(OK, f"{kind} into the run's folder")
    mode = os.environ.get("WANDB_MODE", "offline" if chosen["offline"] else "online")
    if mode == "offline":
        return Finding(OK, "wandb offline: `wandb sync` uploads later")
    if mode != "online":
        return Finding(WARN, f"wandb {mode} by WANDB_MODE")
    if os.environ.get("WANDB_API_KEY") or _has_login("api.wandb.ai"):
        return Finding(OK, "wandb online, with a key")
    advice = "wandb login, or set WANDB_API_KEY, or logger.offline=true"
    return Finding(WARN, "wandb online, but there is no key: runs stay offline", advice)


def metrics(settings: Settings) -> Finding:
    """Look for what the chosen scores need."""
    from unitune.metrics.perceptual import weights_file

    chosen = settings["metrics"]["use"]
    names = [class_name(metric) for metric in chosen]
    if "STLPIPS" in names:
        try:
            weights_file()
        except Refused as missing:
            if not any("STLPIPS" in name for name in settings["metrics"].get("optional", ())):
                raise
            return Finding(WARN, f"{missing}; its column is left out")
    for metric in chosen:
        for part in (metric, *metric.values()):
            folder = part.get("folder") if isinstance(part, dict) else None
            if folder is not None and not Path(folder).is_dir():
                raise Refused(
                    f"metrics need the folder {folder}, which is missing; put it back, "
                    "or metrics=none"
                )
    return Finding(OK, ", ".join(names) or "none chosen")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    python, libraries, torchvision, device, launcher, model, memory, store, outputs, hub, logger,
    metrics,
)  # fmt: skip


def repository(repo: Repo, chosen: files.Model) -> Finding:
    """Say whether a repository is in the hub's cache, or may be fetched; opens no connection."""
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    kind, absent = family(chosen.family), "not in the cache"
    config = f"{kind.network}/config.json"
    there = try_to_load_from_cache(repo.id, config, revision=repo.revision)
    if isinstance(there, str):
        try:
            size = estimate.network(Path(there).parent).parameters / 1e6
            return Finding(OK, f"{repo.id} is in the cache, {size:.0f} M parameters")
        except Refused as refused:
            absent = f"in the cache in part ({refused})"
    fetch = f"fetch it where there is a network: hf download {repo.id}"
    if constants.HF_HUB_OFFLINE:
        found = f"{repo.id} is {absent} and HF_HUB_OFFLINE is set"
        return Finding(FAIL, found, f"unset it, or {fetch}")
    if repo.owner in kind.gated and not get_token():
        advice = f"accept it on the page of {repo.id}, then hf auth login"
        return Finding(FAIL, f"{repo.id} is {absent} and asks for a licence", advice)
    size = ""
    if repo.id in estimate.HUB:
        weights = estimate.HUB[repo.id].parameters * estimate.FLOAT32
        size = f", {gib(weights)} for the UNet in float32"
    return Finding(WARN, f"{repo.id} is {absent}", f"the first run fetches it{size}; or {fetch}")


def space(path: str, need: int, purpose: str, advice: str) -> Finding:
    """Find out, leaving nothing, whether a folder can be made and has so many bytes free."""
    here = folder = Path(path).expanduser().absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    try:
        with tempfile.TemporaryFile(dir=here):  # without a name, where the system can
            free = shutil.disk_usage(here).free
    except OSError as error:
        done = "written" if here == folder else "made"
        return Finding(FAIL, f"{folder} cannot be {done} ({error.strerror})", advice)
    state = "" if here == folder else " (not there yet)"
    level, advice = (FAIL, advice) if need > free else (OK, "")
    return Finding(level, f"{folder}{state}: {purpose}, {gib(free)} free", advice)


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
