"""Our loop beside stock diffusers pipelines, in one run: time and memory as ratios, medians of 3, as a Markdown table.

Command:  make bench  (python experiments/bench_stock.py --repeat 3; --only sampling-64 for one row)
Claim:    the one loop costs nothing over the pipelines that it replaces: time <= 1.05, peak memory <= 1.0, and 16 samples in one call <= 0.6 of 16 calls.
Fair:     the same files, float32, network evaluations (counted), batch, steps, guidance in one doubled batch, and prompt embeddings made beforehand; except in
          the last rows, where each call gets its prompt as a person would give it, and the very last, where ours may use bf16 as the main job does.
          Runs alternate ours, theirs, theirs, ours, ours, theirs after one of each.
          CPU time stands beside the clock, because another program on the machine changes the clock. Memory is the peak of a fresh process after its model is
          loaded and one run is done; also what the run added to that process.
Minutes:  about 3 on two CPU cores. Appends to experiments/records/bench_stock.jsonl.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unitune.diffusion.guidance import Guidance
from unitune.diffusion.sampler import Sampler
from unitune.diffusion.sampling import SuperResolution
from unitune.diffusion.steps import DDIM, DDPM, Step, Threshold
from unitune.models import cascade as backend  # first: it makes torchvision importable
from unitune.models import machine, tiny
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.types import Draw, Example, Request, Tuned

HERE = Path(__file__).parent
POCKET = HERE.parent / "src/unitune/assets/pocket"
RECORDS = HERE / "records" / "bench_stock.jsonl"
PROMPTS = ("a dog in the snow", "a cat on a beach", "a red car in a city", "an owl in a forest")
WEIGHT = 4.0
# glibc moves its own threshold between heap and mapped blocks as a program goes, and the peak of a row by 30 %; fixed, what is freed is given back at once.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
SCHEDULER = {
    "variance_type": "fixed_small",
    "timestep_spacing": "trailing",
}  # of IF, as our loop steps


@dataclass(frozen=True)
class Case:
    """One row: two ways to the same pictures. `ours` and `theirs` load a model and return what is timed, and the network that is counted."""

    name: str
    target: float  # of the time ratio
    ours: Callable[["Size"], tuple[Callable[[], object], Any]]
    theirs: Callable[["Size"], tuple[Callable[[], object], Any]]
    memory_target: float | None = 1.0


@dataclass(frozen=True)
class Size:
    """How much is sampled."""

    batch: int = 4
    steps: int = 16
    seeds: int = 4  # of each prompt, in the last row


@dataclass
class Given:
    """A first stage that has its picture already, so that the stage above it is measured alone."""

    picture: torch.Tensor
    schedule: Any
    name: str = "given"
    resolution: int = 64
    threshold: Threshold = dataclasses.field(default_factory=lambda: Threshold(1.0, 1.0))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def decode(self, x_0: torch.Tensor) -> torch.Tensor:
        return x_0

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        return self.picture.expand(len(x_t), -1, -1, -1)

    def upsampled(self, low: torch.Tensor) -> torch.Tensor:
        return low

    def base_weights(self) -> AbstractContextManager[None]:
        return nullcontext()

    def attention(self, editor: object) -> AbstractContextManager[None]:
        return nullcontext()


def loaded(
    folder: Path, stages: tuple[str, ...], dtype: torch.dtype = torch.float32
) -> backend.Cascade:
    return backend.load(folder.name, folder, stages=stages, device=torch.device("cpu"), dtype=dtype)


def sampling(
    cascade: backend.Cascade,
    prompts: tuple[str, ...],
    seeds: int,
    *,
    steps: int,
    step: Step,
    sr: SuperResolution | None = None,
) -> Callable[[], object]:
    """Return one call of our sampler."""
    side = cascade.resolution
    example = Example(
        "bench", torch.zeros(1, 3, side, side), tuple(Request(prompt) for prompt in prompts)
    )
    draws = [Draw(request, seed) for request in example.requests for seed in range(seeds)]
    sampler = Sampler(
        "bench",
        template="{edit}",
        steps=steps,
        guidance=Guidance(WEIGHT),
        step=step,
        sr=sr or SuperResolution(),
        max_pixels=2**30,
    )
    return lambda: sampler(cascade, example, tuned=Tuned(), draws=draws)


def pipeline(kind: type, folder: Path) -> Any:
    """Load a stock IF pipeline that steps as our loop does, without its picture checker and watermark."""
    from diffusers import DDPMScheduler

    absent = {
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }
    pipe = kind.from_pretrained(folder, local_files_only=True, **absent)
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, **SCHEDULER)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embedded(pipe: Any, size: Size) -> dict[str, object]:
    """Make the prompts' embeddings as a stock pipeline takes them."""
    embeds, negative = pipe.encode_prompt(
        list(PROMPTS[: size.batch]), do_classifier_free_guidance=True, clean_caption=False
    )
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "guidance_scale": WEIGHT,
        "num_inference_steps": size.steps,
        "output_type": "pt",
    }


