"""IF-shaped cascades from the standard diffusers folder format: DeepFloyd IF and the pocket cascade."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from unitune.diffusion.loop import Condition
from unitune.diffusion.schedule import Image, Levels, Schedule
from unitune.diffusion.steps import Threshold
from unitune.types import Refused, Weights

log = logging.getLogger(__name__)
TEXT_LENGTH = 77  # tokens; IF was trained so, and its UNet sees no mask
CHANNELS = 3
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass
class FloydStage:
    """A pixel-space UNet with 3 or 6 output channels (the learned variance is not used: tuning on one loss leaves it stale)."""

    name: str
    resolution: int
    network: UNet2DConditionModel
    schedule: Schedule
    prediction: str
    threshold: Threshold
    low_resolution: int = 0  # side of the previous stage's picture, 0 in a first stage
    dtype: torch.dtype = torch.float32  # of the network's arithmetic; weights stay float32
    evaluations: int = 0  # pictures that passed through the network
    _swapped: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise Refused(f"stage {self.name}: prediction type {self.prediction!r} is not supported, only {', '.join(PREDICTIONS)}")

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def output(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Run the network: its own prediction (eps or v), float32, on the caller's device."""
        device = self.device
        x, labels = x_t, None
        if condition.low is not None and condition.level is not None:
            x, labels = torch.cat([x_t, condition.low], dim=1), condition.level.to(device)
        self.evaluations += len(x)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            # Convolutions in bf16 are faster with channels last; in float32 that order costs accuracy and gains little.
            x = x.to(device).contiguous(memory_format=torch.contiguous_format if self.dtype == torch.float32 else torch.channels_last)
            out = self.network(x, t.to(device), condition.text.to(device), class_labels=labels).sample
        return out[:, :CHANNELS].float().to(x_t.device)

    @torch.no_grad()
    def predict(self, x_t: Image, t: Levels, condition: Condition) -> Image:
        """Predict x_0 in float32: near pure noise a detour over eps loses digits."""
        out = self.output(x_t, t, condition)
        return self.schedule.x_0_from_v(x_t, out, t) if self.prediction == "v_prediction" else self.schedule.x_0_from_eps(x_t, out, t)

    def target(self, x_0: Image, eps: Image, t: Levels) -> Image:
        """What the network is trained to give."""
        return self.schedule.v(x_0, eps, t) if self.prediction == "v_prediction" else eps

    def upsampled(self, low: Image) -> Image:
        """Bring a low-resolution picture to the stage's resolution as IF does (bilinear, corners aligned)."""
        return F.interpolate(low, (self.resolution, self.resolution), mode="bilinear", align_corners=True)

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Predict with these weights in place of the base's; always restored."""
        parameters = dict(self.network.named_parameters())
        if unknown := sorted(set(weights) - set(parameters)):
            raise Refused(f"tuned weights name a parameter that {self.name} lacks: {unknown[0]!r}; they belong to another model")
        if wrong := [n for n, w in weights.items() if w.shape != parameters[n].shape]:
            raise Refused(f"tuned weights do not fit {self.name} at {wrong[0]!r}: {tuple(weights[wrong[0]].shape)} for {tuple(parameters[wrong[0]].shape)}")
        before, outer = {name: parameters[name].data for name in weights}, self._swapped
        self._swapped = before | outer  # of nested contexts the outermost knows the base
        try:
            for name, tensor in weights.items():
                parameters[name].data = tensor.to(parameters[name])
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


def text_encoder(folder: Path, device: torch.device) -> tuple[Callable[[Sequence[str]], Tensor], Callable[[str], list[str]], list[str]]:
    """Return encode(texts) -> (B, 77, D) float32 on the CPU, tokenize(text) -> pieces, and the pieces to make rare tokens of. The encoder is frozen."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    network: Any = T5EncoderModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        lines = [text.lower().strip() for text in texts]  # IF's own preprocessing
        tokens = tokenizer(lines, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt").to(device)
        return network(tokens.input_ids, attention_mask=tokens.attention_mask)[0].float().cpu()

    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    rare = pieces[5000:10000] or pieces  # DreamBooth draws from these ids of T5-XXL's vocabulary
    return encode, lambda text: tokenizer.tokenize(text.lower().strip()), rare


def load_stage(folder: Path, name: str, *, low_resolution: int, device: torch.device, dtype: torch.dtype) -> FloydStage:
    """Read one stage's `unet` and `scheduler` from its pipeline folder."""
    for part in ("unet/config.json", "scheduler/scheduler_config.json"):
        if not (folder / part).is_file():
            raise Refused(f"model folder {folder} has no {part}; expected a diffusers pipeline folder (unet, scheduler, text_encoder, tokenizer)")
    network: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    network = network.eval().requires_grad_(False).to(device)
    if network.config.in_channels != (2 * CHANNELS if low_resolution else CHANNELS):
        raise Refused(f"stage {name} in {folder} reads {network.config.in_channels} channels; a first stage reads 3, a super-resolution stage 6")
    scheduler: Any = DDPMScheduler.from_pretrained(folder / "scheduler")
    config = scheduler.config
    return FloydStage(
        name=name,
        resolution=network.config.sample_size,
        network=network,
        schedule=Schedule(torch.cumprod(1 - scheduler.betas.double(), 0)),
        prediction=config.prediction_type,
        threshold=Threshold(config.dynamic_thresholding_ratio, config.sample_max_value if config.thresholding else 1.0),
        low_resolution=low_resolution,
        dtype=dtype,
    )


def files_digest(folders: Sequence[Path]) -> str:
    """sha256 over the names and bytes of the stages' weights and settings; cards and notes beside them do not count."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")):
            digest.update(f"{folder.name}/{file.relative_to(folder)}".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def known_words(folder: Path) -> frozenset[str] | None:
    """Return the words that a small model was trained on, or None where the model has no such list."""
    file = folder / "words.json"
    return frozenset(json.loads(file.read_text())) if file.is_file() else None
