"""Keys of a pipeline folder's config.json that must not be passed over, as each family allows them.

A network is fed the noisy picture, the noise level and one text. What else it may ask for would be
left out, or fail deep inside it; so the key is refused by its name, before anything is loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitune.errors import whole
from unitune.models.weight_files import json_object

SUPPORTED = (
    "supported are DeepFloyd IF, stages I and II, and Stable Diffusion 1 and 2, text to image"
)
UNET, VAE = "UNet2DConditionModel", "AutoencoderKL"
# Keys of a UNet: what is allowed, and which models have something else.
UNFED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "addition_embed_type": ((None, "text"), "SDXL and Kandinsky are fed more than one text"),
    "encoder_hid_dim_type": ((None, "text_proj"), "Kandinsky and IP-Adapter are fed a picture"),
    "time_cond_proj_dim": ((None,), "LCM, distilled for few steps, is fed the guidance weight"),
    "num_class_embeds": ((None,), "upscalers and networks of classes are fed a label"),
    "dual_cross_attention": ((None, False), "Versatile Diffusion is fed two prompts"),
}
LABEL = "class_embed_type"  # as UNFED, but IF's second stage reads its noise level so
# Of a VAE: the pipelines of newer families shift and scale latents by these.
UNSCALED = ("shift_factor", "latents_mean", "latents_std")
PLACES = 77  # of a prompt's tokens
# CLIP and T5 by the model_type of their config.json; others spell or place their tokens otherwise.
TEXT_WIDTH = {"clip_text_model": "hidden_size", "clip": "hidden_size", "t5": "d_model"}


def unet(part: Path, *, labels: str | None = None) -> Iterator[str]:
    """List what is not done here of a UNet's config; `labels` is the class_embed_type wanted."""
    file, config = part / "config.json", json_object(part / "config.json")
    yield from _class(file, config, UNET)
    for key, (allowed, why) in UNFED.items():
        if (value := config.get(key)) not in allowed:
            yield f"{file} sets {key}: {value!r}, which is not supported ({why}); {SUPPORTED}"
    if (value := config.get(LABEL)) != labels:
        yield (
            f"{file} sets {LABEL}: {value!r} where {labels!r} is expected (unCLIP is fed a "
            f"picture, IF's second stage the noise level of one); {SUPPORTED}"
        )
    side: Any = config.get("sample_size")
    if not (whole(side) and side > 0):
        has = f"sets sample_size: {side!r}" if "sample_size" in config else "has no sample_size"
        yield (
            f"{file} {has}; it must be a whole number, the side in pixels (of "
            "latents, where there is a VAE) that the network was trained at: 64 for Stable "
            f"Diffusion 1.5; set it there, or copy that part again; {SUPPORTED}"
        )


def text(unet_part: Path, encoder: Path, kinds: Sequence[str]) -> Iterator[str]:
    """List why a UNet cannot read what a text encoder of these model types gives."""
    file, config = encoder / "config.json", json_object(encoder / "config.json")
    kind = config.get("model_type", kinds[0])
    if kind not in kinds:
        yield f"{file} is of the model_type {kind!r}, not {' or '.join(kinds)}; {SUPPORTED}"
        return
    config = config.get("text_config") or config
    places = config.get("max_position_embeddings", PLACES)
    if whole(places) and places < PLACES:
        yield (
            f"{file} sets max_position_embeddings: {places}, and prompts take {PLACES} places; "
            f"{SUPPORTED}"
        )
    given, read = config.get(TEXT_WIDTH[kind]), json_object(unet_part / "config.json")
    key = "cross_attention_dim" if read.get("encoder_hid_dim") is None else "encoder_hid_dim"
    wanted = read.get(key)
    widths = wanted if isinstance(wanted, list) else [wanted]
    if given is not None and any(width not in (given, None) for width in widths):
        yield (
            f"{unet_part / 'config.json'} sets {key}: {wanted}, the width of the texts that it "
            f"reads, but {encoder} gives {given}; put the text encoder there that it was trained "
            f"with; {SUPPORTED}"
        )


def vae(part: Path) -> Iterator[str]:
    """List what is not done here of a VAE's config."""
    file, config = part / "config.json", json_object(part / "config.json")
    yield from _class(file, config, VAE)
    for key in UNSCALED:
        if (value := config.get(key)) not in (None, 0, 0.0):
            yield f"{file} sets {key}: {value!r}, which is not supported; {SUPPORTED}"
    factor = config.get("scaling_factor", 0.18215)
    if not (isinstance(factor, int | float) and factor > 0):
        yield f"{file} sets scaling_factor: {factor!r}; it must be a number above 0"


def channels(part: Path, **wanted: Sequence[int]) -> Iterator[str]:
    """List the channels of a UNet that are not as wanted: key -> numbers that are allowed."""
    config = json_object(part / "config.json")
    for key, allowed in wanted.items():
        if config.get(key, 4) not in allowed:
            either = " or ".join(map(str, allowed))
            yield (
                f"{part / 'config.json'} sets {key}: {config.get(key)}, not {either} (inpainting, "
                f"depth and instruction models are fed pictures besides); {SUPPORTED}"
            )


def _class(file: Path, config: Mapping[str, Any], kind: str) -> Iterator[str]:
    named = config.get("_class_name", kind)
    if named != kind:
        yield f"{file} is of the class {named}, not {kind}; {SUPPORTED}"
