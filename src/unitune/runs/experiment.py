"""One run: example -> tuned -> edits -> scores -> records."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitune import metrics
from unitune.runs import pictures, reference_rows, results, texts
from unitune.runs.folder import begun, finish, note
from unitune.runs.parts import Experiment, Logger
from unitune.runs.progress import Bars
from unitune.runs.results import Sample, TuningResult
from unitune.runs.selection import Choice
from unitune.storage import records
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.storage.records import TUNING_COSTS, Record
from unitune.tuning import make, visibility
from unitune.tuning.visibility import Visibility
from unitune.types import Draw, Edit, Example, Inactive, Refused

if TYPE_CHECKING:
    from unitune.models.cascade import Cascade
    from unitune.tuning.finetune import StepDone

log = logging.getLogger(__name__)


def run(parts: Experiment, examples: Sequence[Example], *, folder: Path) -> list[Record]:
    """Tune (or recall), sample, save, score and record every example.

    The pictures of all examples have the cascade's resolution. Images that an interrupted run of
    this folder has recorded are kept as they are. Returns the records, those of reference rows
    included.
    """
    _check_sizes(parts.cascade, examples)
    done = begun(folder)
    known = {record.example for record in done}
    # All at once: a large encoder is read once and freed before any network trains.
    parts.cascade.embed(texts.of_run(parts, [one for one in examples if one.id not in known]))
    metrics.write_cards(parts.metrics, folder)
    stems = pictures.stems(examples)
    with _closed(parts.logger):
        for k, example in enumerate(examples):
            if example.id in known:
                log.info("%s is here already", example.id)
                continue
            _warn(texts.advice(parts, example))
            visible = _visible(parts, example)
            tuned_apart = _apart(parts, example)
            with Bars() as bars:
                found = [_sampled(parts, one, example, bars, visible) for one in tuned_apart]
            results.note(folder, found)
            done += _record(parts, example, found, folder, stem=stems[example.id])
            name = "grid.png" if len(examples) == 1 else f"grid-{k:03}.png"
            pictures.grid(parts.plan, example, found, folder / name)
            note(folder, done)
        finish(folder)
    return done


def _check_sizes(cascade: "Cascade", examples: Sequence[Example]) -> None:
    for example in examples:
        if (size := example.image.shape[-1]) != cascade.resolution:
            raise Refused(
                f"pictures were read at {size} px, but {cascade.name} makes "
                f"{cascade.resolution} px: set model.resolution={cascade.resolution}"
            )


@contextmanager
def _closed(logger: Logger | None) -> Iterator[None]:
    """End a logger however the run ends: the curves until then are kept."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what stopped the run is what is told, and a signal stays one
            if logger is not None:
                logger.finalize("failed")
        raise
    if logger is not None:
        logger.finalize("success")


def _apart(parts: Experiment, example: Example) -> list[Example]:
    """Return the example, or one for each of its requests where a tuning serves only one."""
    if not parts.method.recipe(example).per_request:
        return [example]
    return [replace(example, requests=(request,)) for request in example.requests]


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        log.warning("%s", line)


def _visible(parts: Experiment, example: Example) -> Visibility | None:
    """Measure before tuning whether the model sees the text that the image is to be tied to."""
    compared = texts.compared(parts, example)
    if compared is None:
        return None
    found = visibility.measure_before(
        parts.cascade, example, compared, method=parts.method.name, seed=parts.seed
    )
    _warn(found.warnings(parts.cascade.name))
    return found


