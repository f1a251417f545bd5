"""What each part learns: a loss on a batch of scenes, and how the trained part is written to the package."""

import copy
import json
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from unitune.diffusion.schedule import Schedule
from unitune.pretrain import networks
from unitune.pretrain.data import COLOUR, NOUN, PLACE, STYLE, TIME, Batch
from unitune.scenes.scene import MAX_OBJECTS


class Task(Protocol):
    """A part to train: `network` holds the trained weights, `size` the pictures it reads, `generator` draws whatever its loss needs (reseeded every step)."""

    @property
    def network(self) -> nn.Module: ...  # noqa: D102
    @property
    def size(self) -> int | None: ...  # noqa: D102
    @property
    def tokenizer(self) -> T5Tokenizer | None: ...  # noqa: D102
    @property
    def generator(self) -> torch.Generator: ...  # noqa: D102
    def loss(self, batch: Batch, resolution: int) -> Tensor: ...  # noqa: D102
    def export(self, folder: Path) -> None: ...  # noqa: D102


def pixels(image: Tensor, device: torch.device) -> Tensor:
    """Turn uint8 pictures into float32 in [-1, 1]."""
    return image.to(device).float().div_(127.5).sub_(1)


class FactHeads(nn.Module):
    """Linear heads that read the facts of a scene off a feature vector; `colours` tells which noun has which colour."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nouns, self.place, self.time, self.style = (nn.Linear(width, n) for n in (len(NOUN), len(PLACE), len(TIME), len(STYLE)))
        self.count, self.colours, self.side = nn.Linear(width, MAX_OBJECTS), nn.Linear(width, len(NOUN) * len(COLOUR)), nn.Linear(width, len(NOUN))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of every fact."""
        return {name: head(features) for name, head in self.named_children()}


def fact_loss(logits: dict[str, Tensor], batch: Batch) -> Tensor:
    """Sum the cross entropies of all facts; `colours` are told by noun or, by a judge with fewer logits, for the picture as a whole."""
    device = logits["nouns"].device
    binary = F.binary_cross_entropy_with_logits
    by_noun = logits["colours"].shape[1] > batch.colours.shape[2]
    colours = (batch.colours.flatten(1) if by_noun else batch.colours.amax(dim=1)).to(device)
    side, known = batch.side.to(device), batch.side.to(device) >= 0
    loss = 20 * binary(logits["nouns"], batch.nouns.to(device)) + (20 if by_noun else 1) * binary(logits["colours"], colours)
    if known.any():
        loss = loss + 0.5 * binary(logits["side"][known], side[known])
    return loss + sum(F.cross_entropy(logits[name], getattr(batch, name).to(device)) for name in ("place", "time", "style", "count"))