def ours_64(size: Size) -> tuple[Callable[[], object], Any]:
    cascade = loaded(POCKET, ("base",))
    cascade.encode([*PROMPTS, ""])
    return sampling(
        cascade, PROMPTS[: size.batch], 1, steps=size.steps, step=DDPM()
    ), cascade.stages[0].network


def theirs_64(size: Size) -> tuple[Callable[[], object], Any]:
    from diffusers import IFPipeline

    pipe = pipeline(IFPipeline, POCKET / "base")
    call = embedded(pipe, size)
    return lambda: pipe(**call), pipe.unet


def ours_256(size: Size) -> tuple[Callable[[], object], Any]:
    cascade = loaded(POCKET, ("base", "sr256"))
    sr = cascade.stages[1]
    cascade.encode([*PROMPTS, ""])
    cascade.stages = [Given(torch.zeros(1, 3, 64, 64), sr.schedule), sr]  # type: ignore[list-item]
    how = SuperResolution(
        steps=size.steps, step=DDPM(), guidance=Guidance(WEIGHT), noise_level=0.25
    )
    run = sampling(cascade, PROMPTS[: size.batch], 1, steps=1, step=DDIM(), sr=how)
    return run, sr.network


def theirs_256(size: Size) -> tuple[Callable[[], object], Any]:
    from diffusers import IFPipeline, IFSuperResolutionPipeline

    base, pipe = (
        pipeline(IFPipeline, POCKET / "base"),
        pipeline(IFSuperResolutionPipeline, POCKET / "sr256"),
    )  # as ours, both are in memory
    call = embedded(base, size) | {"image": torch.zeros(size.batch, 3, 64, 64), "noise_level": 250}
    return lambda: (base, pipe(**call)), pipe.unet


