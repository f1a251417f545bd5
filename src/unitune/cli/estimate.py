"""Memory and disk that tuning takes, before any weight is read.

Parameters are counted in the headers of the weight files; of models that are not here yet, their
family knows them. Activations are a guess from the network's shape, fitted to what autograd keeps
of a forward pass (on torch's `meta` device for the networks of HUB, in float32, per picture).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitune.errors import Refused, whole
from unitune.models import files, weight_files
from unitune.models.families import FAMILIES, family
from unitune.models.hub import Repo
from unitune.storage import compression
from unitune.tuning.adapters import Adapter, Full, Lora
from unitune.tuning.select import ParameterSelection

FLOAT32 = 4
# Bytes of state per parameter; Adafactor keeps 6 of the 9 numbers of a 3x3 kernel.
STATE = {"AdamW": 8.0, "Adafactor": 2.7}
MIXED = 0.75  # of float32's activations under bf16 autocast: norms stay in float32
CHECKPOINT_COPIES = 1  # serialised in memory
# What Python and the libraries take without a model; of a GPU, its context and workspaces.
RUNTIME = 900 * 2**20
TEXT = "text encoder"
# Of a network's numbers for each rank at most, where its tensors are not known: well under 2 % at
# rank 4.
LORA = 0.005
EVERYTHING = "*"  # the tensor of a network of which the size alone is known


@dataclass(frozen=True)
class Network:
    """Numbers by tensor, and bytes that autograd keeps of one picture of `side` px in float32."""

    tensors: Mapping[str, int]
    side: int = 0  # a network that is never trained has none
    activations: int = 0

    @property
    def parameters(self) -> int:
        """Count all numbers."""
        return sum(self.tensors.values())

    def tuned(self, adapter: Adapter, select: ParameterSelection) -> int:
        """Count the numbers that are trained; at most, where the tensors' names are not known."""
        if EVERYTHING not in self.tensors:
            return adapter.size(self.tensors, select)
        share = min(1.0, LORA * adapter.rank) if isinstance(adapter, Lora) else 1
        return round(self.parameters * share)


HUB = {
    repository: Network({EVERYTHING: known.parameters}, known.side, known.activations * 2**20)
    for name in FAMILIES
    for repository, known in family(name).published.items()
}


@dataclass(frozen=True)
class StageTuning:
    """How one stage is tuned, as far as memory and disk depend on it."""

    optimizer: str
    rows: int  # that go through the network at once
    crop: int  # px, 0 = whole pictures
    kept: int  # snapshots, the last weights among them
    adapter: Adapter = field(default_factory=Full)
    select: ParameterSelection = field(default_factory=ParameterSelection)

    @property
    def state(self) -> float:
        """Bytes of the optimiser's state for each trained number; of an unknown one the most."""
        return STATE.get(self.optimizer, max(STATE.values()))


def network(folder: Path, variant: str = "") -> Network:
    """Read the size of a network from its folder in the diffusers or transformers format.

    Raises Refused where files are missing or damaged.
    """
    if not (folder / "config.json").is_file():
        raise Refused(f"{folder} has no config.json; copy or download the model folder again")
    shape = weight_files.json_object(folder / "config.json")
    tensors = weight_files.counts(folder, variant)
    given: Any = shape.get("sample_size")
    side = int(given) if whole(given) else 0
    return Network(tensors, side, activations(shape, side) if "block_out_channels" in shape else 0)


def activations(shape: Mapping[str, Any], side: int) -> int:
    """Guess what autograd keeps of one picture in float32, bytes.

    A multiple of pixels x channels of the first level, which grows with the layers of a level.
    """
    layers = shape["layers_per_block"]
    layers = layers if isinstance(layers, int) else layers[0]
    # Transformer blocks keep an order of magnitude more than one joint attention; both within 15 %
    # of the counts behind HUB.
    blocks = "CrossAttnDownBlock2D" in shape["down_block_types"]
    per_number = 500 * layers if blocks else 35 + 70 * layers
    return FLOAT32 * per_number * shape["block_out_channels"][0] * side**2


