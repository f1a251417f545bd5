"""What of a network is trained: its weights themselves, or a low-rank change of its matrices (LoRA, arXiv 2106.09685), which is small on disk.

Either way tuning starts at the untouched network, and what is sampled are whole weights: an adapter is merged when it is read.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import nn

from unitune import rng
from unitune.tuning.select import ParameterSelection
from unitune.types import Refused, Weights, number, whole

DOWN, UP = "lora_A", "lora_B"  # W + alpha / rank * B A, in the paper's letters
SHORTEST_SIDE = 32  # of a matrix in the networks of real models; for estimates


class Adapter(Protocol):
    """Chooses and names the parameters to train."""

    def attached(
        self, network: nn.Module, select: ParameterSelection
    ) -> AbstractContextManager[Mapping[str, nn.Parameter]]:
        """Give the parameters to train by the names that they are stored under; afterwards the network is as it was, also on error."""
        ...

    def size(self, counts: Mapping[str, int], select: ParameterSelection) -> int:
        """Count the trained numbers of a network with these parameters; an upper bound where their shapes are not known."""
        ...

    def merged(self, stored: Weights, network: nn.Module) -> Weights:
        """Make whole weights, float32, of what was stored; the network is the untouched one."""
        ...


@dataclass(frozen=True)
class Full:
    """Train the weights themselves, as the papers do."""

    @contextmanager
    def attached(
        self, network: nn.Module, select: ParameterSelection
    ) -> Iterator[dict[str, nn.Parameter]]:
        """Give the chosen parameters."""
        parameters = dict(network.named_parameters())
        yield {name: parameters[name] for name in select.names(network)}

    def size(self, counts: Mapping[str, int], select: ParameterSelection) -> int:
        """Count the chosen parameters."""
        return sum(counts[name] for name in select.chosen(list(counts)))

    def merged(self, stored: Weights, network: nn.Module) -> Weights:
        """Return them."""
        return stored


@dataclass(frozen=True)
class Lora:
    """Train B A of every linear and convolution layer that a `targets` pattern matches and whose weight is selected.

    `rank` is that of B A, which counts `alpha` / rank: alpha scales its steps, so it acts as a factor of lr.
    """

    rank: int = 4
    alpha: float = 4.0
    targets: Sequence[str] = ("*attentions.*",)

    def __post_init__(self) -> None:
        if not (whole(self.rank) and self.rank >= 1):
            raise Refused(f"adapter.rank must be a whole number of at least 1, got {self.rank!r}")
        if not (number(self.alpha) and self.alpha > 0):
            raise Refused(f"adapter.alpha must be above 0 and finite, got {self.alpha!r}")
        if not self.targets:
            raise Refused(
                "adapter.targets is empty; name layers by patterns, e.g. adapter.targets=['*attentions.*']"
            )

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank

    @contextmanager
    def attached(
        self, network: nn.Module, select: ParameterSelection
    ) -> Iterator[dict[str, nn.Parameter]]:
        """Put peft's layers in; take them out again."""
        from peft import LoraConfig, inject_adapter_in_model

        layers = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        names = self._chosen(
            list(layers), select.chosen([name for name, _ in network.named_parameters()])
        )
        try:
            exactly = "|".join(
                map(re.escape, names)
            )  # a list of names would match the ends of other names too
            inject_adapter_in_model(
                LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=exactly), network
            )  # type: ignore[arg-type]
            yield {
                f"{name}.{part}": _trained(network, name, part)
                for name in names
                for part in (DOWN, UP)
            }
        finally:
            for name in names:
                network.set_submodule(name, layers[name])
            vars(network).pop("peft_config", None)

    def size(self, counts: Mapping[str, int], select: ParameterSelection) -> int:
        """Count A and B of the chosen layers: exactly by the bias, which has one number for every row of B, else at most."""
        # A normalisation has as many weights as biases.
        layers = [
            name.removesuffix(".weight")
            for name in counts
            if name.endswith(".weight") and counts.get(_bias(name)) != counts[name]
        ]
        weights = [f"{name}.weight" for name in self._chosen(layers, select.chosen(list(counts)))]
        sides = (counts.get(_bias(name), SHORTEST_SIDE) for name in weights)
        return sum(
            self.rank * (side + -(-counts[name] // side))
            for name, side in zip(weights, sides, strict=True)
        )

    def merged(self, stored: Weights, network: nn.Module) -> Weights:
        """Add scale * B A to the weights that it was trained beside."""
        parameters = dict(network.named_parameters())
        made = {}
        for name in (name.removesuffix(f".{UP}") for name in stored if name.endswith(f".{UP}")):
            if f"{name}.weight" not in parameters:
                raise Refused(
                    f"a stored adapter names the layer {name!r}, which this network lacks; it belongs to another model"
                )
            weight = parameters[f"{name}.weight"].detach().float().cpu()
            up, down = (stored[f"{name}.{part}"].float().flatten(1) for part in (UP, DOWN))
            made[f"{name}.weight"] = weight + (self.scale * (up @ down)).view_as(weight)
        return made

    def _chosen(self, layers: Sequence[str], selected: Sequence[str]) -> list[str]:
        for pattern in self.targets:
            if not any(fnmatchcase(name, pattern) for name in layers):
                near = difflib.get_close_matches(pattern.strip("*"), layers, n=3, cutoff=0.0)
                raise Refused(
                    f"adapter.targets pattern {pattern!r} matches none of the {len(layers)} layers; names look like {', '.join(near)}"
                )
        allowed = set(selected)
        chosen = [
            name
            for name in layers
            if f"{name}.weight" in allowed
            and any(fnmatchcase(name, pattern) for pattern in self.targets)
        ]
        if not chosen:
            raise Refused(
                f"nothing is left to adapt: none of the weights that adapter.targets={list(self.targets)} matches is selected; change freeze="
            )
        return chosen


def _bias(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"


def _trained(network: nn.Module, name: str, part: str) -> nn.Parameter:
    """Return one half of a layer's adapter in float32; A begins as peft's does, but named by its layer: the global generator has no say."""
    parameter = network.get_parameter(f"{name}.{part}.default.weight")
    parameter.data = parameter.data.float()
    if part == DOWN:
        bound = parameter[0].numel() ** -0.5
        parameter.data.copy_(
            torch.empty(parameter.shape).uniform_(
                -bound, bound, generator=rng.generator("lora", name)
            )
        )
    return parameter
