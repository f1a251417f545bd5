"""Stock open_clip models (ViT-B-32, ViT-L-14 ...) behind the same seam as the pocket CLIP, with open_clip's own preprocessing done on tensors."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor

from unitune.metrics import weights
from unitune.metrics.batches import resized
from unitune.metrics.clip import WEIGHTS, Clip
from unitune.models import parameters
from unitune.types import Refused


def prepared(
    image: Float[Tensor, "B 3 H W"], *, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "B 3 size size"]:
    """Resize pictures in [-1, 1] by antialiased bicubic to the centre's square, without open_clip's rounding to bytes; normalise."""
    x = resized((image + 1) / 2, size, mode="bicubic").clamp(0, 1)
    to = {"dtype": x.dtype, "device": x.device}
    return (x - torch.tensor(mean, **to)[:, None, None]) / torch.tensor(std, **to)[:, None, None]


@dataclass(frozen=True)
class Stock:
    """An open_clip model by its id and pretrained tag; `file` gives the tag's weights as safetensors, else they come from the hub."""

    model: str
    pretrained: str
    file: str | None = None

    def load(self) -> Clip:
        """Load it once; weights that cannot be had are refused before a network is built."""
        return _loaded(self.model, self.pretrained, self.file)


@lru_cache(maxsize=4)
def _loaded(model: str, pretrained: str, file: str | None) -> Clip:
    config = open_clip.get_model_config(model)
    if config is None or set(config) - {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}:
        raise Refused(
            f"{model!r} is no plain CLIP of open_clip; some are ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14"
        )
    published = open_clip.get_pretrained_cfg(model, pretrained)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not published and (file is None or tags):
        raise Refused(
            f"{model} has no weights {pretrained!r}; open_clip knows: {', '.join(tags) or 'none, so give file='}"
        )
    what = f"the CLIP {model} ({pretrained})"
    if file is None:
        otherwise = f"give file= its {WEIGHTS}, or use metrics=offline"
        path = weights.of_hub(
            str(published["hf_hub"]).rstrip("/"), WEIGHTS, what=what, otherwise=otherwise
        )
    elif not Path(file).is_file():
        raise Refused(f"{file}: no such file; give the weights of {what} as safetensors")
    else:
        path = Path(file)
    values = parameters.load(path)
    network = open_clip.CLIP(
        **{**config, "quick_gelu": bool(config.get("quick_gelu") or published.get("quick_gelu"))}
    )
    try:
        network.load_state_dict(
            {
                name: value.float() if value.is_floating_point() else value
                for name, value in values.items()
            }
        )
    except RuntimeError as error:
        raise Refused(
            f"{path} does not hold the weights of {model}: {str(error).splitlines()[-1].strip()}"
        ) from error
    size = config["vision_cfg"]["image_size"]
    mean, std = (
        tuple(published.get(name, default))
        for name, default in (
            ("mean", open_clip.OPENAI_DATASET_MEAN),
            ("std", open_clip.OPENAI_DATASET_STD),
        )
    )
    prepare = partial(prepared, size=size, mean=mean, std=std)
    card = {
        "backbone": f"open_clip {model}, weights {pretrained}",
        "preprocessing": f"mean {', '.join(f'{x:.4g}' for x in mean)}, std {', '.join(f'{x:.4g}' for x in std)}; texts by its own tokenizer",
        "resize": f"antialiased bicubic to {size} px on float tensors",
        "version": f"open_clip {open_clip.__version__}",
    }
    label = "_" + model.lower().replace("-quickgelu", "").replace("-", "_")
    return Clip(
        network.eval().requires_grad_(False), open_clip.get_tokenizer(model), prepare, label, card
    )
