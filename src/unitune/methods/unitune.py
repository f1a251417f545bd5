"""UniTune (arXiv 2210.09477): tune the base and the 64->256 stage on the pair (image, rare token), nothing else in the loss."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unitune import parameters, prompts
from unitune.backends.cascade import Cascade
from unitune.cost import peak_memory_mib
from unitune.parameters import Sizes
from unitune.store import Store
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import StepDone, Tuning, fit, snapshot_file
from unitune.types import Cost, Example, Refused, Tuned

RANDOM = "{random}"


@dataclass(frozen=True)
class UniTune:
    """`prompt` is the tuning prompt: rare tokens, "{caption}" for the description variant, "{random}" for DreamBooth's rule.

    `stages` are tuned, each as `tune` says.
    """

    tune: Mapping[str, Tuning]
    stages: Sequence[str] = ("base", "sr256")
    prompt: str = "beikkpic"
    name: str = "unitune"
    template: str = "{rare} {edit}"
    per_request: bool = False

    def __post_init__(self) -> None:
        if missing := [stage for stage in self.stages if stage not in self.tune]:
            raise Refused(f"no tuning settings for stage {missing[0]!r}; method.tune has {', '.join(self.tune)}")

    def room(self, sizes: Sizes, *, at: int | None) -> tuple[int, int]:
        """Count float32 bytes: every kept snapshot; while tuning once more, and a checkpoint of the network and two moments of what is tuned, written aside."""
        kept = working = 0
        for stage, counts in sizes.items():
            if stage in self.stages and self.tune[stage].steps:
                tuned = sum(counts[name] for name in self.tune[stage].select.chosen(list(counts)))
                kept += 4 * tuned * len(self.tune[stage].kept)
                working = max(working, 2 * 4 * (sum(counts.values()) + 2 * tuned))
        return (0, 0) if at == 0 else (kept, kept + working)

    def rare(self, cascade: Cascade, example: Example, *, seed: int) -> str:
        """Return the tuning prompt: as it is, a caption, or drawn by the seed."""
        if self.prompt == RANDOM:
            return prompts.random_rare_token(cascade.pieces, seed=seed)
        return prompts.fill(self.prompt, rare="", edit="", caption=example.caption)

    def texts(self, cascade: Cascade, example: Example, *, seed: int) -> list[str]:
        """List the tuning prompt."""
        return [self.rare(cascade, example, seed=seed)]

    def inactive(self, cascade: Cascade, tuned: Tuned) -> str:
        """Compare the weights with the base's."""
        return unmoved(cascade, tuned)

    def prepare(self, cascade: Cascade, example: Example, *, store: Store, seed: int, at: int | None, report: StepDone | None) -> Tuned:
        """Tune each stage for its steps, or read the stored result. The sampler, the edit prompts and `at` never tune again."""
        prompt = self.rare(cascade, example, seed=seed)
        tune = {stage: self.tune[stage] for stage in self.stages}
        if at == 0:
            return Tuned(prompt)
        key = {
            "recipe": "unitune",
            "prompt": prompt,
            "tune": {stage: {"optimizer": type(t.optimizer).__name__} | asdict(t) for stage, t in tune.items()},
            "weights": cascade.digest,
            "arithmetic": [cascade.stage(stage).arithmetic for stage in tune],
            "seed": seed,
            "image": example.digest,
        }
        scratch = store.scratch("tuned", key)

        def build(folder: Path) -> None:
            began, before, steps = time.monotonic(), cascade.evaluations, 0
            for name, tuning in tune.items():
                data = OneImage(cascade.stage(name), example, cascade.encode([prompt]), seed, tuning.batch_size, tuning.crop)
                fit(data, tuning, folder=scratch, report=report)
                steps += tuning.steps
            for file in scratch.glob("*.safetensors"):
                shutil.copyfile(file, folder / file.name)
            losses = {name: json.loads((scratch / f"{name}-losses.json").read_text()) for name in tune if (scratch / f"{name}-losses.json").exists()}
            stored = sum(file.stat().st_size for file in folder.iterdir())
            made = Cost(time.monotonic() - began, peak_memory_mib(), steps, cascade.evaluations - before, stored)
            (folder / "tuning.json").write_text(json.dumps({"prompt": prompt, "cost": asdict(made), "losses": losses}))

        return load(store.get_or_make("tuned", key, build), tune=tune, at=at)


def load(folder: Path, *, tune: Mapping[str, Tuning], at: int | None) -> Tuned:
    """Read a stored tuning after `at` steps of each stage (None: the last)."""
    about = json.loads((folder / "tuning.json").read_text())
    weights = {}
    for name, tuning in tune.items():
        step = tuning.steps if at is None else at
        if step == 0:
            continue
        if step not in tuning.kept:
            raise Refused(f"no snapshot of {name} at {step} steps; kept are {tuning.kept}: change snapshot= or snapshots=")
        weights[name] = parameters.load(snapshot_file(folder, name, step))
    steps = max((tuning.steps if at is None else at for tuning in tune.values()), default=0)
    return Tuned(about["prompt"], weights, steps=steps, cost=Cost(**about["cost"]))


def unmoved(cascade: Cascade, tuned: Tuned) -> str:
    """Name the tuned stages whose weights all equal the base's, "" where there is none."""
    still = [name for name, weights in tuned.weights.items() if not cascade.stage(name).moved(weights)]
    return f"no weight of {' and '.join(still)} moved in {tuned.steps} steps; use a larger lr" if still else ""
