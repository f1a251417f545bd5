"""What each part learns on a GPU from a batch of scenes, how good it is on those that it never sees, and how it is written.

The losses are those of the CPU training, from token ids in place of strings, and wait for the GPU only where facts are compared.
"""

import random
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from transformers import T5Tokenizer

from unitune.diffusion.schedule import Schedule
from unitune.metrics.judge import Judge, load_judge, read_facts, save_judge
from unitune.pretrain import networks
from unitune.pretrain.gpu.data import Facts, batch
from unitune.pretrain.gpu.towers import build_towers, contrastive_loss, save_towers
from unitune.pretrain.gpu.world import Part, World
from unitune.pretrain.tasks import DenoiseTask, TextTask, fact_loss, pixels
from unitune.pretrain.watch import held_out_error, sample
from unitune.scenes import caption, random_scene

CHOICES = 16  # captions among which the CLIP finds the right one
RECENT = 8  # batches from which the statistics of batch normalisation are taken anew


class Learner(Protocol):
    """A network in training; `size` of the pictures it reads, `generator` of all that its loss draws."""

    @property
    def network(self) -> nn.Module: ...  # noqa: D102
    @property
    def size(self) -> int | None: ...  # noqa: D102
    @property
    def generator(self) -> torch.Generator: ...  # noqa: D102

    def loss(self, facts: Facts, image: Tensor | None, resolution: int) -> Tensor:
        """Return the loss on scenes that lie on the device."""
        ...

    def look(self, resolution: int) -> dict[str, float]:
        """Measure the network on compositions that training never sees."""
        ...

    def export(self, folder: Path) -> None:
        """Write the network as the package reads it."""
        ...


def _refresh(network: nn.Module, pictures: deque[Tensor]) -> None:
    """Measure batch normalisation's statistics under the present weights; without pictures they stay as training left them."""
    if pictures:
        update_bn(list(pictures), network)


class TextLearner:
    """The T5 encoder, as TextTask trains it, from ids instead of strings."""

    def __init__(self, world: World) -> None:
        self.size = None
        self.world, self.task = world, TextTask(world.device)
        self.network = self.task.network
        self.generator = torch.Generator(world.device)
        self.longest = max(int((facts.ids > 0).sum(dim=1).max()) for facts in (world.facts, world.unseen))

    def loss(self, facts: Facts, image: Tensor | None, resolution: int) -> Tensor:
        """Facts from the mean of the states of the tokens."""
        ids = facts.ids[:, : self.longest].long()
        mask = (ids > 0)[..., None]
        states = self.network["encoder"](ids, attention_mask=mask[..., 0].long())[0]  # type: ignore[operator]
        return fact_loss(self.network["heads"]((states * mask).sum(1) / mask.sum(1)), batch(facts, None))  # type: ignore[operator]

    @torch.no_grad()
    def look(self, resolution: int) -> dict[str, float]:
        """The loss on unseen captions."""
        return {"unseen_loss": float(self.loss(self.world.unseen, None, resolution))}

    def export(self, folder: Path) -> None:
        """Write tokenizer and encoder."""
        self.task.export(folder)


