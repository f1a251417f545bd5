"""What a model is made of and where its files are; missing and broken parts are named by reading names, sizes and headers, before anything is loaded."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.models import hub
from unitune.models.hub import Repo

PRECISIONS = ("fp32", "machine")
FIRST = (
    "unet",
    "scheduler",
    "text_encoder",
    "tokenizer",
)  # the parts of a first stage; the first stage's text encoder serves all
PARTS = {
    "floyd": (FIRST, ("unet", "scheduler")),
    "stable_diffusion": ((*FIRST, "vae"), ()),
}  # by family: of the first stage, of a later one
SETTINGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}  # of the other parts config.json
WEIGHTS = ("unet", "text_encoder", "vae")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LONGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit


@dataclass(frozen=True)
class Model:
    """A model as `conf/model` describes it. `path` is a local folder and wins over `repos`: (stage, hub id or folder of that stage) pairs.

    `weights` and `text_precision`: in which precision network weights and the text encoder are held, fp32 or the machine's.
    """

    name: str
    stages: tuple[str, ...]
    family: str = "floyd"
    path: str | None = None
    repos: tuple[tuple[str, str], ...] = ()
    variant: str = ""
    weights: str = "fp32"
    text_precision: str = "fp32"
    keep_text_encoder: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.family not in PARTS:
            raise Refused(f"model.family must be {' or '.join(PARTS)}, got {self.family!r}")
        for field, value in (
            ("model.weights", self.weights),
            ("model.text_encoder.precision", self.text_precision),
        ):
            if value not in PRECISIONS:
                raise Refused(
                    f"{field} must be {' or '.join(PRECISIONS)} (as machine.precision says), got {value!r}"
                )
        if not self.stages or (self.family == "stable_diffusion" and len(self.stages) > 1):
            raise Refused(
                f"model.stages is {list(self.stages)}; a model has one stage or more, Stable Diffusion exactly one"
            )

    def source(self, stage: str) -> Path | Repo:
        """Return where a stage's pipeline folder is. In a `path` each stage has a subfolder; of a model of one stage it may be the pipeline folder itself."""
        if self.path is not None:
            folder = Path(self.path)
            if not folder.is_dir():
                what = (
                    "is a file; weights are read from folders of safetensors:"
                    if folder.is_file()
                    else "does not exist:"
                )
                raise Refused(
                    f"no model folder {folder}, it {what} give model.path the folder that holds {', '.join(self.stages)}"
                )
            return (
                folder
                if len(self.stages) == 1 and not (folder / stage).is_dir()
                else folder / stage
            )
        given = dict(self.repos).get(stage)
        if not given:
            raise Refused(
                f"{self.name} has no files for stage {stage}: set model.path to a folder with {', '.join(self.stages)}, or model.repos.{stage}"
            )
        return Path(given) if Path(given).is_dir() else Repo.parse(given)

    def parts(self, stage: str) -> tuple[str, ...]:
        """List the subfolders that a stage is made of."""
        first, later = PARTS[self.family]
        return first if stage == self.stages[0] else later


def described(settings: Mapping[str, Any]) -> Model:
    """Return the model of a config, as plain data; what an older config lacks has its neutral value."""
    text = settings.get("text_encoder") or {}
    return Model(
        name=settings["name"],
        stages=tuple(settings["stages"]),
        family=settings.get("family", "floyd"),
        path=settings.get("path"),
        repos=tuple((settings.get("repos") or {}).items()),
        variant=settings.get("variant") or "",
        weights=settings.get("weights", "fp32"),
        text_precision=text.get("precision", "fp32"),
        keep_text_encoder=text.get("keep", True),
        gradient_checkpointing=settings.get("gradient_checkpointing", False),
    )


def check(model: Model, *, tuned: Sequence[str] = ()) -> None:
    """Refuse, within 3 seconds and without a download, a model that cannot be loaded: broken folders, hub repositories out of reach, no stage to tune."""
    if absent := [stage for stage in tuned if stage not in model.stages]:
        raise Refused(
            f"{model.name} has no stage {absent[0]} to tune; it has {', '.join(model.stages)}: use stage=cascade or stage=base"
        )
    for stage in model.stages:
        source, parts = model.source(stage), model.parts(stage)
        if isinstance(source, Path):
            check_folder(source, parts, variant=model.variant)
        elif _complete(source, parts, variant=model.variant) is None:
            hub.ask(source)


