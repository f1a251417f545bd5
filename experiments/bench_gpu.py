"""What tuning and sampling cost on one GPU at the real sizes, with random weights: speed, memory, share of the card's own bf16 rate; a Markdown table.

Command:  PYTHONPATH=src python experiments/bench_gpu.py CONFIGS --base IF-I-XL --sr IF-II-L --out outputs/bench_gpu
          CONFIGS/IF-I-XL/unet/config.json and CONFIGS/IF-II-L/unet/config.json are the networks' settings in the diffusers format; no weights are read.
Claim:    both stages tune at the paper's 128 x 4 on one large card; random weights cost what trained ones do.
Method:   64 and 256 px, AdamW in its fused form, bf16 autocast over float32 weights, whole pictures unless --crop; a step is what `unitune.tuning` does. FLOP are counted
          by torch on one step and set against the best rate of bf16 matrix products measured in this run. An edit is --steps steps of each stage with guidance.
          --checkpointing recomputes activations. After an out-of-memory error a row says so, and the next one follows.
Needs:    torch, diffusers, transformers, pytorch-lightning; neither hydra nor open_clip. `--device cpu` tries everything on small configurations.
Minutes:  about 4 on one large GPU (guess: not measured yet). Writes OUT/bench_gpu.jsonl with the card's name and versions.
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
from diffusers import UNet2DConditionModel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from unitune.diffusion.guidance import Guidance  # noqa: E402
from unitune.diffusion.loss import StageLoss  # noqa: E402
from unitune.diffusion.sampler import Sampler  # noqa: E402
from unitune.diffusion.sampling import SuperResolution  # noqa: E402
from unitune.diffusion.schedule import Schedule  # noqa: E402
from unitune.diffusion.steps import DDPM, Threshold  # noqa: E402
from unitune.models.families.floyd import FloydStage  # noqa: E402
from unitune.storage.cost import peak_memory_mib, reset_peak  # noqa: E402
from unitune.tuning.data import OneImage  # noqa: E402
from unitune.tuning.finetune import Tuning, fit  # noqa: E402
from unitune.types import Draw, Example, Request, Tuned  # noqa: E402

TOKENS = 77


class Random:
    """A cascade of random networks; prompts become random embeddings of the width that the first network reads."""

    def __init__(self, stages: list[FloydStage]) -> None:
        self.stages = stages
        self.width = int(
            stages[0].network.config["encoder_hid_dim"]
            or stages[0].network.config["cross_attention_dim"]
        )

    def encode(self, texts: list[str]) -> torch.Tensor:
        return torch.randn(
            (len(texts), TOKENS, self.width), generator=torch.Generator().manual_seed(0)
        )


def stage(
    file: Path, name: str, *, low_resolution: int, device: torch.device, checkpointing: bool
) -> FloydStage:
    """Build a network of this shape with small random weights on the device, without a second copy anywhere."""
    with torch.device(device):
        network: Any = UNet2DConditionModel.from_config(json.loads(file.read_text()))
    network = network.eval().requires_grad_(False)
    if checkpointing:
        network.enable_gradient_checkpointing()
    side, dtype = int(network.config.sample_size), torch.bfloat16
    return FloydStage(
        name,
        side,
        network,
        Schedule.cosine(),
        StageLoss("epsilon"),
        Threshold(0.95, 1.5),
        low_resolution=low_resolution,
        dtype=dtype,
    )


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


def tuning(
    cascade: Random, which: FloydStage, example: Example, *, steps: int, batch_size: int, crop: int
) -> dict[str, float]:
    """Tune one stage as the main job does: steps a second after the first, peak MiB, FLOP of a step."""
    device, settings = (
        which.device,
        Tuning(lr=1e-6, steps=steps, batch_size=batch_size, crop=crop, snapshots=()),
    )
    data = OneImage(which, example, cascade.encode(["beikkpic"]), 0, batch_size, settings.dials)
    counted = flop(which, data)
    began: list[float] = []

    def report(name: str, done: int, total: int, loss: float) -> None:
        wait(device)
        began.append(time.perf_counter())

    reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        fit(data, settings, folder=Path(folder), report=report)
    rate = (len(began) - 1) / (began[-1] - began[0])
    return {
        "steps_per_second": rate,
        "peak_mib": peak_memory_mib(),
        "flop_per_step": counted,
        "seconds_of_128": 128 / rate,
    }


def flop(which: FloydStage, data: OneImage) -> float:
    """Count the FLOP of one step's forward and backward as torch does: matrix products, convolutions, attention."""
    batch = data.batch(0)
    which.network.requires_grad_(True)
    try:
        with FlopCounterMode(display=False) as counter:
            batch.loss(which.output(batch.x_t, batch.t, batch.condition)).backward()
    finally:
        which.network.requires_grad_(False)
        which.network.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def editing(cascade: Random, example: Example, *, steps: int, samples: int) -> dict[str, float]:
    """Sample edits through both stages with guidance: seconds an edit, peak MiB."""
    sr = SuperResolution(steps=steps, step=DDPM(), guidance=Guidance(4.0))
    sampler = Sampler(
        "bench",
        template="{edit}",
        steps=steps,
        guidance=Guidance(8.0),
        sr=sr,
        max_pixels=samples * 2**16,
    )
    draws = [Draw(example.requests[0], seed) for seed in range(samples)]
    reset_peak()
    began = time.perf_counter()
    sampler(cascade, example, tuned=Tuned(), draws=draws)
    wait(cascade.stages[0].device)
    return {
        "seconds_per_edit": (time.perf_counter() - began) / samples,
        "peak_mib": peak_memory_mib(),
    }


