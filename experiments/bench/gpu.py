"""What tuning and sampling cost on one GPU at the real sizes, with random weights.

Command:  PYTHONPATH=src python experiments/bench/gpu.py CONFIGS --base IF-I-XL --sr IF-II-L
          --out outputs/bench_gpu; CONFIGS/IF-I-XL/unet/config.json and
          CONFIGS/IF-II-L/unet/config.json are the networks' settings in the diffusers format; no
          weights are read.
Claim:    both stages tune at the paper's 128 x 4 on one large card; random weights cost what
          trained ones do.
Method:   64 and 256 px, AdamW in its fused form, bf16 autocast over float32 weights, whole pictures
          unless --crop; a step is what `unitune.tuning` does. FLOP are counted by torch on one step
          and set against the best rate of bf16 matrix products measured in this run. An edit is
          --steps steps of each stage with guidance. --checkpointing recomputes activations. After
          an out-of-memory error a row says so, and the next one follows.
Needs:    torch, diffusers, transformers, pytorch-lightning; neither hydra nor open_clip.
          `--device cpu` tries everything on small configurations.
Minutes:  about 4 on one large GPU (guess: not measured yet). Prints a Markdown table of speed,
          memory and share of the card's own bf16 rate; writes OUT/bench_gpu.jsonl with the card's
          name and versions.
"""

import argparse
import gc
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from if_on_cpu import random_stage  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from unitune.diffusion.guidance import Guidance  # noqa: E402
from unitune.diffusion.sampler import Sampler  # noqa: E402
from unitune.diffusion.sampling import SuperResolution  # noqa: E402
from unitune.diffusion.steps import DDPM  # noqa: E402
from unitune.models.stage import UNetStage  # noqa: E402
from unitune.storage.cost import peak_memory_mib, reset_peak  # noqa: E402
from unitune.tuning.data import OneImage  # noqa: E402
from unitune.tuning.finetune import fit  # noqa: E402
from unitune.tuning.recipe import Tuning  # noqa: E402
from unitune.types import Draw, Example, Request, Tuned  # noqa: E402

TOKENS = 77
Row = dict[str, float]