def folders(model: Model) -> dict[str, Path]:
    """Return the pipeline folder of every stage, complete; what the hub's cache lacks is downloaded."""
    found = {}
    for stage in model.stages:
        source, parts = model.source(stage), model.parts(stage)
        if isinstance(source, Repo):
            source = _complete(source, parts, variant=model.variant) or hub.download(
                source, parts, variant=model.variant
            )
        check_folder(source, parts, variant=model.variant)
        found[stage] = source
    return found


def at_hand(model: Model) -> dict[str, Path]:
    """Return the pipeline folders of the stages whose files need no download."""
    sources = {stage: model.source(stage) for stage in model.stages}
    found = {
        k: s if isinstance(s, Path) else _complete(s, model.parts(k), variant=model.variant)
        for k, s in sources.items()
    }
    return {stage: folder for stage, folder in found.items() if folder is not None}


def _complete(repo: Repo, parts: Sequence[str], *, variant: str) -> Path | None:
    """Return a snapshot in the hub's cache that has every part, or None."""
    folder = hub.cached(repo)
    try:
        if folder is not None:
            check_folder(folder, parts, variant=variant)
    except Refused:  # an interrupted download, which the next one completes
        return None
    return folder


def check_folder(folder: Path, parts: Sequence[str], *, variant: str = "") -> None:
    """Refuse a pipeline folder with a missing or broken part, in one line that names it."""
    for part in parts:
        if not (folder / part).is_dir():
            raise Refused(
                f"model folder {folder} has no {part}; expected a diffusers pipeline folder with {', '.join(parts)}"
            )
        settings = folder / part / SETTINGS.get(part, "config.json")
        if not settings.is_file():
            raise Refused(
                f"model folder {folder} has no {part}/{settings.name}; copy or download that part again"
            )
        json_object(settings)
        if part in WEIGHTS:
            _check_weights(folder / part, variant)


def weights_files(part: Path, variant: str = "") -> list[Path]:
    """List the safetensors that will be read: of the variant (e.g. fp16) where the folder has it, else the plain ones."""
    files = sorted(part.glob("*.safetensors"))
    return [file for file in files if variant and f".{variant}" in file.name] or [
        file for file in files if "." not in file.stem
    ]


def held_variant(part: Path, variant: str) -> str | None:
    """Return the variant if the folder has it, as `from_pretrained` takes it."""
    return (
        variant
        if variant and any(f".{variant}" in file.name for file in weights_files(part, variant))
        else None
    )


def _check_weights(part: Path, variant: str) -> None:
    found = weights_files(part, variant)
    if not found:
        if pickles := sorted(file.name for file in part.iterdir() if file.suffix in PICKLES):
            raise Refused(
                f"{part} holds its weights as a pickle ({pickles[0]}), which can run code when it is read; only safetensors are: convert it"
            )
        more = (
            f"; it has {files[0].name}: set model.variant"
            if (files := sorted(part.glob("*.safetensors")))
            else ": copy or download that part again"
        )
        raise Refused(f"{part} has no weights (*.safetensors){more}")
    mark = held_variant(part, variant)
    for index in sorted(part.glob("*.index*.json")):
        if (
            (f".{mark}." in index.name)
            if mark
            else index.name.endswith(".safetensors.index.json") and index.name.count(".") == 3
        ):
            content = _json(index)
            names = (
                set(content["weight_map"].values())
                if isinstance(content, dict) and isinstance(content.get("weight_map"), dict)
                else set()
            )
            if absent := sorted(str(name) for name in names if not (part / str(name)).is_file()):
                raise Refused(
                    f"{index} names {absent[0]}, which is absent; copy or download that part again"
                )
    for file in found:
        header(file)


def header(file: Path) -> dict[str, int]:
    """Count the values of each tensor in a safetensors file by its header alone; raises Refused where the file is damaged or cut."""
    size = file.stat().st_size
    with (
        open(file, "rb") as stream
    ):  # 8 bytes of the header's length, JSON with every tensor's place; then comes the data, to the file's end
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(size, LONGEST_HEADER) else b""
    try:
        entries = {
            name: entry for name, entry in json.loads(text).items() if name != "__metadata__"
        }
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        counts = {name: math.prod(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise Refused(
            f"{file} is damaged: not a whole safetensors file ({size} bytes); copy or download that part again"
        ) from None
    if end != size:
        raise Refused(
            f"{file} is truncated or damaged: it has {size} of {end} bytes; copy or download that part again"
        )
    return counts


def json_object(file: Path) -> dict[str, Any]:
    """Read a file of settings; one that is no JSON object is refused."""
    if not isinstance(settings := _json(file), dict):
        raise Refused(f"{file} holds no settings; copy or download that part again")
    return settings


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(
            f"{file} cannot be read ({' '.join(str(error).split())}); copy or download that part again"
        ) from None
