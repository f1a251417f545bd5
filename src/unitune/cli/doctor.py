"""What will not work, before hours are spent: python run.py --config-name doctor, with whatever the main job takes.

One line per check: ok, warn (may not work, or not as hoped) or fail (will not work), what was found and what to do. No model is loaded, no connection is
opened, no file is left anywhere. Exit code 0 when nothing fails, 1 when a check does.
"""

import importlib.metadata
import importlib.util
import netrc
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from unitune.cli import estimate
from unitune.cli.estimate import gib, networks, sources, tunings
from unitune.errors import Refused, Unfit
from unitune.models import compat, files, machine
from unitune.models.hub import Repo

OK, WARN, FAIL = "ok", "warn", "fail"
PACKAGE = "unitune"
PINS = (
    Path(__file__).parents[3] / "constraints.txt"
)  # beside the sources of a checkout; an installed package has none
RUN_BYTES = 200 * 2**20  # of one run's folder: pictures, curves, records
Settings = Mapping[str, Any]  # the main job's config as plain data


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: str
    found: str
    advice: str = ""

    def line(self, check: str) -> str:
        """Write the table's row."""
        return (
            f"{self.level:<5} {check:<12} {self.found}{f' -> {self.advice}' if self.advice else ''}"
        )


def run(**settings: Any) -> Iterator[str]:
    """Yield a line per check of the main job's settings. Raises Unfit at the end when a check failed."""
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
            f"{len(failed)} of {len(CHECKS)} checks failed ({', '.join(failed)}); see the lines above"
        )


def python(settings: Settings) -> Finding:
    """Judge the Python version."""
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    here = platform.python_version()
    if Requirement(f"python{wanted}").specifier.contains(here, prereleases=True):
        return Finding(OK, here)
    return Finding(
        FAIL,
        f"{here} is not supported ({wanted})",
        "make a new environment: make clean setup PYTHON=python3.12",
    )


def libraries(settings: Settings) -> Finding:
    """Compare the libraries with the ranges that work and the versions that were tested."""
    ranges = {
        canonicalize_name(r.name): r
        for r in map(Requirement, importlib.metadata.requires(PACKAGE) or [])
        if r.marker is None
    }
    pins = (
        dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(), re.MULTILINE))
        if PINS.is_file()
        else {}
    )
    here = {
        canonicalize_name(d.name): d.version.partition("+")[0]
        for d in importlib.metadata.distributions()
        if d.name
    }
    broken = [
        str(r) if name not in here else f"{r} (found {here[name]})"
        for name, r in ranges.items()
        if not r.specifier.contains(here.get(name, "0"), True)
    ]
    if broken:
        return Finding(
            FAIL, f"missing or outside the range that works: {', '.join(broken)}", "make setup"
        )
    moved = [
        f"{name} {here[key]} for {pin}"
        for name, pin in pins.items()
        if (key := canonicalize_name(name)) in here and here[key] != pin
    ]
    if moved:
        return Finding(
            WARN,
            f"not the tested versions: {', '.join(moved[:5])}{', ...' if len(moved) > 5 else ''}",
            "make setup installs those of constraints.txt",
        )
    return Finding(
        OK,
        f"{len(ranges)} in their ranges, "
        + (f"all {len(pins)} pins met" if pins else "no constraints.txt to compare with"),
    )


def torchvision(settings: Settings) -> Finding:
    """Find out whether torchvision was built for this torch and its compiled part loads."""
    if importlib.util.find_spec("torchvision") is None:
        return Finding(FAIL, "torchvision is missing; CLIP scores need it", "make setup")
    built = next(
        (
            r
            for r in map(Requirement, importlib.metadata.requires("torchvision") or [])
            if r.name == "torch"
        ),
        None,
    )
    pair = (
        f"torchvision {importlib.metadata.version('torchvision')} beside torch {torch.__version__}"
    )
    if built is not None and not built.specifier.contains(
        torch.__version__.partition("+")[0], prereleases=True
    ):
        return Finding(
            FAIL,
            f"{pair}, but it was built for {built}",
            "install the pair of constraints.txt: make setup",
        )
    if (compiled := compat.compiled_torchvision()) is None or not compat.is_loadable(compiled):
        return Finding(
            WARN,
            f"{pair}: its compiled part does not load; nothing here uses it",
            "other programs need torch and torchvision from one source",
        )
    return Finding(OK, pair)