class Random:
    """A cascade of random networks; prompts become random embeddings of the width they read."""

    def __init__(self, stages: list[UNetStage]) -> None:
        self.stages = stages
        config = stages[0].network.config
        self.width = int(config["encoder_hid_dim"] or config["cross_attention_dim"])

    def encode(self, texts: list[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn((len(texts), TOKENS, self.width), generator=generator)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: torch.device, *, side: int, repeat: int = 20) -> float:
    """Measure bf16 matrix products: FLOP a second, the best of 3."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(4):  # the first one warms up
        wait(device)
        began = time.perf_counter()
        for _ in range(repeat):
            a @ b
        wait(device)
        best = max(best, 2 * side**3 * repeat / (time.perf_counter() - began))
    return best


def tuning(cascade: Random, stage: UNetStage, example: Example, settings: Tuning) -> Row:
    """Tune a stage as the main job does: steps a second after the first, peak MiB, FLOP a step."""
    text = cascade.encode(["beikkpic"])
    data = OneImage(stage, example, text, 0, settings)
    counted = flop(stage, data)
    ends: list[float] = []

    def report(*_: object) -> None:
        wait(stage.device)
        ends.append(time.perf_counter())

    reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        fit(data, folder=Path(folder), report=report)
    rate = (len(ends) - 1) / (ends[-1] - ends[0])
    return {
        "steps_per_second": rate,
        "peak_mib": peak_memory_mib(),
        "flop_per_step": counted,
        "seconds_of_128": 128 / rate,
    }


def flop(stage: UNetStage, data: OneImage) -> float:
    """Count the FLOP of a step's forward and backward: matrix products, convolutions, attention."""
    batch = data.batch(0)
    stage.network.requires_grad_(True)
    try:
        with FlopCounterMode(display=False) as counter:
            batch.loss(stage.output(batch.x_t, batch.t, batch.condition)).backward()
    finally:
        stage.network.requires_grad_(False)
        stage.network.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def editing(cascade: Random, example: Example, *, steps: int, samples: int) -> Row:
    """Sample edits through both stages with guidance: seconds an edit, peak MiB."""
    sr = SuperResolution(steps=steps, step=DDPM(), guidance=Guidance(4.0))
    pixels, guidance = samples * 2**16, Guidance(8.0)
    sampler = Sampler(
        "bench", template="{edit}", steps=steps, guidance=guidance, sr=sr, max_pixels=pixels
    )
    draws = [Draw(example.requests[0], seed) for seed in range(samples)]
    reset_peak()
    began = time.perf_counter()
    sampler(cascade, example, tuned=Tuned(), draws=draws)
    wait(cascade.stages[0].device)
    seconds = (time.perf_counter() - began) / samples
    return {"seconds_per_edit": seconds, "peak_mib": peak_memory_mib()}


def tried(measure: Callable[[], Row]) -> dict[str, Any]:
    """Measure, or say that memory did not suffice."""
    try:
        return dict(measure())
    except torch.OutOfMemoryError as error:
        return {"failed": str(error).splitlines()[0]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def row(record: dict[str, Any]) -> str:
    """Write one line of the table."""
    if "failed" in record:
        return f"| {record['what']} | out of memory | | | |"
    peak = f"{record['peak_mib'] / 1024:.2f} GiB"
    if "seconds_per_edit" in record:
        return f"| {record['what']} | {record['seconds_per_edit']:.2f} s an edit |  | {peak} |  |"
    speed = f"{record['steps_per_second']:.2f} steps/s | {record['seconds_of_128']:.0f} s"
    return f"| {record['what']} | {speed} | {peak} | {100 * record['share_of_matrix_rate']:.0f} % |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", type=Path, help="folder of NAME/unet/config.json")
    parser.add_argument("--base", default="IF-I-XL", help="NAME of the 64 px network")
    parser.add_argument("--sr", default="IF-II-L", help="NAME of the 64->256 px network")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_gpu"))
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    for name, default, told in (
        ("tuning-steps", 16, "measured; the table extrapolates to 128"),
        ("batch-size", 4, None),
        ("crop", 0, "px of super-resolution's crops; 0 = whole pictures"),
        ("steps", 32, "sampling steps of each stage"),
        ("samples", 4, "edits in one call"),
        ("matrix", 8192, "side of the matrices that the rate is measured with"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=told)
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    device = torch.device(chosen.device)
    card = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        card = torch.cuda.get_device_name()
    names = ("torch", "diffusers", "transformers", "pytorch-lightning")
    versions = {name: importlib.metadata.version(name) for name in names}
    rate = matrix_rate(device, side=chosen.matrix)
    about = {
        "experiment": "bench_gpu",
        "card": card,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": versions,
        "arguments": {name: str(value) for name, value in vars(chosen).items()},
    }
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{card}, {said}; bf16 matrix products: {rate / 1e12:.1f} TFLOP/s\n")
    print("| what | speed | 128 steps | peak memory | share of the matrix rate |")
    print("|---|---|---|---|---|", flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)

    def measured(what: str, measure: Callable[[], Row]) -> None:
        record = about | {"what": what, "matrix_flop_per_second": rate} | tried(measure)
        if "flop_per_step" in record:
            done = record["flop_per_step"] * record["steps_per_second"]
            record["share_of_matrix_rate"] = done / rate
        print(row(record), flush=True)
        with (chosen.out / "bench_gpu.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def tuned(name: str, stage: UNetStage, crop: int) -> None:
        size = sum(p.numel() for p in stage.network.parameters()) / 1e9
        steps, batch = chosen.tuning_steps, chosen.batch_size
        settings = Tuning(lr=1e-6, steps=steps, batch_size=batch, crop=crop, snapshots=())
        what = f"tune {name} ({size:.2f} B), batch {batch}"
        measured(what, lambda: tuning(cascade, stage, example, settings))

    first, second = (
        json.loads((chosen.configs / name / "unet/config.json").read_text())
        for name in (chosen.base, chosen.sr)
    )
    how = {"dtype": torch.bfloat16, "checkpointing": chosen.checkpointing}
    base = random_stage(first, device, low_resolution=0, **how)
    cascade, side = Random([base]), int(second["sample_size"])
    picture = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    example = Example("bench", picture, (Request("a dog"),))
    tuned(chosen.base, base, 0)
    base.network.to("cpu")  # a stage is tuned with its own weights alone on the card
    sr = random_stage(second, device, low_resolution=base.resolution, **how)
    tuned(chosen.sr, sr, chosen.crop)
    base.network.to(device)
    cascade.stages = [base, sr]
    steps = f"{chosen.steps} + {chosen.steps} steps"
    measured(
        f"edit at {side} px, {steps}, {chosen.samples} in one call",
        lambda: editing(cascade, example, steps=chosen.steps, samples=chosen.samples),
    )


if __name__ == "__main__":
    main()
