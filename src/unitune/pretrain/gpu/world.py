"""A training on a GPU as numbers, and the scenes that it learns from."""

import logging
import time
import zlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unitune.pretrain.gpu.data import Facts, draw, mapping
from unitune.pretrain.gpu.render import Banks, build_banks, render
from unitune.types import Refused

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """Pictures of one resolution in batches of one size until this share of the part is done."""

    until: float
    resolution: int
    batch_size: int


@dataclass(frozen=True)
class Part:
    """One network to train: its share of the minutes and its highest learning rate."""

    name: str
    minutes: float
    lr: float
    phases: tuple[Phase, ...]

    def phase(self, progress: float) -> Phase:
        """Return the phase at a share of the part."""
        return next((p for p in self.phases if progress < p.until), self.phases[-1])


@dataclass(frozen=True)
class Plan:
    """Everything that a run is made of; minutes are shares of what is left of the run's total."""

    parts: tuple[Part, ...]
    scenes: int = 2_000_000  # each met about 3 times by the base stage, every time with other details, noise and mirrored sprites
    unseen: int = 2048  # of held-out compositions, for the judge, the CLIPs and the text encoder
    details: int = 512  # backgrounds of each place and time: 3 GB
    chunk: int = 2048  # scenes drawn at once; a multiple of every batch size; a run stops and resumes between chunks
    looked: int = 64  # held-out scenes and samples at each look at a diffusion stage
    minutes_look: float = 1.0  # between looks, checkpoints and exports
    minutes_reserved: float = 0.6  # of the total, for the gallery at the end
    steps: int | None = None  # of each part at most, for trials

    def __post_init__(self) -> None:
        for part in self.parts:
            for phase in part.phases:
                if self.chunk % phase.batch_size:
                    raise Refused(f"part {part.name}: a chunk of {self.chunk} scenes is not a multiple of the batch size {phase.batch_size}")


@dataclass(frozen=True)
class World:
    """The scenes to learn from, in the computer's memory, and what they are drawn with, on the device."""

    plan: Plan
    seed: int
    device: torch.device
    facts: Facts
    named: Tensor  # rows of `facts` whose caption has words for the CLIP
    banks: Banks
    unseen: Facts  # of held-out compositions, on the device
    unseen_image: Tensor  # 64 px

    def chunk(self, part: Part, k: int, size: int | None) -> tuple[Facts, Tensor | None]:
        """Draw chunk k of a part on the device: known compositions and captions, new details and mirrored sprites."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {part.name} {k}".encode()))
        rows = torch.randint(len(self.named) if part.name.startswith("clip") else len(self.facts), (self.plan.chunk,), generator=generator)
        facts = self.facts.rows(self.named[rows] if part.name.startswith("clip") else rows)
        details = torch.randint(self.banks.details, (len(facts),), generator=generator).int()
        facts = replace(facts, seed=details, flip=torch.rand(facts.flip.shape, generator=generator) < 0.5)
        image = None if size is None else render(facts, self.banks, size=size, device=self.device)
        return facts.to(self.device), image


def make_world(plan: Plan, *, seed: int, device: torch.device, workers: int) -> World:
    """Draw facts and build the banks with so many processes, before the GPU is touched."""
    began = time.monotonic()
    with mapping(workers) as mapped:
        facts = draw(plan.scenes, seed=seed, held_out=False, mapped=mapped)
        unseen = draw(plan.unseen, seed=seed, held_out=True, mapped=mapped)
        log.info("%d scenes in %.0f s", len(facts), time.monotonic() - began)
        banks = build_banks([facts, unseen], details=plan.details, mapped=mapped).to(device)
    log.info("banks of %.1f GB; the world took %.0f s", (banks.scenery.numel() + banks.pixels.numel()) / 1e9, time.monotonic() - began)
    image = torch.cat([render(unseen.rows(slice(k, k + plan.chunk)), banks, size=64, device=device) for k in range(0, len(unseen), plan.chunk)])
    named = torch.nonzero(facts.words[:, 1] > 0).flatten()
    return World(plan, seed, device, facts, named, banks, unseen.to(device), image)
