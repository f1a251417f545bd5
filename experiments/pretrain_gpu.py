"""Trains every part of the pocket models on one large GPU in at most 20 minutes; scenes are made on the GPU. Needs neither hydra nor open_clip, but diffusers.

Command, where one call may last 10 minutes and processes of an own session outlive it (about 19 minutes in all):
  call 1: PYTHONPATH=src setsid nohup python experiments/pretrain_gpu.py --out /tmp/pocket/out > /tmp/pocket.log 2>&1 & sleep 560; tail /tmp/pocket.log
  call 2: for k in $(seq 56); do grep -q '"complete": true' /tmp/pocket/out/training.json && break; sleep 10; done; tail /tmp/pocket.log; cp /tmp/pocket/out/* $OUT
Where nothing outlives a call, run the same command in both calls with `--minutes-call 9.2`; it stops by itself and goes on from its checkpoint (OUT.work).
SIGTERM saves and exits 143; the same command goes on. OUT always holds the mean weights of the last minute: at most 8 files, each below 16 MiB.
Afterwards, anywhere: python experiments/pretrain_gpu.py --unpack OUT outputs/pretrain-gpu; then part=assemble with folder=outputs/pretrain-gpu.

Expected: NOT MEASURED ON A GPU YET: speeds, learning rates and shares of minutes are guesses. Counted: a training step of the base stage takes 15.5 GFLOP a
picture at 64 px and 4.2 at 32 px, so that 60 TFLOP/s would be 3,900 and 14,000 pictures a second: 1.1 million at 64 px and 3.1 million at 32 px in the plan.
`--small` runs everything in seconds on a CPU and means nothing as a model.
Writes OUT/weights-*.tar (the exported folders), OUT/training.json (samples, minutes, held-out scores every minute), OUT/samples.png.
"""

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

from unitune.compat import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402

from unitune import machine  # noqa: E402
from unitune.backends.floyd import FloydStage  # noqa: E402
from unitune.diffusion.loop import Condition, denoise  # noqa: E402
from unitune.diffusion.schedule import Schedule  # noqa: E402
from unitune.diffusion.start import first_image  # noqa: E402
from unitune.diffusion.steps import DDIM, Threshold, levels  # noqa: E402
from unitune.errors import Refused  # noqa: E402
from unitune.figures.grid import labelled_grid  # noqa: E402
from unitune.images import to_uint8  # noqa: E402
from unitune.pocket import SR  # noqa: E402
from unitune.pretrain import networks  # noqa: E402
from unitune.pretrain.gpu.files import pack, state_of, unpack  # noqa: E402
from unitune.pretrain.gpu.train import Clock, Training, train  # noqa: E402
from unitune.pretrain.gpu.world import Part, Phase, Plan, make_world  # noqa: E402
from unitune.pretrain.tasks import DenoiseTask  # noqa: E402
from unitune.pretrain.watch import sample  # noqa: E402

log = logging.getLogger("pretrain_gpu")
SHOWN = (
    "a dog on a beach", "a cat in a city at night", "a penguin in the snow", "a red car in a city", "an owl in a forest at sunset", "two crabs on a beach",
    "a robot behind a pumpkin on the moon", "a pencil sketch of a rocket in a desert",
)  # fmt: skip

PARTS = (
    Part("text", 1.0, 1e-3, (Phase(1, 64, 1024),)),
    Part("judge", 2.0, 2e-3, (Phase(1, 64, 512),)),
    Part("clip", 1.5, 2e-3, (Phase(1, 64, 1024),)),
    Part("clip2", 1.5, 2e-3, (Phase(1, 64, 1024),)),
    Part("base", 9.0, 2e-3, (Phase(0.45, 32, 512), Phase(1, 64, 256))),
    Part("sr256", 4.0, 2e-3, (Phase(1, 64, 256),)),
)


