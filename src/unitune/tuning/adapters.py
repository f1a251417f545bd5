"""What of a network is trained: its weights, or a low-rank change of its matrices.

The latter is LoRA (arXiv 2106.09685), small on disk. Either way tuning starts at the untouched
network, and what is sampled are whole weights: an adapter is merged when it is read.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unitune import rng
from unitune.tuning.select import ParameterSelection, matching, similar, unmatched
from unitune.types import Refused, Weights, number, whole

DOWN, UP = "lora_A", "lora_B"  # W + alpha / rank * B A, in the paper's letters
SHORTEST_SIDE = 32  # of a matrix in the networks of real models; for estimates


@dataclass(frozen=True)
class Full:
    """Train the weights themselves, as the papers do."""

    @contextmanager
    def attached(
        self, network: nn.Module, select: ParameterSelection
    ) -> Iterator[dict[str, nn.Parameter]]:
        """Give the parameters to train by the names that they are stored under.

        Afterwards the network is as it was, also on error.
        """
        yield {name: network.get_parameter(name) for name in select.names(network)}

    def base(self, network: nn.Module, select: ParameterSelection) -> Weights:
        """Return what the trained numbers are stored as a change of: the untouched weights."""
        untouched = dict(network.named_parameters())
        chosen = select.chosen(list(untouched))
        return {name: untouched[name].detach().float().cpu() for name in chosen}

    def size(self, counts: Mapping[str, int], select: ParameterSelection) -> int:
        """Count the trained numbers of a network whose parameters have these counts."""
        return sum(counts[name] for name in select.chosen(list(counts)))

    def merged(self, stored: Weights, network: nn.Module) -> Weights:
        """Make whole weights, float32, of what was stored; the network is the untouched one."""
        return stored


@dataclass(frozen=True)
class Lora:
    """Train B A of the linear and convolution layers that `targets` match, where selected.

    `rank` is that of B A, which counts `alpha` / rank: alpha scales its steps, so it acts as a
    factor of lr.
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
                "adapter.targets is empty; name layers by patterns, e.g. "
                "adapter.targets=['*attentions.*']"
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

        kinds = nn.Linear | nn.Conv2d
        layers = {name: one for name, one in network.named_modules() if isinstance(one, kinds)}
        parameters = [name for name, _ in network.named_parameters()]
        names = self._chosen(list(layers), select.chosen(parameters))
        # One pattern of whole names: a list would match the ends of other names, too.
        exactly = "|".join(map(re.escape, names))
        alpha: Any = self.alpha  # peft annotates a whole number, and divides by the rank
        config = LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=exactly)
        try:
            inject_adapter_in_model(config, network)
            yield {
                f"{name}.{part}": _started(network, name, part)
                for name in names
                for part in (DOWN, UP)
            }
        finally:
            for name in names:
                network.set_submodule(name, layers[name])
            vars(network).pop("peft_config", None)

    def base(self, network: nn.Module, select: ParameterSelection) -> Weights:
        """Return nothing: A and B are stored as they are."""
        return {}

    def size(self, counts: Mapping[str, int], select: ParameterSelection) -> int:
        """Count A and B of the chosen layers.

        Exact where a layer has a bias, which has one number for every row of B; else at most.
        """
        weights = [name for name in counts if name.endswith(".weight")]
        rows = {name: counts.get(f"{name.removesuffix('weight')}bias") for name in weights}
        # A normalisation has as many weights as biases.
        layers = [name.removesuffix(".weight") for name in weights if rows[name] != counts[name]]
        total = 0
        for layer in self._chosen(layers, select.chosen(list(counts))):
            name = f"{layer}.weight"
            side = rows[name] or SHORTEST_SIDE
            total += self.rank * (side + math.ceil(counts[name] / side))
        return total

    def merged(self, stored: Weights, network: nn.Module) -> Weights:
        """Add scale * B A to the weights that it was trained beside."""
        parameters = dict(network.named_parameters())
        made = {}
        for layer in (name.removesuffix(f".{UP}") for name in stored if name.endswith(f".{UP}")):
            name = f"{layer}.weight"
            if name not in parameters:
                raise Refused(
                    f"a stored adapter names the layer {layer!r}, which this network lacks; "
                    "it belongs to another model"
                )
            weight = parameters[name].detach().float().cpu()
            up, down = (stored[f"{layer}.{part}"].float().flatten(1) for part in (UP, DOWN))
            made[name] = weight + (self.scale * (up @ down)).view_as(weight)
        return made

    def _chosen(self, layers: Sequence[str], selected: Sequence[str]) -> list[str]:
        if (pattern := unmatched(self.targets, layers)) is not None:
            near = ", ".join(similar(pattern, layers, count=3))
            raise Refused(
                f"adapter.targets pattern {pattern!r} matches none of the {len(layers)} layers; "
                f"names look like {near}"
            )
        allowed = set(selected)
        chosen = [one for one in matching(self.targets, layers) if f"{one}.weight" in allowed]
        if not chosen:
            raise Refused(
                f"nothing is left to adapt: none of the weights that adapter.targets="
                f"{list(self.targets)} matches is selected; change freeze="
            )
        return chosen


Adapter = Full | Lora


def _started(network: nn.Module, name: str, part: str) -> nn.Parameter:
    """Return one half of a layer's adapter, float32, A drawn by its layer's name.

    The distribution is peft's, but the global generator has no say.
    """
    parameter = network.get_parameter(f"{name}.{part}.default.weight")
    parameter.data = parameter.data.float()
    if part == DOWN:
        bound, generator = parameter[0].numel() ** -0.5, rng.generator("lora", name)
        drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
        parameter.data.copy_(drawn)
    return parameter
