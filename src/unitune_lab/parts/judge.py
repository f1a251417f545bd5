"""The judge learns the facts of lightly damaged renders."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unitune.metrics.judge import Judge, save_judge
from unitune.scenes.vocabulary import COLOURFUL

from unitune_lab.batches import STYLE, Batch, SceneBatches
from unitune_lab.parts.facts import fact_loss
from unitune_lab.parts.normalisation import Statistics


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Make clean renders (B, 3, S, S) look a little like samples.

    All change in brightness and contrast, a quarter are blurred slightly, half become noisy.
    """

    def uniform(low: float, high: float) -> Tensor:
        u = torch.rand((len(image), 1, 1, 1), generator=generator).to(image.device)
        return u * (high - low) + low

    side = image.shape[-1]
    span = (side * 5 // 8, side * 7 // 8)
    smaller = int(torch.randint(*span, (), generator=generator))
    blurred = F.interpolate(image, (smaller, smaller), mode="area")
    blurred = F.interpolate(blurred, (side, side), mode="bilinear", align_corners=False)
    x = torch.where(uniform(0.0, 1.0) < 0.25, blurred, image)
    x = x * uniform(0.88, 1.12) + uniform(-0.12, 0.12)
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return (x + uniform(-0.12, 0.12).clamp(min=0) * noise).clamp(-1, 1)


class JudgePart:
    """The judge of unitune.metrics.judge with this world's words."""

    size, captions, resolutions = 64, "plain", (64,)
    reads = ""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        judge: Any = Judge()
        self.network: nn.Module = judge.to(device, memory_format=torch.channels_last)
        damage = torch.Generator()
        self.statistics = Statistics(device, lambda x: augment(x, damage))

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the cross entropies of all facts."""
        generator = torch.Generator().manual_seed(seed)
        x = augment(batch.pictures(self.device), generator)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(x.contiguous(memory_format=torch.channels_last))
        return fact_loss({name: value.float() for name, value in logits.items()}, batch)

    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Return shares of right answers on clean renders of unseen compositions."""
        self.statistics.renew(network)
        network.eval()
        return accuracies(network, count=512, seed=1)

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the judge."""
        self.statistics.renew(network)
        save_judge(network, folder)  # type: ignore[arg-type]


def accuracies(judge: nn.Module, *, count: int, seed: int) -> dict[str, float]:
    """Return the shares of right answers; see `answers`."""
    told = answers(judge, count=count, seed=seed)
    return {name: sum(hits) / len(hits) for name, hits in told.items()}


@torch.no_grad()
def answers(judge: nn.Module, *, count: int, seed: int) -> dict[str, list[bool]]:
    """Say which answers of a judge in eval mode are right on clean renders of unseen compositions.

    `nouns` asks for the whole set of nouns, `colours` for that of colours in coloured styles,
    `side` whether an object that stands clearly left or right is said to stand there, and `all`
    for the nouns, the colours, the place, the time, the style and the count at once.
    """
    device = next(judge.parameters()).device
    right: dict[str, list[Tensor]] = {}
    batches = SceneBatches(seed=seed, batch_size=64, size=64, captions="plain", held_out=True)
    colourful = torch.tensor([STYLE[style] for style in COLOURFUL])
    for k in range(-(-count // 64)):
        batch = batches.batch(k)
        logits = {name: value.cpu() for name, value in judge(batch.pictures(device)).items()}
        nouns = ((logits["nouns"] > 0) == (batch.nouns > 0)).all(dim=1)
        painted = (logits["colours"] > 0) == (batch.colours.amax(dim=1) > 0)
        known = batch.side >= 0
        single = {
            name: logits[name].argmax(dim=1) == getattr(batch, name)
            for name in ("place", "time", "style", "count")
        }
        coloured = torch.isin(batch.style, colourful)
        told = {
            "nouns": nouns, "colours": painted.all(dim=1)[coloured], **single,
            "side": ((logits["side"] > 0) == (batch.side > 0))[known],
            "all": nouns & painted.all(dim=1) & torch.stack(list(single.values())).all(dim=0),
        }  # fmt: skip
        for name, hits in told.items():
            right.setdefault(name, []).append(hits)
    return {name: torch.cat(hits).tolist() for name, hits in right.items()}
