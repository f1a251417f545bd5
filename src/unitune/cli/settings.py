"""What can be seen to be wrong in a config alone, as plain data, before anything is made of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitune.cli.targets import check_targets
from unitune.errors import Refused, number
from unitune.models import files

WHOLE = ("seed", "seeds", "oracle", "steps", "batch_size")  # whole numbers
NEEDED = (
    *("image", "edit", "benchmark", "model", "method", "sampler", "stage", "optimizer", "store"),
    *("snapshot", "selection", "paste", *WHOLE),
)


def check_settings(settings: Any) -> None:
    """Refuse settings of the main job that cannot work."""
    check_targets(settings)
    for fault in _faults(settings):
        raise Refused(fault)
    files.check(files.described(settings["model"]), tuned=settings["stage"]["tuned"])


def check_rescoring(settings: Any, metrics: Any) -> None:
    """Refuse to score an earlier run, of these settings, by the CLIP that chose its samples."""
    if clip := _chooses_and_scores(settings, metrics):
        raise Refused(
            f"selection={settings['selection']['name']} of that run chose by the CLIP that would "
            f"score ({clip}); score with another"
        )


def _faults(settings: Any) -> Iterator[str]:
    """Say what is wrong; a line may take for granted what the lines before it ask for."""
    if missing := [name for name in NEEDED if name not in settings]:
        holds = ", ".join(NEEDED)
        yield f"the settings hold no {missing[0]}; a run's config.yaml holds all of {holds}"
    benchmark = settings["benchmark"]
    name, own = benchmark["name"], benchmark["name"] == "image"
    if not own and not (settings["image"] is None and settings["edit"] is None):
        yield f"image= and edit= have no effect with benchmark={name}; leave one of them out"
    if not own and (given := [key for key in ("caption", "noun") if settings.get(key)]):
        yield (
            f"{given[0]}= describes one's own picture (image=FILE); benchmark={name} brings its "
            "own: leave it out, or change its edits.jsonl"
        )
    mask = (settings["sampler"].get("mask") or {}).get("name")
    if settings.get("mask_file") is not None and not (own and mask == "file"):
        yield (
            "mask_file= takes effect with image= and mask=file only; leave it out, or choose these"
        )
    if "path" in benchmark and benchmark["path"] is None:
        yield f"benchmark={name} needs a picture: image=FILE"
    if benchmark.get("caption") == "" and _needs_caption(settings):
        yield (
            "{caption} stands in a prompt of this method or sampler, and the picture has none; "
            "describe it: caption='a cat in a city'"
        )
    if settings.get("paste") and "prompts" not in benchmark:
        yield (
            "paste=true puts edits back into one's own picture (image=FILE, benchmark=photo); "
            f"benchmark={name} is of finished squares"
        )
    if clip := _chooses_and_scores(settings, settings.get("metrics")):
        yield (
            f"selection={settings['selection']['name']} would choose by the CLIP that scores "
            f"({clip}); set selection.clip to another"
        )
    for key in WHOLE:
        if type(settings[key]) is not int:  # nor a yes or no, which Python counts as one
            yield f"{key} must be a whole number, got {settings[key]!r}"
    for group, key in (("model", "resolution"), ("machine", "threads")):
        given = settings.get(group, {}).get(key, 0)
        if type(given) is not int:
            yield f"{group}.{key} must be a whole number, got {given!r}"
    if settings["oracle"] < 0:
        yield f"oracle must be 0 (no reference samples) or more of them, got {settings['oracle']}"
    store = settings["store"]
    if not isinstance(store, Mapping) or not {"path", "budget_gib"} <= {*store}:
        yield f"store must hold path and budget_gib, got {store!r}"
    budget = store["budget_gib"]
    if not (number(budget) and budget > 0):
        yield f"store.budget_gib must be a number above 0, got {budget!r}"


def _needs_caption(settings: Any) -> bool:
    """Whether a template asks for the caption where no rare token may take its place."""
    method = settings["method"]
    token = ("prompt", "token") if method.get("uncaptioned") or method.get("identifier") else ()
    templates = {name: value for name, value in method.items() if name not in token}
    return "{caption}" in f"{templates} {settings['sampler']}"


def _chooses_and_scores(settings: Any, metrics: Any) -> str:
    """Name a CLIP that both chooses samples and scores them; empty where there is none."""
    if not (selection := settings.get("selection")):
        return ""
    chooses = _real(selection["clip"])
    if chooses not in [_real(metric.get("clip")) for metric in metrics["use"]]:
        return ""
    return ", ".join(str(value) for key, value in chooses.items() if key != "_target_" and value)


def _real(clip: Any) -> dict[str, Any]:
    """Return the settings of a CLIP with real paths: two names of one folder are equal."""
    return {
        name: str(Path(value).resolve()) if name in ("folder", "file") and value else value
        for name, value in (clip or {}).items()
    }