def device(settings: Settings) -> Finding:
    """Find out whether the device is there and its arithmetic native."""
    chosen = machine.device(settings["machine"]["device"])
    dtype = machine.precision(settings["machine"]["precision"], chosen)
    arithmetic = str(dtype).removeprefix("torch.")
    if chosen.type == "cpu":
        return Finding(OK, f"cpu, {torch.get_num_threads()} threads, {arithmetic}")
    name = torch.cuda.get_device_name(chosen)
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding(WARN, f"{name} computes no bf16 of its own", "machine.precision=fp32")
    return Finding(OK, f"{name}, CUDA {torch.version.cuda}, {arithmetic}")


def model(settings: Settings) -> Finding:
    """Find out whether the model's files are there and whole, or to be had."""
    chosen, places = files.described(settings["model"]), sources(settings["model"])
    notes = [hub_state(source) for source in places.values() if isinstance(source, Repo)]
    for stage, source in places.items():
        if isinstance(source, Path):
            files.check_folder(source, chosen.parts(stage), variant=chosen.variant)
    if notes:
        worst = max(notes, key=lambda note: (OK, WARN, FAIL).index(note.level))
        return Finding(
            worst.level, "; ".join(dict.fromkeys(note.found for note in notes)), worst.advice
        )
    sizes = ", ".join(
        f"{name} {net.parameters / 1e6:.1f} M" for name, net in networks(settings["model"]).items()
    )
    return Finding(OK, f"{chosen.name}: {sizes} parameters")


def memory(settings: Settings) -> Finding:
    """Compare the memory there is with an estimate for tuning the chosen stages."""
    nets, plans, chosen = (
        networks(settings["model"]),
        tunings(settings),
        machine.device(settings["machine"]["device"]),
    )
    mixed = machine.precision(settings["machine"]["precision"], chosen) == torch.bfloat16
    weight = 2 if mixed and settings["model"].get("weights") == "machine" else estimate.FLOAT32
    need, made = estimate.memory(nets, plans, mixed=mixed, weight=weight)
    host = [
        estimate.checkpoint(nets[stage], plan) * estimate.CHECKPOINT_COPIES
        for stage, plan in plans.items()
        if plan.kept > 1
    ]
    free, total = torch.cuda.mem_get_info(chosen) if chosen.type == "cuda" else machine.memory()
    if chosen.type == "cpu" and host:  # written while activations are gone
        need, made = (
            need + max(0, max(host) - made.get("activations", 0)),
            made | {"a checkpoint": max(host)},
        )
    what = f"about {gib(need)} ({', '.join(f'{name} {gib(size)}' for name, size in made.items())}), {gib(free)} free of {gib(total)} on the {chosen.type}"
    advice = "a smaller model, stage=base, optimizer=adafactor, a smaller batch_size, fewer layers (freeze=), or a larger machine"
    if need > free:
        return Finding(
            FAIL if need > total else WARN,
            what,
            advice if need > total else f"end other programs, or: {advice}",
        )
    if chosen.type == "cuda" and host and max(host) > machine.memory()[0]:
        return Finding(
            WARN,
            f"{what}; writing a checkpoint takes {gib(max(host))} of the host's memory, {gib(machine.memory()[0])} are free",
            "snapshots=[]",
        )
    return Finding(OK, what)


def store(settings: Settings) -> Finding:
    """Find out whether tunings can be kept."""
    folder, nets, plans = (
        Path(settings["store"]["path"]),
        networks(settings["model"]),
        tunings(settings),
    )
    entry, peak = estimate.disk(nets, plans)
    budget = settings["store"]["budget_gib"] * 2**30
    finding = space(
        folder,
        peak,
        f"one tuning stores {gib(entry)}, {gib(peak)} while it is made",
        "set store.path to another disk, or keep fewer snapshots=",
    )
    if finding.level == OK and entry > budget:
        return Finding(
            WARN,
            f"{finding.found}, above store.budget_gib={gib(int(budget))}: every new tuning removes all earlier ones",
            "raise store.budget_gib",
        )
    return finding


def outputs(settings: Settings) -> Finding:
    """Find out whether results can be written."""
    return space(
        Path(settings["outputs"]),
        RUN_BYTES,
        "runs make their folders there",
        "start from another folder",
    )


def hub(settings: Settings) -> Finding:
    """Say where models of the hub lie and whether they may be fetched."""
    from huggingface_hub import constants, get_token

    if settings["model"].get("path") is not None or not any(
        isinstance(source, Repo) for source in sources(settings["model"]).values()
    ):
        return Finding(OK, f"{settings['model']['name']} needs no download")
    token = "a token is there" if get_token() else "no token"
    mode = (
        "HF_HUB_OFFLINE is set: nothing is fetched"
        if constants.HF_HUB_OFFLINE
        else "downloads are allowed"
    )
    return space(
        Path(constants.HF_HUB_CACHE),
        0,
        f"{token}, {mode}",
        "set HF_HOME to a folder that can be written",
    )