class TextTask:
    """The T5 encoder learns to tell the facts of a scene from its caption; afterwards it is frozen, as Imagen's is."""

    size = None

    def __init__(self, device: torch.device) -> None:
        self.device, self.generator = device, torch.Generator(device)
        self.tokenizer = networks.tokenizer()
        encoder = networks.text_encoder(len(self.tokenizer))
        self.network = nn.ModuleDict({"encoder": encoder, "heads": FactHeads(networks.TEXT_WIDTH)}).to(device)

    def loss(self, batch: Batch, resolution: int) -> Tensor:
        """Facts from the mean of the tokens' states."""
        tokens = self.tokenizer(list(batch.captions), padding=True, return_tensors="pt").to(self.device)
        states = self.network["encoder"](tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        mask = tokens.attention_mask[..., None]
        return fact_loss(self.network["heads"]((states * mask).sum(1) / mask.sum(1)), batch)

    def export(self, folder: Path) -> None:
        """Write `tokenizer` and `text_encoder` (float16 files that load as float32)."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        save_text_encoder(self.network["encoder"], folder / "text_encoder")


def save_text_encoder(encoder: nn.Module, folder: Path) -> None:
    """Save in float16; the config asks for float32, because transformers would compute in the file's type."""
    copy.deepcopy(encoder).half().save_pretrained(folder)  # type: ignore[operator]
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


class DenoiseTask:
    """A diffusion stage: v-prediction on the cosine schedule; with `low_resolution` the super-resolution stage, on crops of 64 px."""

    def __init__(self, device: torch.device, *, network: nn.Module, text_folder: Path, low_resolution: bool) -> None:
        self.device, self.network, self.low_resolution = device, network.to(device), low_resolution
        self.size = 256 if low_resolution else 64
        self.tokenizer = T5Tokenizer.from_pretrained(text_folder / "tokenizer")
        encoder: Any = T5EncoderModel.from_pretrained(text_folder / "text_encoder")
        self.encoder = encoder.requires_grad_(False).to(device)
        self.schedule = Schedule.cosine()
        self.generator = torch.Generator(device)

    def embed(self, captions: tuple[str, ...]) -> Tensor:
        """Encode captions as stock IF does: padded to 77 tokens, the mask inside T5 only."""
        lines = [c.lower().strip() for c in captions]
        tokens = self.tokenizer(lines, padding="max_length", max_length=networks.TEXT_LENGTH, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return self.encoder(tokens.input_ids.to(self.device), attention_mask=tokens.attention_mask.to(self.device))[0]

    def output(self, x: Tensor, t: Tensor, text: Tensor, level: Tensor | None = None) -> Tensor:
        """Run the network in bfloat16: v, float32."""
        with torch.autocast(self.device.type, torch.bfloat16):
            out = self.network(x.to(self.device).contiguous(memory_format=torch.channels_last), t.to(self.device), text.to(self.device), class_labels=level)
        return out.sample[:, :3].float().to(x.device)

    def error(self, batch: Batch, resolution: int, *, t: Tensor, noise: torch.Generator) -> Tensor:
        """Return each picture's mean squared error of v at level t, (B,)."""
        assert batch.image is not None
        x_0, low, level = pixels(batch.image, self.device), None, None
        if self.low_resolution:
            low = F.interpolate(F.interpolate(x_0, scale_factor=0.25, mode="area"), x_0.shape[-2:], mode="bilinear", align_corners=False)
            x_0, low = self._crop(x_0, low, resolution, noise)
            level = torch.randint(self.schedule.T, (len(x_0),), generator=noise, device=self.device)
        elif x_0.shape[-1] != resolution:
            x_0 = F.interpolate(x_0, (resolution, resolution), mode="area")
        eps = torch.randn(x_0.shape, generator=noise, device=self.device)
        x_t = self.schedule.add_noise(x_0, eps, t)
        if low is not None and level is not None:
            x_t = torch.cat([x_t, self.schedule.add_noise(low, torch.randn(low.shape, generator=noise, device=self.device), level)], dim=1)
        return (self.output(x_t, t, self.embed(batch.captions), level) - self.schedule.v(x_0, eps, t)).square().mean(dim=(1, 2, 3))

    def loss(self, batch: Batch, resolution: int) -> Tensor:
        """The stage's loss (networks.LOSS): the error of v, weighed by min-SNR, at uniform levels."""
        t = torch.randint(self.schedule.T, (len(batch.captions),), generator=self.generator, device=self.device)
        error = self.error(batch, resolution, t=t, noise=self.generator)
        return (error * networks.LOSS.weights(self.schedule, t).to(error)).mean()

    def _crop(self, x_0: Tensor, low: Tensor, side: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        corners = torch.randint(x_0.shape[-1] - side + 1, (len(x_0), 2), generator=noise, device=self.device).tolist()
        cut = [(x[:, i : i + side, j : j + side], y[:, i : i + side, j : j + side]) for x, y, (i, j) in zip(x_0, low, corners, strict=True)]
        return torch.stack([x for x, _ in cut]), torch.stack([y for _, y in cut])

    def export(self, folder: Path) -> None:
        """Write the UNet (float16, in files small enough for any host of git repositories)."""
        copy.deepcopy(self.network).half().save_pretrained(folder, max_shard_size="12MB")  # type: ignore[operator]
