"""DeepFloyd IF's real shapes tune on a processor: random weights in the exact shape, 2 steps of batch 4, with their memory and time.

Command:  python experiments/if_on_cpu.py CONFIG    (CONFIG is the unet/config.json of IF-I-M or of any other IF-shaped stage; weights are not needed)
Expected: two finite losses; IF-I-M (372 M parameters, float32, AdamW) holds weights, copies, gradients and two moments: about 7.5 GB before activations.
Found:    IF-I-M with its inferred channels: losses 1.087, 1.077; 78 s for both steps on two cores shared with other programs; peak memory 11.9 GiB.
Minutes:  about 2 for IF-I-M on two cores
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from unitune.diffusion.loss import StageLoss
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import Threshold
from unitune.models.stage import UNetStage
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import Tuning, fit
from unitune.tuning.optimizers import Adafactor, AdamW
from unitune.types import Example, Request

OPTIMIZERS = {"adamw": AdamW, "adafactor": Adafactor}


def random_stage(config: dict, device: str = "cpu") -> UNetStage:
    """A stage with random weights in the shape of a config; on the device "meta" it has the shape alone."""
    from diffusers import UNet2DConditionModel

    with torch.device(device):
        network = UNet2DConditionModel.from_config(config).eval().requires_grad_(False)
    network.enable_gradient_checkpointing()
    side, low = (
        config["sample_size"],
        config["sample_size"] // 4 if config["in_channels"] == 6 else 0,
    )
    return UNetStage(
        "sr256" if low else "base",
        side,
        network,
        Schedule.cosine(),
        StageLoss("epsilon"),
        Threshold(),
        low_resolution=low,
    )


def tune(config: dict, *, steps: int = 2, batch_size: int = 4, optimizer: str = "adamw") -> dict:
    """Tune it on a random picture and a random text; return what it took."""
    torch.manual_seed(0)
    reset_peak()
    stage = random_stage(config)
    side = stage.resolution
    example = Example("random", torch.rand(1, 3, side, side) * 2 - 1, (Request("anything"),))
    data = OneImage(stage, example, torch.randn(1, 77, config["encoder_hid_dim"]), 0, batch_size)
    losses: list[float] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tuning = Tuning(
            lr=1e-6,
            steps=steps,
            batch_size=batch_size,
            optimizer=OPTIMIZERS[optimizer](),
            snapshots=(),
        )
        fit(
            data,
            tuning,
            folder=Path(folder),
            report=lambda _stage, _done, _total, loss: losses.append(loss),
        )
    parameters = sum(p.numel() for p in stage.network.parameters())
    return {
        "parameters": parameters,
        "losses": losses,
        "seconds": time.perf_counter() - began,
        "peak_mib": peak_memory_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--optimizer", choices=sorted(OPTIMIZERS), default="adamw")
    options = parser.parse_args()
    made = tune(
        json.loads(options.config.read_text()),
        steps=options.steps,
        batch_size=options.batch,
        optimizer=options.optimizer,
    )
    print(
        f"{made['parameters'] / 1e6:.1f} M parameters, {options.steps} steps x batch {options.batch}, {options.optimizer}, float32, checkpointed"
    )
    print(
        f"losses {[round(loss, 4) for loss in made['losses']]}, {made['seconds']:.1f} s, peak memory {made['peak_mib'] / 1024:.2f} GiB"
    )


if __name__ == "__main__":
    main()