def logger(settings: Settings) -> Finding:
    """Say where curves go, and whether they can."""
    chosen = settings["logger"]
    kind = str(chosen["_target_"]).rpartition(".")[2]
    needs = {
        "Wandb": "wandb",
        "WandbLogger": "wandb",
        "TensorBoard": "tensorboard",
        "TensorBoardLogger": "tensorboard",
    }.get(kind)
    if needs is not None and importlib.util.find_spec(needs) is None:
        return Finding(
            FAIL, f"{kind} needs the package {needs}, which is missing", "make setup, or logger=csv"
        )
    if needs != "wandb":
        return Finding(OK, f"{kind} into the run's folder")
    mode = os.environ.get("WANDB_MODE", "offline" if chosen["offline"] else "online")
    if mode != "online":
        return (
            Finding(OK, "wandb offline: `wandb sync` uploads later")
            if mode == "offline"
            else Finding(WARN, f"wandb {mode} by WANDB_MODE")
        )
    if os.environ.get("WANDB_API_KEY") or _has_login("api.wandb.ai"):
        return Finding(OK, "wandb online, with a key")
    return Finding(
        WARN,
        "wandb online, but there is no key: runs stay offline",
        "wandb login, or set WANDB_API_KEY, or logger.offline=true",
    )


def metrics(settings: Settings) -> Finding:
    """Look for what the chosen scores need."""
    from unitune.metrics.perceptual import weights_file

    used = [str(metric["_target_"]).rpartition(".")[2] for metric in settings["metrics"]["use"]]
    if "STLPIPS" in used:
        try:
            weights_file()
        except Refused as missing:
            if not settings["metrics"]["use"][used.index("STLPIPS")].get("optional"):
                raise
            return Finding(WARN, f"{missing}; its column is left out")
    parts = [
        part
        for metric in settings["metrics"]["use"]
        for part in (metric, *metric.values())
        if isinstance(part, dict)
    ]
    if absent := [
        part["folder"] for part in parts if "folder" in part and not Path(part["folder"]).is_dir()
    ]:
        raise Refused(
            f"metrics need the folder {absent[0]}, which is missing; put it back, or metrics=none"
        )
    return Finding(OK, ", ".join(used) or "none chosen")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    python,
    libraries,
    torchvision,
    device,
    model,
    memory,
    store,
    outputs,
    hub,
    logger,
    metrics,
)


def hub_state(repo: Repo) -> Finding:
    """Say whether a repository is in the hub's cache, or may be fetched. Opens no connection."""
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    repository = repo.id
    there, absent = (
        try_to_load_from_cache(repository, "unet/config.json", revision=repo.revision),
        "not in the cache",
    )
    if isinstance(there, str):
        try:
            return Finding(
                OK,
                f"{repository} is in the cache, {estimate.network(Path(there).parent).parameters / 1e6:.0f} M parameters",
            )
        except Refused as refused:
            absent = f"in the cache in part ({refused})"
    fetch = f"fetch it where there is a network: hf download {repository}"
    if constants.HF_HUB_OFFLINE:
        return Finding(
            FAIL, f"{repository} is {absent} and HF_HUB_OFFLINE is set", f"unset it, or {fetch}"
        )
    if repository.startswith(estimate.GATED) and not get_token():
        return Finding(
            FAIL,
            f"{repository} is {absent} and asks for a licence",
            f"accept it on the page of {repository}, then hf auth login",
        )
    size = (
        f", {gib(estimate.HUB[repository].parameters * estimate.FLOAT32)} for the UNet in float32"
        if repository in estimate.HUB
        else ""
    )
    return Finding(WARN, f"{repository} is {absent}", f"the first run fetches it{size}; or {fetch}")


def space(folder: Path, need: int, purpose: str, advice: str) -> Finding:
    """Find out, leaving nothing, whether a folder can be written or made, and whether so many bytes are free there."""
    here = folder = folder.expanduser().absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    try:
        with tempfile.TemporaryFile(
            dir=here
        ):  # without a name where the system can, else removed at once
            free = shutil.disk_usage(here).free
    except OSError as error:
        return Finding(
            FAIL,
            f"{folder} cannot be {'written' if here == folder else 'made'} ({error.strerror})",
            advice,
        )
    state = "" if here == folder else " (not there yet)"
    if need > free:
        return Finding(FAIL, f"{folder}{state}: {purpose}, {gib(free)} free", advice)
    return Finding(OK, f"{folder}{state}: {purpose}, {gib(free)} free")


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
