"""DeepFloyd IF's real shapes tune on a processor: random weights, 2 steps of batch 4.

Command:  python experiments/bench/if_on_cpu.py CONFIG
          (CONFIG is the unet/config.json of IF-I-M or of any other IF-shaped stage; no weights)
Expected: two finite losses; IF-I-M (372 M parameters, float32, AdamW) holds weights, copies,
          gradients and two moments: about 7.5 GB before activations.
Found:    IF-I-M with its inferred channels: losses 1.087, 1.077; 78 s for both steps on two cores
          shared with other programs; peak memory 11.9 GiB.
Minutes:  about 2 for IF-I-M on two cores
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from unitune.diffusion.loss import StageLoss
from unitune.diffusion.schedule import Schedule
from unitune.diffusion.steps import Threshold
from unitune.models.stage import UNetStage
from unitune.storage.cost import peak_memory_mib, reset_peak
from unitune.tuning.data import OneImage
from unitune.tuning.finetune import fit
from unitune.tuning.optimizers import Adafactor, AdamW
from unitune.tuning.recipe import Tuning
from unitune.types import Example, Request

OPTIMIZERS = {"adamw": AdamW, "adafactor": Adafactor}


def random_stage(
    config: dict,
    device: torch.device | str = "cpu",
    *,
    low_resolution: int | None = None,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = True,
) -> UNetStage:
    """A stage with random weights in the shape of a config.

    They are made on the device, without a second copy; "meta" has the shape alone.
    """
    from diffusers import UNet2DConditionModel

    with torch.device(device):
        network: Any = UNet2DConditionModel.from_config(config)
    network = network.eval().requires_grad_(False)
    if checkpointing:
        network.enable_gradient_checkpointing()
    side = int(config["sample_size"])
    if low_resolution is None:
        low_resolution = side // 4 if config["in_channels"] == 6 else 0
    name = "sr256" if low_resolution else "base"
    loss, threshold = StageLoss("epsilon"), Threshold()
    return UNetStage(
        name, side, network, Schedule.cosine(), loss, threshold, low_resolution, dtype=dtype
    )


def tune(config: dict, *, steps: int = 2, batch_size: int = 4, optimizer: str = "adamw") -> dict:
    """Tune it on a random picture and a random text; return what it took."""
    torch.manual_seed(0)
    reset_peak()
    stage = random_stage(config)
    picture = torch.rand(1, 3, stage.resolution, stage.resolution) * 2 - 1
    example, text = Example("random", picture, (Request("anything"),)), config["encoder_hid_dim"]
    how = OPTIMIZERS[optimizer]()
    tuning = Tuning(lr=1e-6, steps=steps, batch_size=batch_size, optimizer=how, snapshots=())
    data = OneImage(stage, example, torch.randn(1, 77, text), 0, tuning)
    losses: list[float] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fit(data, folder=Path(folder), report=lambda *told: losses.append(told[-1]))
    return {
        "parameters": sum(p.numel() for p in stage.network.parameters()),
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
    how = {"steps": options.steps, "batch_size": options.batch, "optimizer": options.optimizer}
    made = tune(json.loads(options.config.read_text()), **how)
    print(
        f"{made['parameters'] / 1e6:.1f} M parameters, {options.steps} steps x batch "
        f"{options.batch}, {options.optimizer}, float32, checkpointed"
    )
    print(
        f"losses {[round(loss, 4) for loss in made['losses']]}, {made['seconds']:.1f} s, "
        f"peak memory {made['peak_mib'] / 1024:.2f} GiB"
    )


if __name__ == "__main__":
    main()
