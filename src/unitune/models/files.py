"""What a model is made of and where its files are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.models import hub, parts, stage_folder
from unitune.models.families import FAMILIES, family
from unitune.models.hub import Repo

PRECISIONS = ("fp32", "machine")


@dataclass(frozen=True)
class Model:
    """A model as `conf/model` describes it.

    `path` is a local folder and wins over `repos`: (stage, hub id or folder of that stage) pairs.
    `weights` and `text_precision` say in which precision network weights and the text encoder are
    held, fp32 or the machine's.
    """

    name: str
    stages: tuple[str, ...]
    family: str = "floyd"  # of `families`
    path: str | None = None
    repos: tuple[tuple[str, str], ...] = ()
    variant: str = ""
    weights: str = "fp32"
    text_precision: str = "fp32"
    keep_text_encoder: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise Refused(f"model.family must be {' or '.join(FAMILIES)}, got {self.family!r}")
        for field, value in (
            ("model.weights", self.weights),
            ("model.text_encoder.precision", self.text_precision),
        ):
            if value not in PRECISIONS:
                raise Refused(
                    f"{field} must be {' or '.join(PRECISIONS)} (as machine.precision says), "
                    f"got {value!r}"
                )
        if not self.stages or (len(self.stages) > 1 and not family(self.family).later):
            single = " and ".join(family(name).title for name in FAMILIES if not family(name).later)
            raise Refused(
                f"model.stages is {list(self.stages)}; a model has one stage or more, "
                f"{single} exactly one"
            )

    def source(self, stage: str) -> Path | Repo:
        """Return where a stage's pipeline folder is.

        In a `path` each stage has a subfolder; of a model of one stage it may be the pipeline
        folder itself.
        """
        if self.path is not None:
            folder = Path(self.path)
            if not folder.is_dir():
                what = "does not exist:"
                if folder.is_file():
                    what = "is a file; weights are read from folders of safetensors:"
                raise Refused(
                    f"no model folder {folder}, it {what} give model.path the folder that holds "
                    f"{', '.join(self.stages)}"
                )
            whole = len(self.stages) == 1 and not (folder / stage).is_dir()
            return folder if whole else folder / stage
        given = dict(self.repos).get(stage)
        if not given:
            raise Refused(
                f"{self.name} has no files for stage {stage}: set model.path to a folder with "
                f"{', '.join(self.stages)}, or model.repos.{stage}"
            )
        return Path(given) if Path(given).is_dir() else Repo.parse(given)

    def folder(self, stage: str) -> Path | None:
        """Return a stage's folder that is here; of the hub's cache, one that has every part."""
        source = self.source(stage)
        if isinstance(source, Path):
            return source
        folder = hub.cached(source)
        try:
            if folder is not None:
                parts.check(folder, self.parts(stage), variant=self.variant)
        except Refused:  # an interrupted download, which the next one completes
            return None
        return folder

    def parts(self, stage: str) -> tuple[str, ...]:
        """List the subfolders that a stage is made of."""
        kind = family(self.family)
        return kind.first if stage == self.stages[0] else kind.later


def described(settings: Mapping[str, Any]) -> Model:
    """Return the model of a config, as plain data; what an older config lacks has its default."""
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
    """Refuse, without a download, a model that cannot be loaded as it is meant.

    Its folders are broken or of another kind, its repositories out of reach (which takes at most 3
    seconds), or it has no stage to tune.
    """
    if absent := [stage for stage in tuned if stage not in model.stages]:
        raise Refused(
            f"{model.name} has no stage {absent[0]} to tune; it has {', '.join(model.stages)}: "
            "use stage=cascade or stage=base"
        )
    for stage in model.stages:
        if (folder := model.folder(stage)) is not None:
            check_stage(model, stage, folder)
        elif isinstance(source := model.source(stage), Repo):
            hub.ask(source)


def check_stage(model: Model, stage: str, folder: Path) -> None:
    """Refuse the folder of a stage that could not be run as it is meant (`stage_folder`)."""
    names, of, variant = model.parts(stage), model.family, model.variant
    first = folder if stage == model.stages[0] else model.folder(model.stages[0])
    stage_folder.check(folder, names, of=of, variant=variant, first=first)


def folders(model: Model) -> dict[str, Path]:
    """Return every stage's pipeline folder; what the hub's cache lacks is downloaded."""
    found = {}
    for stage in model.stages:
        source, names = model.folder(stage) or model.source(stage), model.parts(stage)
        if isinstance(source, Repo):
            source = hub.download(source, names, variant=model.variant)
        check_stage(model, stage, source)
        found[stage] = source
    return found
