"""The story in one function: example -> tuned -> edits -> scores -> records."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unitune import metrics, prompts
from unitune.diffusion.sampler import Sampler
from unitune.runs import outcome, reference_rows
from unitune.runs.outcome import Sample, Samples
from unitune.runs.paste import Paste
from unitune.runs.plans import Plan
from unitune.runs.progress import Bars
from unitune.runs.selection import Selection
from unitune.storage import records
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.storage.records import Record
from unitune.storage.store import Store
from unitune.tuning import make, naming, visibility
from unitune.tuning.visibility import Texts, Visibility
from unitune.types import Draw, Edit, Example, Inactive, Metric, Refused

if TYPE_CHECKING:
    from unitune.methods import Method
    from unitune.models.cascade import Cascade
    from unitune.tuning.finetune import StepDone

log = logging.getLogger(__name__)


class Logger(Protocol):
    """Where curves go; Lightning's loggers fit."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...  # noqa: D102
    def finalize(self, status: str) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Setting:
    """The parts of one run."""

    cascade: "Cascade"
    method: "Method"
    sampler: Sampler
    metrics: Sequence[Metric]
    store: Store
    plan: Plan
    seed: int = 0
    oracle: int = 0  # samples of the oracle's reference row for each edit whose target is known
    plain_weight: float | None = (
        None  # of the oracle's guidance: the model's own; None: the sampler's
    )
    snapshot: int | None = None  # sample the weights after so many steps of the tuning
    logger: Logger | None = None
    selection: Selection | None = None
    paste: Paste | None = None  # puts edits back into the photograph that they were cut from


def run(setting: Setting, examples: Sequence[Example], *, folder: Path) -> list[Record]:
    """Tune (or recall), sample, save, score and record every example, all of the cascade's resolution; return the records, reference rows included."""
    resolution = setting.cascade.resolution
    if wrong := next(
        (example for example in examples if example.image.shape[-1] != resolution), None
    ):
        raise Refused(
            f"pictures were read at {wrong.image.shape[-1]} px, but {setting.cascade.name} makes {resolution} px: set model.resolution={resolution}"
        )
    setting.cascade.embed(_texts(setting, examples))
    metrics.write_cards(setting.metrics, folder)
    done: list[Record] = []
    with _logged(setting.logger):
        for k, example in enumerate(examples):
            _advise(setting, example)
            visible = _visible(setting, example)
            with Bars() as bars:
                taken = [
                    _take(setting, part, example, bars, visible)
                    for part in _parts(setting, example)
                ]
            outcome.note(folder, taken)
            done += _record(setting, example, taken, folder)
            outcome.grid(
                setting.plan,
                example,
                taken,
                folder / ("grid.png" if len(examples) == 1 else f"grid-{k:03}.png"),
            )
    return done


@contextmanager
def _logged(logger: Logger | None) -> Iterator[None]:
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


def _parts(setting: Setting, example: Example) -> list[Example]:
    """The example, or one for each of its requests where a tuning serves only one."""
    return (
        [replace(example, requests=(request,)) for request in example.requests]
        if setting.method.recipe(example).per_request
        else [example]
    )


def _visible(setting: Setting, example: Example) -> Visibility | None:
    """Measure before tuning whether the model sees the text that the image is to be tied to; say it where it does not."""
    if (texts := _compared(setting, example)) is None:
        return None
    seen = visibility.measure_before(
        setting.cascade, example, texts, method=setting.method.name, seed=setting.seed
    )
    for line in seen.warnings(setting.cascade.name):
        log.warning("%s", line)
    return seen


def _compared(setting: Setting, example: Example) -> Texts | None:
    apart = naming.apart(
        setting.method.recipe(example), setting.cascade, example, seed=setting.seed
    )
    return None if apart is None else visibility.compared(example, apart)


def _take(
    setting: Setting, example: Example, whole: Example, bars: Bars, visible: Visibility | None
) -> Samples:
    """Tune, or recall the tuning; sample; choose. `whole` has all edits of the image."""
    reset_peak()
    report = _report(bars, setting.logger, example)
    recipe = setting.method.recipe(example)
    tuned = make.prepare(
        recipe,
        setting.cascade,
        example,
        store=setting.store,
        seed=setting.seed,
        at=setting.snapshot,
        report=report,
    )
    if reason := make.inactive(recipe, setting.cascade, tuned):
        raise Inactive(f"{setting.method.name} did nothing for {example.id}: {reason}")
    if tuned.about:
        log.info("the tuning prompt is %r", tuned.about)
    tuning = {
        "tuning_seconds": tuned.cost.seconds, "tuning_peak_mib": tuned.cost.peak_mib, "optimizer_steps": tuned.cost.optimizer_steps,
        "tuning_evaluations": tuned.cost.network_evaluations, "stored_bytes": tuned.cost.stored_bytes,
    }  # fmt: skip
    samples: list[Sample] = []

    def sample(draws: Sequence[Draw], row: str = "redrawn") -> list[Edit]:
        reset_peak()
        began, before = time.monotonic(), setting.cascade.evaluations
        edits = setting.sampler(
            setting.cascade, example, tuned=tuned, draws=draws, progress=bars.sampling
        )
        seconds, evaluations = time.monotonic() - began, setting.cascade.evaluations - before
        cost = {
            "seconds": seconds / len(edits),
            "peak_mib": peak_memory_mib(),
            "evaluations": evaluations / len(edits),
        } | tuning
        samples.extend(Sample(edit, row, cost) for edit in edits)
        return edits

    with setting.cascade.using(tuned):
        edits = sample(setting.plan.draws(example, setting.seed), "edit")
        chosen = (
            []
            if setting.selection is None
            else setting.selection(edits, example=whole, redraw=sample)
        )
    if visible is not None:
        asked = [edit.prompt for edit in edits]
        after = visibility.measure_after(
            setting.cascade, example, visible, asked, tuned=tuned, seed=setting.seed
        )
        for line in after.warnings(setting.cascade.name)[
            len(visible.warnings(setting.cascade.name)) :
        ]:
            log.warning("%s", line)
        visible = after
    return Samples(tuned, samples, chosen, visible)