def damaged(image: Tensor, generator: torch.Generator) -> Tensor:
    """Make clean pictures look a little like samples, as the judge's CPU training does; the blur's strength is Python's draw, for which no GPU is awaited."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand((len(image), 1, 1, 1), generator=generator, device=image.device) * (high - low) + low

    side = image.shape[-1]
    smaller = random.randrange(side * 5 // 8, side * 7 // 8)
    blurred = F.interpolate(F.interpolate(image, (smaller, smaller), mode="area"), image.shape[-2:], mode="bilinear", align_corners=False)
    x = torch.where(uniform(0.0, 1.0) < 0.25, blurred, image) * uniform(0.88, 1.12) + uniform(-0.12, 0.12)
    sigma = uniform(-0.12, 0.12).clamp(min=0)
    return (x + sigma * torch.randn(image.shape, generator=generator, device=image.device)).clamp(-1, 1)


class JudgeLearner:
    """The judge."""

    def __init__(self, world: World) -> None:
        self.size = 64
        self.world, self.network = world, Judge().to(world.device)
        self.generator = torch.Generator(world.device)
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def loss(self, facts: Facts, image: Tensor | None, resolution: int) -> Tensor:
        """Cross entropies of all facts of damaged pictures."""
        assert image is not None
        x = damaged(pixels(image, self.world.device), self.generator).contiguous(memory_format=torch.channels_last)
        self.recent.append(x)
        with torch.autocast(self.world.device.type, torch.bfloat16):
            logits = self.network(x)
        return fact_loss({name: value.float() for name, value in logits.items()}, batch(facts, None))

    @torch.no_grad()
    def look(self, resolution: int) -> dict[str, float]:
        """Shares of right answers on unseen scenes."""
        _refresh(self.network, self.recent)
        self.network.eval()
        wanted = batch(self.world.unseen, None)
        logits = self.network(pixels(self.world.unseen_image, self.world.device))
        self.network.train()
        right = {name: logits[name].argmax(dim=1) == getattr(wanted, name) for name in ("place", "time", "style", "count")}
        right["nouns"] = ((logits["nouns"] > 0) == (wanted.nouns > 0)).all(dim=1)
        return {name: float(hits.float().mean()) for name, hits in right.items()}

    def export(self, folder: Path) -> None:
        """Write the judge."""
        _refresh(self.network, self.recent)
        save_judge(self.network, folder)


class ClipLearner:
    """A pocket CLIP."""

    def __init__(self, world: World, text: Path) -> None:
        self.size = 64
        self.world, self.tokenizer = world, T5Tokenizer.from_pretrained(text / "tokenizer")
        self.network = build_towers(self.tokenizer).to(world.device)
        self.generator = torch.Generator(world.device)
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def loss(self, facts: Facts, image: Tensor | None, resolution: int) -> Tensor:
        """Which caption belongs to which picture."""
        assert image is not None
        x = pixels(image, self.world.device)
        self.recent.append(x)
        return contrastive_loss(self.network, x, facts.words.long())

    @torch.no_grad()
    def look(self, resolution: int) -> dict[str, float]:
        """Share of unseen pictures whose caption is found among CHOICES."""
        _refresh(self.network.visual, self.recent)
        self.network.eval()
        with_words = torch.nonzero(self.world.unseen.words[:, 1] > 0).flatten()
        with_words = with_words[: len(with_words) // CHOICES * CHOICES]
        pictures = F.normalize(self.network.encode_image(pixels(self.world.unseen_image[with_words], self.world.device)), dim=1)
        texts = F.normalize(self.network.encode_text(self.world.unseen.words[with_words].long()), dim=1)
        self.network.train()
        pick = (pictures.unflatten(0, (-1, CHOICES)) @ texts.unflatten(0, (-1, CHOICES)).mT).argmax(dim=2)
        return {f"caption_of_{CHOICES}": float((pick == torch.arange(CHOICES, device=pick.device)).float().mean())} if len(with_words) else {}

    def export(self, folder: Path) -> None:
        """Write the CLIP with its tokenizer."""
        _refresh(self.network.visual, self.recent)
        save_towers(self.network, self.tokenizer, folder)


def denoise_loss(task: DenoiseTask, image: Tensor, ids: Tensor, resolution: int) -> Tensor:
    """DenoiseTask's loss from ids instead of strings; nothing in it waits for the GPU. The same draws in the same order: on equal input it is equal."""
    generator, n, side = task.generator, len(ids), image.shape[-1]
    t = torch.randint(task.schedule.T, (n,), generator=generator, device=task.device)
    x_0, low, level = pixels(image, task.device), None, None
    if task.low_resolution:
        low = F.interpolate(F.interpolate(x_0, scale_factor=0.25, mode="area"), (side, side), mode="bilinear", align_corners=False)
        corners = torch.randint(side - resolution + 1, (n, 2), generator=generator, device=task.device)
        at = torch.arange(resolution, device=task.device) + corners[..., None]
        index = torch.arange(n, device=task.device)[:, None, None], slice(None), at[:, 0, :, None], at[:, 1, None, :]
        x_0, low = (x[index].permute(0, 3, 1, 2).contiguous() for x in (x_0, low))
        level = torch.randint(task.schedule.T, (n,), generator=generator, device=task.device)
    elif side != resolution:
        x_0 = F.interpolate(x_0, (resolution, resolution), mode="area")
    eps = torch.randn(x_0.shape, generator=generator, device=task.device)
    x_t = task.schedule.add_noise(x_0, eps, t)
    if low is not None and level is not None:
        x_t = torch.cat([x_t, task.schedule.add_noise(low, torch.randn(low.shape, generator=generator, device=task.device), level)], dim=1)
    with torch.no_grad():
        text = task.encoder(ids.long(), attention_mask=(ids > 0).long())[0]
    error = (task.output(x_t, t, text, level) - task.schedule.v(x_0, eps, t)).square().mean(dim=(1, 2, 3))
    return (error * networks.LOSS.weights(task.schedule, t).to(error)).mean()


class DenoiseLearner:
    """The base stage, or the super-resolution stage on crops."""

    def __init__(self, world: World, work: Path, name: str) -> None:
        self.world, self.judge = world, work / "judge" / "export"
        network = networks.sr_unet() if name == "sr256" else networks.base_unet()
        self.task = DenoiseTask(world.device, network=network, text_folder=work / "text" / "export", low_resolution=name == "sr256")
        self.task.schedule = Schedule(self.task.schedule.alpha_bar.to(world.device))  # on the CPU every use would wait for the GPU
        self.network, self.size, self.generator = self.task.network, self.task.size, self.task.generator

    def loss(self, facts: Facts, image: Tensor | None, resolution: int) -> Tensor:
        """Min-SNR weighted error of v."""
        assert image is not None
        return denoise_loss(self.task, image, facts.ids, resolution)

    @torch.no_grad()
    def look(self, resolution: int) -> dict[str, float]:
        """Error of x_0; of the base stage also what the judge finds in samples of one object."""
        count = self.world.plan.looked
        scores = {"error": held_out_error(self.task, resolution=resolution, count=count)}
        if not self.task.low_resolution and (self.judge / "config.json").exists():
            rng = np.random.default_rng(2)
            scenes = [random_scene(rng, held_out=True, counts=(1.0,)) for _ in range(count)]
            pictures = sample(self.task, [caption(scene) for scene in scenes], resolution=resolution)
            found: list[Any] = read_facts(load_judge(self.judge).to(self.world.device), F.interpolate(pictures, (64, 64), mode="bilinear"))
            scores["noun"] = float(np.mean([scene.objects[0].noun in f["nouns"] for scene, f in zip(scenes, found, strict=True)]))
            scores["place"] = float(np.mean([scene.place == f["place"] for scene, f in zip(scenes, found, strict=True)]))
        return scores

    def export(self, folder: Path) -> None:
        """Write the UNet."""
        self.task.export(folder)


def learner(part: Part, world: World, work: Path) -> Learner:
    """Build a part's network; `work` holds the folders of the parts that it needs."""
    if part.name == "text":
        return TextLearner(world)
    if part.name == "judge":
        return JudgeLearner(world)
    return ClipLearner(world, work / "text" / "export") if part.name.startswith("clip") else DenoiseLearner(world, work, part.name)