def small(plan: Plan) -> Plan:
    """Return a plan of the same parts that a CPU runs in seconds: batches of two, the base stage at 8 and 16 px."""
    parts = []
    for part in plan.parts:
        shrink = 4 if part.name == "base" else 1
        parts.append(dataclasses.replace(part, phases=tuple(Phase(p.until, p.resolution // shrink, 2) for p in part.phases)))
    return dataclasses.replace(plan, parts=tuple(parts), scenes=48, unseen=32, details=1, chunk=2, looked=1, steps=2)


def gallery(work: Path, file: Path, *, device: torch.device, count: int) -> None:
    """Draw the first `count` of SHOWN: the base stage's samples above, after super-resolution below."""
    text = work / "text" / "export"
    stages = {}
    for name in ("base", "sr256"):
        network: Any = UNet2DConditionModel.from_pretrained(work / name / "export", torch_dtype=torch.float32)
        stages[name] = DenoiseTask(device, network=network.eval().requires_grad_(False), text_folder=text, low_resolution=name == "sr256")
    side = 256
    captions: list[str] = list(SHOWN[:count])
    low = sample(stages["base"], captions, resolution=64)
    stage = FloydStage("sr256", side, stages["sr256"].network, Schedule.cosine(), networks.LOSS, Threshold(0.95, 1.0), low_resolution=64, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    noise, added = (torch.randn((len(captions), 3, side, side), generator=generator) for _ in range(2))
    level = torch.full((len(captions),), round(SR.noise_level * stage.schedule.T))
    origin, t = stage.upsampled(low), torch.full((len(captions),), stage.schedule.level(SR.start))
    condition = Condition(stages["sr256"].embed(tuple(captions)).cpu(), stage.schedule.add_noise(origin, added, level), level)
    steps = levels(stage.schedule, int(t[0]), SR.steps)[:, None].expand(-1, len(captions))
    x, ones = first_image(stage.schedule, origin, t, noise), torch.ones(len(captions))
    fine = denoise(stage, x, levels=steps, condition=condition, reference=condition, weight=ones, step=DDIM(), noise=lambda *_: noise)
    rows = [[to_uint8(picture[None]) for picture in pictures] for pictures in (low, fine)]
    labelled_grid(rows, row_labels=["base, 64 px", "sr256"], column_labels=captions, path=file, tile=160)


def run(plan: Plan, *, out: Path, work: Path, seed: int, device: torch.device, workers: int, minutes_total: float, clock: Clock, compiled: bool) -> bool:
    """Train all parts in order, each from where it stopped; say whether everything is finished."""
    finished = {part.name: bool(state_of(part, work).get("finished")) for part in plan.parts}
    world = make_world(plan, seed=seed, device=device, workers=workers) if not all(finished.values()) else None  # forks, so before the GPU is used
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    for part in plan.parts:
        if world is None or finished[part.name]:
            continue
        left = minutes_total - plan.minutes_reserved - clock.spent
        share = part.minutes / sum(p.minutes for p in plan.parts if not finished[p.name])
        training = Training(part, world, work / part.name, minutes=max(0.05, left * share))
        if compiled:
            training.pupil.network.compile()
        finished[part.name] = train(training, clock=clock, saved=lambda: pack(work, out, plan, finished=False, machine_name=name))
        if not finished[part.name]:
            return False
    gallery(work, out / "samples.png", device=device, count=min(len(SHOWN), plan.looked))
    pack(work, out, plan, finished=True, machine_name=name)
    log.info("finished after %.1f minutes in all: %s", clock.spent, out)
    return True


def main(arguments: list[str]) -> int:
    """Read the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description="Train the pocket models on one GPU.")
    parser.add_argument("--out", type=Path, help="what comes back: tar files of weights, training.json, samples.png")
    parser.add_argument("--work", type=Path, help="checkpoints; OUT.work unless given")
    parser.add_argument("--minutes-total", type=float, default=19.0, help="of all calls together")
    parser.add_argument("--minutes-call", type=float, default=float("inf"), help="stop by itself after so many minutes")
    parser.add_argument("--workers", type=int, help="processes that draw scenes at the start: one for each core, with --small none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks (not measured)")
    parser.add_argument("--small", action="store_true", help="a trial of everything on a CPU")
    parser.add_argument("--unpack", type=Path, nargs=2, metavar=("OUT", "FOLDER"), help="put what came back into FOLDER/PART/export")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        if chosen.unpack:
            unpack(*chosen.unpack)
            return 0
        if not chosen.out:
            raise Refused("--out is missing: name the folder for what comes back")
        if not chosen.small and not torch.cuda.is_available():
            raise Refused("this needs a GPU and torch sees none; --small tries everything on a CPU")
        plan, device = (small(Plan(PARTS)), torch.device("cpu")) if chosen.small else (Plan(PARTS), machine.device("cuda"))
        work = chosen.work or chosen.out.with_name(f"{chosen.out.name}.work")
        work.mkdir(parents=True, exist_ok=True)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        clock = Clock(work / "clock.json", chosen.minutes_call)
        with clock.listening():
            workers = chosen.workers if chosen.workers is not None else 0 if chosen.small else os.cpu_count()
            limits = {"workers": workers, "minutes_total": chosen.minutes_total, "clock": clock}
            if not run(plan, out=chosen.out, work=work, seed=chosen.seed, device=device, compiled=chosen.compile, **limits):
                log.info("stopped with everything saved; the same command goes on from here")
        return 128 + clock.signal if clock.signal else 0
    except Refused as refused:
        log.error("%s", refused)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