def _texts(setting: Setting, examples: Sequence[Example]) -> list[str]:
    """List every text of a run, so that a large encoder is read once and freed before any network trains; Refused where the sampler could not use one."""
    found: dict[str, None] = {}
    for example in examples:
        recipe, draws = setting.method.recipe(example), setting.plan.draws(example, setting.seed)
        texts = make.texts(recipe, setting.cascade, example, seed=setting.seed)
        names = naming.named(recipe, setting.cascade, example, seed=setting.seed)
        setting.sampler.check(setting.cascade, example, draws, tuned=names)
        drawn = setting.sampler.texts(example, draws, tuned=names)
        compared = _compared(setting, example)
        beside = [*([] if compared is None else compared.all()), *reference_rows.texts(example)]
        found.update(
            dict.fromkeys(beside if texts is None else [*texts, *drawn, *beside])
        )  # a word that is yet to be learned cannot be embedded
    return list(found)


def _report(bars: Bars, logger: Logger | None, example: Example) -> "StepDone":
    """Show a tuning step and, where there is a logger, note its loss."""

    def report(stage: str, done: int, total: int, loss: float) -> None:
        bars.tuning(stage, done, total, loss)
        if logger is not None:
            logger.log_metrics({f"{example.id}/{stage}/loss": loss}, step=done)

    return report


def _record(
    setting: Setting, example: Example, taken: Sequence[Samples], folder: Path
) -> list[Record]:
    """Save the pictures, score them beside the reference rows, append the records."""
    edits = [sample.edit for one in taken for sample in one.samples]
    seeds = [setting.seed * setting.oracle + k for k in range(setting.oracle)]
    references = [
        *outcome.references(example),
        *reference_rows.made(
            setting.cascade, setting.sampler, example, seeds=seeds, weight=setting.plain_weight
        ),
    ]
    names = [f"{example.id}-{k:03}.png" for k in range(len(edits))]
    names += [outcome.picture_name(example, row, k) for k, (row, _) in enumerate(references)]
    pictures = [*edits, *(edit for _, edit in references)]
    outcome.save(edits, names[: len(edits)], folder, paste=setting.paste)
    outcome.save(pictures[len(edits) :], names[len(edits) :], folder, paste=None)
    scores = metrics.score(setting.metrics, pictures)
    place = {id(edit): k for k, edit in enumerate(pictures)}  # a chosen sample has two records
    network = setting.cascade.stages[0]
    environment = records.environment(device=network.device, dtype=network.dtype) | {
        "batch": len(edits)
    }
    mask = setting.sampler.mask.name if setting.sampler.mask is not None else ""
    rows = [
        (sample, setting.method.name, setting.sampler.name, one.tuned.steps, mask)
        for one in taken
        for sample in one.rows()
    ]
    rows += [(Sample(edit, row, {}), "", "", 0, "") for row, edit in references]
    done = []
    for sample, method, sampler, steps, saw in rows:
        edit, k = sample.edit, place[id(sample.edit)]
        record = Record(
            run=folder.name, method=method, sampler=sampler, model=setting.cascade.name, example=example.id,
            kind=edit.request.kind, local=edit.request.local, composed_alike=edit.request.composed_alike, prompt=edit.request.prompt, text=edit.prompt,
            seed=edit.seed, weight=edit.weight, start=edit.start, steps=steps, image=names[k], scores={**scores[k]}, cost=dict(sample.cost),
            environment=environment, row=sample.row, saw_mask=saw,
        )  # fmt: skip
        records.append(folder / "scores.jsonl", record)
        done.append(record)
    return done


def _advise(setting: Setting, example: Example) -> None:
    """Say what will not work as hoped: unknown words, prompts that are cut, a rare token that means something."""
    recipe = setting.method.recipe(example)
    names = naming.named(recipe, setting.cascade, example, seed=setting.seed)
    stands = not recipe.learns_text and prompts.puts_rare(
        setting.sampler.template or names.template
    )  # a learned word is no text of the tokenizer's
    meant = bool(example.caption.strip()) and names.prompt == prompts.clean(example.caption)
    told = {
        "tokenize": setting.cascade.tokenize,
        "known": setting.cascade.known,
        "max_tokens": setting.cascade.max_tokens,
    }
    for line in prompts.advice(
        rare=names.prompt if stands else "",
        edits=[request.prompt for request in example.requests],
        meant=meant,
        **told,
    ):
        log.warning("%s", line)
