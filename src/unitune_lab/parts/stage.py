"""A diffusion stage: v-prediction on the cosine schedule, the super-resolution stage on crops."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnAddedKVProcessor
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer
from unitune.diffusion.loss import StageLoss
from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.schedule import Schedule
from unitune.errors import Refused
from unitune.metrics.judge import Judge

from unitune_lab import networks, watch
from unitune_lab.batches import NOUN, Batch, at_cells
from unitune_lab.parts.text import embed

WEIGHTINGS = ("plain", "min_snr")
V = PREDICTIONS["v_prediction"]  # what the embedded networks predict
TUNING = StageLoss("v_prediction", "min_snr")  # of what ships, whatever its pretraining weighed


def digest(text: Path) -> str:
    """Name the weights of a folder's text encoder."""
    return hashlib.sha256((text / "text_encoder" / "model.safetensors").read_bytes()).hexdigest()


class StagePart:
    """A stage and, in training alone, a head that names the noun at each position.

    `weighting` weighs the squared error of v over the levels (plain or min_snr with gamma 5),
    `objects` is the weight of an object's pixels against 1 for all others, `auxiliary` that of the
    head's cross entropy. `crops` of the super-resolution stage are cut out of each picture; the
    level of the noise on its low-resolution picture is u ** `level_power` of all, u uniform.
    """

    captions = "stage"

    def __init__(
        self,
        text: Path,
        device: torch.device,
        *,
        super_resolution: bool,
        channels: Sequence[int],
        attention: str = "rraa",
        weighting: str = "plain",
        objects: float = 1.0,
        auxiliary: float = 0.0,
        crops: int = 1,
        level_power: float = 1.0,
    ) -> None:
        if weighting not in WEIGHTINGS:
            allowed = ", ".join(WEIGHTINGS)
            raise Refused(f"weighting must be one of {allowed}; got {weighting!r}")
        if crops < 1:
            raise Refused(f"crops must be at least 1; got {crops}")
        self.device, self.super_resolution, self.crops = device, super_resolution, crops
        self.size = 256 if super_resolution else 64
        self.resolutions = range(32, 257, 8) if super_resolution else (16, 32, 64)
        self.tokenizer = T5Tokenizer.from_pretrained(text / "tokenizer")
        self.reads = digest(text)
        encoder: Any = T5EncoderModel.from_pretrained(text / "text_encoder")
        self.encoder = encoder.float().eval().requires_grad_(False).to(device)
        unet = (
            networks.sr_unet(channels)
            if super_resolution
            else networks.base_unet(channels, attention)
        )
        head = nn.Conv2d(channels[-1], len(NOUN) + 1, 1)
        parts: Any = nn.ModuleDict({"unet": unet, "head": head} if auxiliary else {"unet": unet})
        # On a CPU the base stage's group norms, of two channels each, are ten times slower where
        # channels come last; and plain attention is faster than fused at these short lengths.
        on_cpu = device.type == "cpu"
        contiguous = on_cpu and not super_resolution
        self.memory = torch.contiguous_format if contiguous else torch.channels_last
        if on_cpu:
            unet.set_attn_processor(AttnAddedKVProcessor())
        self.network: nn.Module = parts.to(device, memory_format=self.memory)
        self.loss_of_stage = StageLoss("v_prediction", weighting)
        self.objects, self.auxiliary, self.level_power = objects, auxiliary, level_power
        self.schedule = Schedule.cosine()
        self.judge: Judge | None = None  # by which a look counts what samples show
        self.looks: Path | None = None  # the folder where a look draws its samples

    def embed(self, captions: Sequence[str]) -> Tensor:
        """Encode captions as stock IF does, (B, 77, 128)."""
        return embed(self.tokenizer, self.encoder, list(captions))

    def output(
        self, network: nn.Module, x: Tensor, t: Tensor, text: Tensor, level: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the UNet in bfloat16: v (float32), and the head's logits where there is a head."""
        seen: list[Tensor] = []
        unet, hook = network["unet"], None  # type: ignore[index]
        if "head" in network and network.training:  # type: ignore[operator]
            hook = unet.up_blocks[0].register_forward_hook(lambda *call: seen.append(call[2]))
        with torch.autocast(self.device.type, torch.bfloat16):
            x = x.contiguous(memory_format=self.memory)
            out = unet(x, t, text, class_labels=level).sample[:, :3].float()
            named = network["head"](seen[0]).float() if seen else None  # type: ignore[index]
        if hook is not None:
            hook.remove()
        return out, named

    def noised(
        self, batch: Batch, resolution: int, *, noise: torch.Generator, t: Tensor | None = None
    ) -> dict[str, Any]:
        """Draw what the network is asked and what it should answer, with the map of objects."""
        assert batch.objects is not None
        x_0, low = batch.pictures(self.device), None
        objects, captions = batch.objects.to(self.device), list(batch.captions)
        if self.super_resolution:
            coarse = F.interpolate(x_0, scale_factor=0.25, mode="area")
            low = F.interpolate(coarse, x_0.shape[-2:], mode="bilinear", align_corners=False)
            objects = F.interpolate(objects[:, None].float(), x_0.shape[-2:])[:, 0].to(objects)
            x_0, low, objects, captions = self._crop(x_0, low, objects, captions, resolution, noise)
        elif x_0.shape[-1] != resolution:
            x_0 = F.interpolate(x_0, (resolution, resolution), mode="area")
        rows = len(x_0)
        draw = {"generator": noise, "device": self.device}
        t = torch.randint(self.schedule.T, (rows,), **draw) if t is None else t[:1].expand(rows)
        eps, level = torch.randn(x_0.shape, **draw), None
        x_t = self.schedule.add_noise(x_0, eps, t)
        if low is not None:
            u = torch.rand(rows, **draw) ** self.level_power
            level = (self.schedule.T * u).long()
            noisy = self.schedule.add_noise(low, torch.randn(low.shape, **draw), level)
            x_t = torch.cat([x_t, noisy], dim=1)
        return {
            "x": x_t, "v": V.target(self.schedule, x_0, eps, t), "t": t, "level": level,
            "text": self.embed(captions), "objects": objects,
        }  # fmt: skip

    def loss(self, batch: Batch, resolution: int, seed: int) -> Tensor:
        """Return the weighed error of v at uniform levels, plus the head's cross entropy."""
        noise = torch.Generator(self.device).manual_seed(seed)
        asked = self.noised(batch, resolution, noise=noise)
        t = asked["t"]
        v, named = self.output(self.network, asked["x"], t, asked["text"], asked["level"])
        weight = 1 + (self.objects - 1) * (at_cells(asked["objects"], v.shape[-1]) > 0)[:, None]
        of_level = self.loss_of_stage.weights(self.schedule, t).to(v)[:, None, None, None]
        error = (v - asked["v"]).square() * weight * of_level
        loss = error.sum() / (3 * weight.sum())
        if named is not None:
            nouns = at_cells(asked["objects"], named.shape[-1]).long()
            loss = loss + self.auxiliary * F.cross_entropy(named, nouns)
        return loss

    def _crop(
        self, x_0: Tensor, low: Tensor, objects: Tensor, captions: list[str], side: int,
        noise: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:  # fmt: skip
        count = len(x_0) * self.crops
        span = x_0.shape[-1] - side + 1
        corners = torch.randint(span, (count, 2), generator=noise, device=self.device).tolist()
        cut: list[tuple[Tensor, ...]] = []
        for k, (i, j) in enumerate(corners):
            row = k // self.crops
            rows, columns = slice(i, i + side), slice(j, j + side)
            cut.append(tuple(p[row][..., rows, columns] for p in (x_0, low, objects)))
        stacked = (torch.stack(parts) for parts in zip(*cut, strict=True))
        return *stacked, [text for text in captions for _ in range(self.crops)]  # type: ignore

    def look(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Measure the error of x_0 on unseen scenes and what samples of a first stage show."""
        found = watch.errors(self, network, resolution=resolution)
        if not self.super_resolution:
            found |= watch.sampled_facts(self, network, resolution=resolution)
        return found

    def export(self, network: nn.Module, folder: Path) -> None:
        """Write the UNet (float16, in files small enough for any host of git repositories)."""
        unet: Any = copy.deepcopy(network["unet"])  # type: ignore[index]
        unet.half().save_pretrained(folder, max_shard_size="12MB")
