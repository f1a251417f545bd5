"""A stage: one UNet that predicts x_0 in float32, in pixels or in the latents of a codec, whose weights are swapped for a while."""

import logging
from collections.abc import Iterator, Mapping
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
from unitune.diffusion.steps import Threshold
from unitune.models import attention, files, schedules
from unitune.models.libraries import DDPMScheduler, UNet2DConditionModel
from unitune.types import Refused, Weights

log = logging.getLogger(__name__)
CHANNELS = 3
OF_BETAS = (
    "epsilon",
    "v_prediction",
)  # what networks on a schedule of betas predict; a flow has a schedule of its own
LOSS = "loss.json"  # of a stage's folder, beside what diffusers reads: how the network was trained


class Codec(Protocol):
    """Between pictures and the x_0 that a network predicts."""

    def encode(self, image: Image) -> Image: ...  # noqa: D102
    def decode(self, x_0: Image) -> Image: ...  # noqa: D102


@dataclass(frozen=True)
class Pixels:
    """x_0 is the picture."""

    def encode(self, image: Image) -> Image:
        """Return the picture."""
        return image

    def decode(self, x_0: Image) -> Image:
        """Return the picture."""
        return x_0


@dataclass(frozen=True)
class Storage:
    """How a network's weights lie in memory: `dtype` of matrices and kernels (vectors stay float32), which `variant` of the files, checkpointed or not."""

    dtype: torch.dtype = torch.float32
    variant: str = ""
    gradient_checkpointing: bool = False


@dataclass
class UNetStage:
    """One UNet; of its output the first `channels` are used (IF's learned variance is not: tuning on one loss leaves it stale)."""

    name: str
    resolution: int
    network: UNet2DConditionModel
    schedule: Schedule
    loss: StageLoss  # that it is tuned with
    threshold: Threshold
    low_resolution: int = 0  # side of the previous stage's picture, 0 in a first stage
    align_corners: bool = True  # of the bilinear upsampling of that picture
    dtype: torch.dtype = torch.float32  # of the network's arithmetic
    evaluations: int = 0  # pictures that passed through the network
    codec: Codec = field(default_factory=Pixels)
    channels: int = CHANNELS
    stored: torch.dtype = torch.float32  # of the untuned weights; tuned ones are float32
    _swapped: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def arithmetic(self) -> str:
        """What names the rounding of the results: the arithmetic, and the stored weights' precision where it is not float32."""
        return (
            str(self.dtype)
            if self.stored == torch.float32
            else f"{self.dtype}, weights {self.stored}"
        )

    def encode(self, image: Image) -> Image:
        """Turn a picture of the stage's resolution into its x_0."""
        return self.codec.encode(image)

    def decode(self, x_0: Image) -> Image:
        """Turn x_0 into a picture."""
        return self.codec.decode(x_0)

    def output(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Run the network: its own prediction (eps or v), float32, on the caller's device."""
        device = self.device
        x, labels = x_t, None
        if condition.low is not None and condition.level is not None:
            x, labels = torch.cat([x_t, condition.low], dim=1), condition.level.to(device)
        self.evaluations += len(x)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            x = x.to(device).contiguous(memory_format=torch.channels_last)
            if torch.is_grad_enabled() and device.type == "cpu" and self.dtype != torch.float32:
                # torch crashes in the backward pass of a group norm whose bf16 input is channels last and needs no gradient: the first one after frozen parts.
                x = x.detach().requires_grad_()
            out = self.network(
                x, t.to(device), condition.text.to(device), class_labels=labels
            ).sample
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
        return F.interpolate(
            low,
            (self.resolution, self.resolution),
            mode="bilinear",
            align_corners=self.align_corners,
        )

    def moved(self, weights: Weights) -> bool:
        """Say whether any of these weights differs from the network's present one by more than float32 resolves of its tensor."""
        parameters = dict(self.network.named_parameters())
        present = {name: parameters[name].detach().float().cpu() for name in weights}
        # A bias of zeros is measured against 1: any step at all would count as a move, also one that no prediction shows.
        least = {
            name: torch.finfo(torch.float32).eps * (float(p.abs().max()) or 1.0)
            for name, p in present.items()
        }
        return any(
            float((tensor.cpu() - present[name]).abs().max()) > least[name]
            for name, tensor in weights.items()
        )

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Predict with these weights in place of the base's, in float32 as they were tuned; always restored."""
        parameters = dict(self.network.named_parameters())
        if unknown := sorted(set(weights) - set(parameters)):
            raise Refused(
                f"tuned weights name a parameter that {self.name} lacks: {unknown[0]!r}; they belong to another model"
            )
        if wrong := [n for n, w in weights.items() if w.shape != parameters[n].shape]:
            raise Refused(
                f"tuned weights do not fit {self.name} at {wrong[0]!r}: {tuple(weights[wrong[0]].shape)} for {tuple(parameters[wrong[0]].shape)}"
            )
        before, outer = {name: parameters[name].data for name in weights}, self._swapped
        self._swapped = before | outer  # of nested contexts the outermost knows the base
        try:
            for name, tensor in weights.items():
                parameters[name].data = tensor.to(parameters[name].device, torch.float32)
            yield
        finally:
            for name, tensor in before.items():
                parameters[name].data = tensor
            self._swapped = outer

    @contextmanager
    def base_weights(self) -> Iterator[None]:
        """Predict with the base weights inside `using`; pointers move, nothing is copied."""
        parameters = dict(self.network.named_parameters())
        tuned = {name: parameters[name].data for name in self._swapped}
        try:
            for name, tensor in self._swapped.items():
                parameters[name].data = tensor
            yield
        finally:
            for name, tensor in tuned.items():
                parameters[name].data = tensor


def read_network(folder: Path, *, device: torch.device, storage: Storage) -> Any:
    """Read a stage's frozen `unet`."""
    variant = files.held_variant(folder / "unet", storage.variant)
    # Files of half precision are read as they are, so that the processor's memory never holds twice their size.
    half = variant == "fp16" and storage.dtype != torch.float32
    network: Any = UNet2DConditionModel.from_pretrained(
        folder / "unet",
        torch_dtype=torch.float16 if half else torch.float32,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
    )
    network = network.eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(
            device, storage.dtype if parameter.ndim > 1 else torch.float32
        )
    if storage.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network.to(device)


def read_losses(folder: Path, settings: Mapping[str, Any]) -> Losses:
    """Read the losses of a stage from its folder; where it has no such file, they are the plain error of what the scheduler says the network predicts."""
    prediction = str(settings.get("prediction_type", "epsilon"))
    if prediction not in OF_BETAS:
        raise Refused(
            f"the prediction type {prediction!r} is not supported, only {', '.join(OF_BETAS)}"
        )
    file = folder / LOSS
    if file.is_file():
        return losses(files.json_object(file), prediction=prediction, where=str(file))
    log.info(
        "%s has no %s: tuning takes the plain error of the stage's own prediction (%s) at uniform noise levels",
        folder,
        LOSS,
        prediction,
    )
    plain = StageLoss(prediction)
    return Losses(plain, plain)


def read_schedule(folder: Path) -> tuple[Schedule, Any]:
    """Read a stage's noise schedule, whichever scheduler its file names, and the file's settings; what is not done here is refused (`schedules`)."""
    settings: Any = DDPMScheduler.load_config(folder / "scheduler")
    file = folder / "scheduler" / DDPMScheduler.config_name
    return schedules.schedule(settings, file=file, latent=(folder / "vae").is_dir()), settings
