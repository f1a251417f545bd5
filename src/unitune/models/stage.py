"""A stage: one UNet that predicts x_0 in float32, in pixels or in the latents of a codec.

Its weights can be swapped for a while.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unitune.diffusion.loss import Losses, StageLoss, losses
from unitune.diffusion.predictions import PREDICTIONS
from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.diffusion.stage import Condition
from unitune.models import attention, schedules, weight_files
from unitune.models.families.interface import Placement
from unitune.models.libraries import DDPMScheduler, UNet2DConditionModel
from unitune.models.parameters import pretrained
from unitune.types import Refused, Weights

log = logging.getLogger(__name__)
CHANNELS = 3
LOSS = "loss.json"  # of a stage's folder, beside what diffusers reads: how the network was trained


class Codec(Protocol):
    """Between pictures and the latents that a network predicts."""

    def encode(self, image: Image) -> Image: ...  # noqa: D102
    def decode(self, x_0: Image) -> Image: ...  # noqa: D102


@dataclass
class UNetStage:
    """One UNet; of its output the first `channels` are used.

    IF's learned variance is not: tuning on one loss leaves it stale.
    """

    name: str
    resolution: int
    network: UNet2DConditionModel
    schedule: Schedule
    loss: StageLoss  # that it is tuned with
    threshold: Callable[[Image], Image]
    low_resolution: int = 0  # side of the previous stage's picture, 0 in a first stage
    align_corners: bool = True  # of the bilinear upsampling of that picture
    dtype: torch.dtype = torch.float32  # of the network's arithmetic
    evaluations: int = 0  # pictures that passed through the network
    codec: Codec | None = None  # None: x_0 is the picture
    channels: int = CHANNELS
    stored: torch.dtype = torch.float32  # of the untuned weights; tuned ones are float32
    _swapped: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def arithmetic(self) -> str:
        """Names the rounding of results: the type of the arithmetic, and of narrower weights."""
        stored = "" if self.stored == torch.float32 else f", weights {self.stored}"
        return f"{self.dtype}{stored}"

    def encode(self, image: Image) -> Image:
        """Turn a picture of the stage's resolution into its x_0."""
        return self.codec.encode(image) if self.codec else image

    def decode(self, x_0: Image) -> Image:
        """Turn x_0 into a picture."""
        return self.codec.decode(x_0) if self.codec else x_0

    def output(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Run the network: its own prediction (eps or v), float32, on the caller's device."""
        device, x, labels = self.device, x_t, None
        if condition.low is not None and condition.level is not None:
            x, labels = torch.cat([x_t, condition.low], dim=1), condition.level.to(device)
        self.evaluations += len(x)
        reduced = self.dtype != torch.float32
        with torch.autocast(device.type, self.dtype, enabled=reduced):
            x = x.to(device).contiguous(memory_format=torch.channels_last)
            if torch.is_grad_enabled() and device.type == "cpu" and reduced:
                # torch crashes in the backward pass of a group norm whose bf16 input is channels
                # last and needs no gradient: the first one after frozen parts.
                x = x.detach().requires_grad_()
            text = condition.text.to(device)
            out = self.network(x, t.to(device), text, class_labels=labels).sample
        return out[:, : self.channels].float().to(x_t.device)

    @torch.no_grad()
    def predict(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Predict x_0 in float32: near pure noise a detour over eps loses digits."""
        out = self.output(x_t, t, condition)
        return PREDICTIONS[self.loss.prediction].x_0(self.schedule, x_t, out, t)

    def attention(self, editor: Any) -> AbstractContextManager[None]:
        """Give every attention layer's probabilities to `editor` inside this context."""
        return attention.controlled(self.network, editor)

    def target(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """What the network is trained to give."""
        return PREDICTIONS[self.loss.prediction].target(self.schedule, x_0, eps, t)

    def upsampled(self, low: Image) -> Image:
        """Bring a low-resolution picture to the stage's resolution."""
        size = (self.resolution, self.resolution)
        return F.interpolate(low, size, mode="bilinear", align_corners=self.align_corners)

    def moved(self, weights: Weights) -> bool:
        """Say whether weights differ from the present ones by more than float32 resolves."""
        parameters = dict(self.network.named_parameters())
        for name, tensor in weights.items():
            present = parameters[name].detach().float().cpu()
            # A tensor's largest value is the measure, for a bias of zeros 1: any step at all would
            # count as a move there, also one that no prediction shows.
            least = torch.finfo(torch.float32).eps * (float(present.abs().max()) or 1.0)
            if float((tensor.cpu() - present).abs().max()) > least:
                return True
        return False

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Predict with these weights, in float32 as they were tuned; always restored."""
        parameters = dict(self.network.named_parameters())
        if unknown := sorted(set(weights) - set(parameters)):
            raise Refused(
                f"tuned weights name a parameter that {self.name} lacks: {unknown[0]!r}; "
                "they belong to another model"
            )
        for name, tensor in weights.items():
            if tensor.shape != (wanted := parameters[name].shape):
                raise Refused(
                    f"tuned weights do not fit {self.name} at {name!r}: "
                    f"{tuple(tensor.shape)} for {tuple(wanted)}"
                )
        before, outer = {name: parameters[name].data for name in weights}, self._swapped
        there = {n: w.to(parameters[n].device, torch.float32) for n, w in weights.items()}
        self._swapped = before | outer  # of nested contexts the outermost knows the base
        try:
            with self._pointed_to(there):
                yield
        finally:
            self._swapped = outer

    def base_weights(self) -> AbstractContextManager[None]:
        """Predict with the base weights inside `using`."""
        return self._pointed_to(self._swapped)

    @contextmanager
    def _pointed_to(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Let parameters point to these tensors for a while; nothing is copied."""
        parameters = dict(self.network.named_parameters())
        before = {name: parameters[name].data for name in tensors}
        try:
            for name, tensor in tensors.items():
                parameters[name].data = tensor
            yield
        finally:
            for name, tensor in before.items():
                parameters[name].data = tensor


def read_network(folder: Path, placement: Placement) -> Any:
    """Read a stage's frozen `unet`."""
    # Files of half precision are read as they are, so that the processor's memory never holds
    # twice their size.
    half = weight_files.find(folder / "unet", placement.variant).variant == "fp16"
    dtype = torch.float16 if half and placement.stored != torch.float32 else torch.float32
    network = pretrained(UNet2DConditionModel, folder / "unet", dtype, placement.variant)
    for parameter in network.parameters():
        kept = placement.stored if parameter.ndim > 1 else torch.float32
        parameter.data = parameter.data.to(placement.device, kept)
    if placement.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network.to(placement.device)


def read_losses(folder: Path, settings: Mapping[str, Any]) -> Losses:
    """Read the losses of a stage from its folder.

    Without such a file they are the plain error of what the scheduler's `settings` say that the
    network predicts.
    """
    prediction = str(settings.get("prediction_type", "epsilon"))
    file = folder / LOSS
    if file.is_file():
        return losses(weight_files.json_object(file), prediction=prediction, where=str(file))
    log.info(
        "%s has no %s: tuning takes the plain error of the stage's own prediction (%s) at uniform "
        "noise levels", folder, LOSS, prediction,
    )  # fmt: skip
    return Losses(StageLoss(prediction), StageLoss(prediction))


def read_schedule(folder: Path) -> tuple[Schedule, Any]:
    """Read a stage's noise schedule, whichever scheduler its file names, and the file's settings.

    Raises Refused for what is not done here (`schedules`).
    """
    settings: Any = DDPMScheduler.load_config(folder / "scheduler")
    file = folder / "scheduler" / DDPMScheduler.config_name
    return schedules.schedule(settings, file=file, latent=(folder / "vae").is_dir()), settings