def ours_latent(size: Size) -> tuple[Callable[[], object], Any]:
    from unitune.models.files import Model

    folder = tiny.sd15(Path(tempfile.mkdtemp()) / "tiny")
    cascade = backend.build(
        Model("tiny", ("base",), family="stable_diffusion", path=str(folder)),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    cascade.encode([*PROMPTS, ""])
    return sampling(
        cascade, PROMPTS[: size.batch], 1, steps=size.steps, step=DDIM()
    ), cascade.stages[0].network


def theirs_latent(size: Size) -> tuple[Callable[[], object], Any]:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = tiny.sd15(Path(tempfile.mkdtemp()) / "tiny")
    pipe: Any = StableDiffusionPipeline.from_pretrained(
        folder,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    pipe.set_progress_bar_config(disable=True)
    embeds, negative = pipe.encode_prompt(list(PROMPTS[: size.batch]), "cpu", 1, True)
    call = {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "guidance_scale": WEIGHT,
        "num_inference_steps": size.steps,
        "output_type": "pt",
    }
    return lambda: pipe(**call), pipe.unet


def ours_many(size: Size, dtype: torch.dtype = torch.float32) -> tuple[Callable[[], object], Any]:
    cascade = loaded(POCKET, ("base",), dtype)
    run = sampling(cascade, PROMPTS[: size.batch], size.seeds, steps=size.steps, step=DDPM())
    return lambda: (cascade.embeddings.clear(), run()), cascade.stages[0].network


def ours_many_as_shipped(size: Size) -> tuple[Callable[[], object], Any]:
    return ours_many(size, machine.precision("auto", torch.device("cpu")))


def theirs_many(size: Size) -> tuple[Callable[[], object], Any]:
    from diffusers import IFPipeline

    pipe = pipeline(IFPipeline, POCKET / "base")
    call = {
        "guidance_scale": WEIGHT,
        "num_inference_steps": size.steps,
        "output_type": "pt",
        "clean_caption": False,
    }
    seeds = [
        (prompt, torch.Generator().manual_seed(seed))
        for prompt in PROMPTS[: size.batch]
        for seed in range(size.seeds)
    ]
    return lambda: [
        pipe(prompt, generator=generator, **call).images for prompt, generator in seeds
    ], pipe.unet


CASES = (
    Case("sampling-64", 1.05, ours_64, theirs_64), Case("sampling-256", 1.05, ours_256, theirs_256), Case("sampling-latent", 1.05, ours_latent, theirs_latent),
    Case("4x4-in-one-call", 0.6, ours_many, theirs_many, memory_target=None),
    Case("4x4-in-one-call, machine=auto", 0.6, ours_many_as_shipped, theirs_many, memory_target=None),
)  # fmt: skip


def evaluations(network: Any, run: Callable[[], object]) -> int:
    """Count the pictures that pass through a network in one run."""
    seen: list[int] = []
    handle = network.register_forward_pre_hook(
        lambda _module, arguments: seen.append(len(arguments[0]))
    )
    run()
    handle.remove()
    return sum(seen)


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    began, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - busy


def compare(case: Case, size: Size, repeat: int) -> dict[str, Any]:
    """Measure one row."""
    sides = {"ours": case.ours(size), "theirs": case.theirs(size)}
    counts = {
        side: evaluations(network, run) for side, (run, network) in sides.items()
    }  # also warms up
    assert counts["ours"] == counts["theirs"], f"{case.name}: unequal network evaluations {counts}"
    clock: dict[str, list[float]] = {"ours": [], "theirs": []}
    busy: dict[str, list[float]] = {"ours": [], "theirs": []}
    for k in range(repeat):
        for side in ("ours", "theirs") if k % 2 == 0 else ("theirs", "ours"):
            seconds, cpu = timed(sides[side][0])
            clock[side].append(seconds)
            busy[side].append(cpu)
    memory = (
        {side: [in_fresh_process(case, size, side) for _ in range(repeat)] for side in sides}
        if case.memory_target
        else {}
    )
    record: dict[str, Any] = {
        "experiment": "bench_stock",
        "case": case.name,
        "target": case.target,
        "memory_target": case.memory_target,
    }
    record |= {
        "size": dataclasses.asdict(size),
        "evaluations": counts["ours"],
        "seconds": clock,
        "cpu_seconds": busy,
        "memory_mib": memory,
    }
    record |= {
        "ratio": ratio(clock),
        "cpu_ratio": ratio(busy),
        "memory_ratio": ratio({s: [m["peak"] for m in memory[s]] for s in memory})
        if memory
        else None,
    }
    return record | {
        "added_ratio": ratio({s: [m["added"] for m in memory[s]] for s in memory})
        if memory
        else None,
        "environment": environment(),
    }


def ratio(values: dict[str, list[float]]) -> float:
    """Divide the medians."""
    return statistics.median(values["ours"]) / max(1e-9, statistics.median(values["theirs"]))


def in_fresh_process(case: Case, size: Size, side: str) -> dict[str, float]:
    """Peak MiB of a process that does nothing but one side of a row."""
    sizes = [f"--{name}={value}" for name, value in dataclasses.asdict(size).items()]
    command = [
        sys.executable,
        __file__,
        "--one",
        side,
        "--only",
        case.name,
        "--threads",
        str(torch.get_num_threads()),
        *sizes,
    ]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR
    )
    return json.loads(done.stdout.splitlines()[-1])


def memory(case: Case, size: Size, side: str) -> dict[str, float]:
    """Peak of a second run, and what that was above the loaded model."""
    run, _ = (case.ours if side == "ours" else case.theirs)(size)
    reset_peak()
    before = peak_memory_mib()
    run()
    peak = peak_memory_mib()
    return {"peak": peak, "added": peak - before}


def environment() -> dict[str, object]:
    import diffusers

    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def row(record: dict[str, Any]) -> str:
    medians = [statistics.median(record["seconds"][side]) for side in ("ours", "theirs")]
    more = (
        ""
        if record["memory_ratio"] is None
        else f"{record['memory_ratio']:.3f} (<= {record['memory_target']:g})"
    )
    added = "" if record["added_ratio"] is None else f"{record['added_ratio']:.2f}"
    cells = (
        record["case"],
        record["evaluations"],
        *(f"{m:.2f}" for m in medians),
        f"{record['ratio']:.3f} (<= {record['target']:g})",
        f"{record['cpu_ratio']:.3f}",
    )
    return "| " + " | ".join(map(str, (*cells, more, added))) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one row")
    parser.add_argument("--one", choices=["ours", "theirs"], help="print one side's memory as JSON")
    for field in dataclasses.fields(Size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--dry", action="store_true", help="write no record")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = Size(options.batch, options.steps, options.seeds)
    chosen = [case for case in CASES if options.only in (None, case.name)]
    if options.one:
        print(json.dumps(memory(chosen[0], size, options.one)))
        return
    print(
        "| case | network evaluations | ours, s | stock, s | time ratio | CPU time ratio | peak memory ratio | ratio of what sampling adds |\n|"
        + "---|" * 8
    )
    for case in chosen:
        record = compare(case, size, options.repeat)
        print(row(record), flush=True)
        if not options.dry:
            with RECORDS.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