def tried(measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Measure, or say that memory did not suffice."""
    try:
        return measure()
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
    speed = (
        f"{record['steps_per_second']:.2f} steps/s"
        if "steps_per_second" in record
        else f"{record['seconds_per_edit']:.2f} s an edit"
    )
    share = (
        f"{100 * record['share_of_matrix_rate']:.0f} %" if "share_of_matrix_rate" in record else ""
    )
    whole = f"{record['seconds_of_128']:.0f} s" if "seconds_of_128" in record else ""
    return (
        f"| {record['what']} | {speed} | {whole} | {record['peak_mib'] / 1024:.2f} GiB | {share} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", type=Path, help="folder of NAME/unet/config.json")
    parser.add_argument("--base", default="IF-I-XL", help="NAME of the 64 px network")
    parser.add_argument("--sr", default="IF-II-L", help="NAME of the 64->256 px network")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_gpu"))
    parser.add_argument(
        "--tuning-steps", type=int, default=16, help="measured; the table extrapolates to 128"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--crop", type=int, default=0, help="px of super-resolution's crops; 0 = whole pictures"
    )
    parser.add_argument("--steps", type=int, default=32, help="sampling steps of each stage")
    parser.add_argument("--samples", type=int, default=4, help="edits in one call")
    parser.add_argument(
        "--matrix",
        type=int,
        default=8192,
        help="side of the matrices that the rate is measured with",
    )
    parser.add_argument(
        "--checkpointing", action="store_true", help="recompute activations in the backward pass"
    )
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    card = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "diffusers", "transformers", "pytorch-lightning")
    }
    about = {
        "experiment": "bench_gpu",
        "card": card,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": versions,
        "arguments": {},
    }
    about["arguments"] = {name: str(value) for name, value in vars(chosen).items()}
    rate = matrix_rate(device, side=chosen.matrix)
    print(
        f"{card}, {', '.join(f'{name} {version}' for name, version in versions.items())}; bf16 matrix products: {rate / 1e12:.1f} TFLOP/s\n"
    )
    print(
        "| what | speed | 128 steps | peak memory | share of the matrix rate |\n|---|---|---|---|---|",
        flush=True,
    )
    chosen.out.mkdir(parents=True, exist_ok=True)

    def measured(what: str, measure: Callable[[], dict[str, float]]) -> None:
        record = about | {"what": what, "matrix_flop_per_second": rate} | tried(measure)
        if "flop_per_step" in record:
            record["share_of_matrix_rate"] = (
                record["flop_per_step"] * record["steps_per_second"] / rate
            )
        print(row(record), flush=True)
        with (chosen.out / "bench_gpu.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def built(name: str, kind: str, low_resolution: int) -> FloydStage:
        return stage(
            chosen.configs / name / "unet/config.json",
            kind,
            low_resolution=low_resolution,
            device=device,
            checkpointing=chosen.checkpointing,
        )

    how = {"steps": chosen.tuning_steps, "batch_size": chosen.batch_size}
    base = built(chosen.base, "base", 0)
    cascade = Random([base])
    side = int(
        json.loads((chosen.configs / chosen.sr / "unet/config.json").read_text())["sample_size"]
    )
    picture = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    example = Example("bench", picture, (Request("a dog"),))
    size = sum(p.numel() for p in base.network.parameters()) / 1e9
    measured(
        f"tune {chosen.base} ({size:.2f} B), batch {chosen.batch_size}",
        lambda: tuning(cascade, base, example, crop=0, **how),
    )
    base.network.to("cpu")  # a stage is tuned with its own weights alone on the card
    sr = built(chosen.sr, "sr256", base.resolution)
    size = sum(p.numel() for p in sr.network.parameters()) / 1e9
    measured(
        f"tune {chosen.sr} ({size:.2f} B), batch {chosen.batch_size}",
        lambda: tuning(cascade, sr, example, crop=chosen.crop, **how),
    )
    base.network.to(device)
    cascade.stages = [base, sr]
    measured(
        f"edit at {side} px, {chosen.steps} + {chosen.steps} steps, {chosen.samples} in one call",
        lambda: editing(cascade, example, steps=chosen.steps, samples=chosen.samples),
    )


if __name__ == "__main__":
    main()