def memory(
    networks: Mapping[str, Network],
    plans: Mapping[str, StageTuning],
    *,
    mixed: bool,
    weight: int = FLOAT32,
) -> tuple[int, dict[str, int]]:
    """Bytes that tuning takes at most where networks run, and what they are made of.

    All networks are there with `weight` bytes per number. Of the stage of `plans` that needs most
    there are also float32 copies of what is tuned, gradients, the optimiser's state, bf16 weights
    under mixed arithmetic, and activations (without gradient checkpointing).
    """
    made = {"weights": weight * sum(n.parameters for n in networks.values()), "libraries": RUNTIME}
    most: dict[str, int] = {}
    for stage, plan in plans.items():
        net = networks[stage]
        tuned = net.tuned(plan.adapter, plan.select)
        share = min(1.0, (plan.crop or net.side) / max(1, net.side)) ** 2
        kept = plan.rows * share * net.activations
        more = {
            "copy": FLOAT32 * tuned,
            "gradients": FLOAT32 * tuned,
            "optimiser": round(plan.state * tuned),
            "bf16 weights": 2 * net.parameters if mixed else 0,
            "activations": round(kept * MIXED if mixed else kept),
        }
        most = max(most, more, key=lambda needs: sum(needs.values()))
    return sum((made | most).values()), made | most


def checkpoint(net: Network, plan: StageTuning) -> int:
    """Bytes of one checkpoint: what is tuned and the optimiser's state."""
    return round((FLOAT32 + plan.state) * net.tuned(plan.adapter, plan.select))


def disk(networks: Mapping[str, Network], plans: Mapping[str, StageTuning]) -> tuple[int, int]:
    """Bytes that a tuning's entries take in the store at most, and while they are made."""
    entry, most = 0, 0
    for stage, plan in plans.items():
        kept = networks[stage].tuned(plan.adapter, plan.select) * plan.kept
        entry += compression.BYTES * kept
        # Besides, snapshots in float32 and two checkpoints of one stage at a time.
        most = max(most, FLOAT32 * kept + 2 * checkpoint(networks[stage], plan))
    return entry, entry + most


def networks(chosen: Mapping[str, Any]) -> dict[str, Network]:
    """Return the sizes of a model's stages and of its text encoder where that stays in memory.

    They are counted in files that are here, else as published.
    """
    model = files.described(chosen)
    kind = family(model.family)
    found = {}
    for stage in model.stages:
        source = model.source(stage)
        if isinstance(source, Repo) and source.id not in HUB:
            known = ", ".join(HUB)
            raise Refused(f"the size of {source.id} is not known here; the known: {known}")
        local = isinstance(source, Path)
        found[stage] = network(source / kind.network, model.variant) if local else HUB[source.id]
    if model.keep_text_encoder:
        first = model.source(model.stages[0])
        if isinstance(first, Path):
            found[TEXT] = network(first / "text_encoder", model.variant)
        else:
            found[TEXT] = Network({EVERYTHING: kind.text_parameters[first.owner]})
    return found


def tunings(settings: Mapping[str, Any]) -> dict[str, StageTuning]:
    """List how each stage is tuned; {} for a method that tunes nothing."""
    # DreamBooth has a picture of the class beside every one of the image.
    per_draw = 2 if settings["method"].get("prior") else 1
    found = {}
    for stage, tuning in settings["method"].get("tune", {}).items():
        if stage not in settings["stage"]["tuned"] or tuning["steps"] <= 0:
            continue
        adapter: Adapter = Full()
        change = tuning["adapter"]
        if class_name(change) == "Lora":
            adapter = Lora(change["rank"], change["alpha"], change["targets"])
        found[stage] = StageTuning(
            class_name(tuning["optimizer"]),
            rows=per_draw * tuning["batch_size"],
            crop=tuning["crop"],
            kept=1 + len({step for step in tuning["snapshots"] if 0 < step < tuning["steps"]}),
            adapter=adapter,
            select=ParameterSelection(tuning["select"]["train"], tuning["select"]["freeze"]),
        )
    return found


def class_name(part: Mapping[str, Any]) -> str:
    """Return the name of the class that a part of a config is made of."""
    return str(part["_target_"]).rpartition(".")[2]


def gib(size: int) -> str:
    """Write bytes for reading."""
    return f"{size / 2**30:.1f} GiB" if size >= 0.95 * 2**30 else f"{size / 2**20:.0f} MiB"