def _sampled(
    parts: Experiment, example: Example, whole: Example, bars: Bars, visible: Visibility | None
) -> TuningResult:
    """Tune, or recall the tuning; sample; choose. `whole` has all edits of the image."""
    reset_peak()
    cascade, recipe = parts.cascade, parts.method.recipe(example)
    tuned = make.prepare(
        recipe,
        cascade,
        example,
        store=parts.store,
        seed=parts.seed,
        at=parts.snapshot,
        report=_report(bars, parts.logger, example),
    )
    if reason := make.inactive(recipe, cascade, tuned):
        raise Inactive(f"{parts.method.name} did nothing for {example.id}: {reason}")
    if tuned.about:
        log.info("the tuning prompt is %r", tuned.about)
    tuning = {name: getattr(tuned.cost, field) for name, field in TUNING_COSTS.items()}
    samples: list[Sample] = []

    def sample(draws: Sequence[Draw], row: str = "redrawn") -> list[Edit]:
        reset_peak()
        began, before = time.monotonic(), cascade.evaluations
        edits = parts.sampler(cascade, example, tuned=tuned, draws=draws, progress=bars.sampling)
        cost = {
            "seconds": (time.monotonic() - began) / len(edits),
            "peak_mib": peak_memory_mib(),
            "evaluations": (cascade.evaluations - before) / len(edits),
        }
        samples.extend(Sample(edit, row, cost | tuning) for edit in edits)
        return edits

    with cascade.using(tuned):
        edits = sample(parts.plan.draws(example, parts.seed), "edit")
        chosen: Sequence[Choice] = ()
        if parts.selection is not None:
            chosen = parts.selection(edits, example=whole, redraw=sample)
    if visible is not None:
        said = visible.warnings(cascade.name)
        prompts = [edit.prompt for edit in edits]
        visible = visibility.measure_after(
            cascade, example, visible, prompts, tuned=tuned, seed=parts.seed
        )
        _warn(visible.warnings(cascade.name)[len(said) :])
    return TuningResult(tuned, samples, chosen, visible)


def _report(bars: Bars, logger: Logger | None, example: Example) -> "StepDone":
    """Show a tuning step and, where there is a logger, note its loss."""

    def report(stage: str, done: int, total: int, loss: float) -> None:
        bars.tuning(stage, done, total, loss)
        if logger is not None:
            logger.log_metrics({f"{example.id}/{stage}/loss": loss}, step=done)

    return report


def _record(
    parts: Experiment,
    example: Example,
    found: Sequence[TuningResult],
    folder: Path,
    *,
    stem: str,
) -> list[Record]:
    """Save the pictures as STEM-..., score them beside the reference rows."""
    edits = [sample.edit for result in found for sample in result.samples]
    references = reference_rows.model_free(example) + reference_rows.made(
        parts.cascade,
        parts.sampler,
        example,
        seeds=range(parts.seed * parts.oracle, (parts.seed + 1) * parts.oracle),
        weight=parts.plain_weight,
    )
    names = {id(edit): pictures.file_name(stem, "", k) for k, edit in enumerate(edits)}
    pictures.save(edits, names, folder, paste=parts.paste)
    for k, (row, edit) in enumerate(references):
        names[id(edit)] = pictures.file_name(stem, row, k)
    compared = [edit for _, edit in references]
    pictures.save(compared, names, folder, paste=None)
    scores = dict(zip(names, metrics.score(parts.metrics, edits + compared), strict=True))
    network = parts.cascade.stages[0]
    environment = records.environment(device=network.device, dtype=network.dtype)
    environment["batch"] = len(edits)
    mask = parts.sampler.mask.name if parts.sampler.mask is not None else ""
    origin: dict[str, Any] = {
        "method": parts.method.name,
        "sampler": parts.sampler.name,
        "saw_mask": mask,
    }
    rows: list[tuple[Sample, dict[str, Any]]] = [
        (sample, origin | {"steps": result.tuned.steps})
        for result in found
        for sample in result.rows()
    ]
    rows += [(Sample(edit, row), {}) for row, edit in references]
    done = []
    for sample, fields in rows:
        edit = id(sample.edit)  # a chosen sample has two records
        fields |= {"image": names[edit], "scores": scores[edit], "environment": environment}
        done.append(results.record(sample, folder, model=parts.cascade.name, **fields))
    return done
