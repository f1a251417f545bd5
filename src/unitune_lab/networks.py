"""The shapes of the embedded models, which have DeepFloyd IF's architecture.

They have few channels at 64 px and many at 8 px, because that is what a CPU trains fastest.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer
from unitune.errors import Refused, whole
from unitune.scenes.vocabulary import (
    COLOURS,
    COUNTS,
    LEFT,
    NOUNS,
    PLACES,
    RIGHT,
    STYLES,
    TIMES,
    plural,
)

TEXT_WIDTH = 128
TEXT_LENGTH = 77  # tokens; stock IF pads every caption to this and gives the UNet no mask
SHORTCUT_SCALE = 2**0.5  # by which IF-II's blocks divide the sum of body and shortcut
LOUD = 4.0  # constant channels beside a picture in [-1, 1]
CHANNELS = {"base": (32, 64, 128, 256), "sr256": (16, 48, 96, 128)}


def vocabulary() -> list[str]:
    """Return every word that a caption of the scenes world can hold, in a fixed order."""
    nouns = [*NOUNS, *(word for _, others in NOUNS.values() for word in others)]
    phrases = [*nouns, *map(plural, nouns), *COUNTS.values(), *COLOURS, *LEFT, *RIGHT]
    phrases += ["a", "an", "and", "with", "scene"]
    phrases += [p for group in (PLACES, TIMES) for options in group.values() for p in options]
    phrases += [p for sides in STYLES.values() for options in sides for p in options]
    words = {word.strip(",") for phrase in phrases for word in phrase.lower().split()}
    return sorted(words - {""})


def tokenizer() -> T5Tokenizer:
    """Build the tokenizer: a word of the world is one piece, any other falls into letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-&"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in vocabulary() if len(word) > 1]
    pieces += [(f"▁{c}" if c == "a" else c, -2.0 if c == "a" else -8.0) for c in letters]
    return T5Tokenizer(vocab=[*pieces, ("a", -8.0)], extra_ids=0, model_max_length=TEXT_LENGTH)


def text_encoder(vocab_size: int) -> T5EncoderModel:
    """Build the T5 v1.1 encoder, about 0.9 M parameters."""
    config = T5Config(
        vocab_size=vocab_size, d_model=TEXT_WIDTH, d_kv=32, num_heads=4, num_layers=3, d_ff=320,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, relative_attention_num_buckets=16,
        relative_attention_max_distance=32, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return T5EncoderModel(config)


def _blocks(kind: str, attention: str) -> tuple[str, ...]:
    names = {"r": f"Resnet{kind}sampleBlock2D", "a": f"SimpleCrossAttn{kind}Block2D"}
    return tuple(names[letter] for letter in attention)


def _unet(
    channels: Sequence[int],
    attention: str,
    *,
    norm_groups: int,
    super_resolution: bool = False,
    **more: Any,
) -> UNet2DConditionModel:
    levels = len(attention)
    if len(channels) != levels and super_resolution:  # which levels attend is no option there
        raise Refused(f"channels must list {levels} levels; got {list(channels)}")
    if len(channels) != levels or not set(attention) <= set("ra"):
        raise Refused(
            f"attention must have a letter r or a for each of the {len(channels)} levels that "
            f"channels lists; got {attention!r}"
        )
    units = [32 if letter == "a" else 16 for letter in attention[:-1]] + [32]
    fits = (whole(c) and c > 0 and c % unit == 0 for c, unit in zip(channels, units, strict=True))
    if not all(fits):
        raise Refused(
            "channels must be multiples of 16 above 0, and of 32 where a level attends to the text "
            f"and at the coarsest; got {list(channels)}"
        )
    return UNet2DConditionModel(
        out_channels=6, block_out_channels=tuple(channels), layers_per_block=1,
        down_block_types=_blocks("Down", attention),
        up_block_types=_blocks("Up", attention[::-1]),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        attention_head_dim=32, cross_attention_dim=channels[-1],
        encoder_hid_dim=TEXT_WIDTH, encoder_hid_dim_type="text_proj",
        addition_embed_type="text", addition_embed_type_num_heads=4,
        norm_num_groups=norm_groups, resnet_time_scale_shift="scale_shift", **more,
    )  # fmt: skip


def base_unet(
    channels: Sequence[int] = CHANNELS["base"], attention: str = "rraa"
) -> UNet2DConditionModel:
    """Build the 64 px UNet, 13.1 M parameters by default.

    `attention` has a letter for each level, from fine to coarse: a level `a` attends to the text,
    a level `r` does not.
    """
    return _unet(channels, attention, norm_groups=16, sample_size=64, in_channels=3)


def sr_unet(channels: Sequence[int] = CHANNELS["sr256"]) -> UNet2DConditionModel:
    """Build the UNet from 64 to 256 px, 3.9 M parameters by default.

    As in IF-II it reads the noisy picture and, beside it, the noised low-resolution picture;
    `class_labels` is the noise level of the latter.
    """
    unet = _unet(
        channels, "rrra", norm_groups=2, super_resolution=True, sample_size=256, in_channels=6,
        class_embed_type="timestep", only_cross_attention=True, resnet_skip_time_act=True,
        resnet_out_scale_factor=SHORTCUT_SCALE, mid_block_scale_factor=SHORTCUT_SCALE,
    )  # fmt: skip
    start_as_copy(unet)
    return unet


@torch.no_grad()
def start_as_copy(unet: UNet2DConditionModel) -> None:
    """Set first weights with which the network answers v = -(its low-resolution picture).

    Training so begins at the upsampled picture, not at noise. The picture travels conv_in -> last
    skip connection -> conv_out. Channels come in pairs +c, -c: their mean is 0, so a norm group
    only scales them, and SiLU(c) - SiLU(-c) = c. A constant pair of LOUD in each group makes that
    scale nearly the same for every picture.
    """
    net: Any = unet
    first, last, out = net.conv_in, net.up_blocks[-1].resnets[-1], net.conv_out
    half = first.out_channels // 2  # a norm group: one holds the low-resolution picture's pairs
    first.weight.zero_()
    first.bias.zero_()
    for group, source in ((0, 3), (half, 0)):
        for colour in range(3):
            first.weight[group + 2 * colour, source + colour, 1, 1] = 1
            first.weight[group + 2 * colour + 1, source + colour, 1, 1] = -1
        first.bias[group + 6], first.bias[group + 7] = LOUD, -LOUD
    last.conv2.weight.mul_(0.1)
    last.conv2.bias.zero_()
    last.conv_shortcut.weight.mul_(0.1)
    last.conv_shortcut.bias.zero_()
    skip = last.conv_shortcut.weight[:, -first.out_channels :, 0, 0]
    skip.copy_(torch.eye(first.out_channels) * SHORTCUT_SCALE)
    scale = (2 * LOUD**2 / half) ** 0.5  # what the last norm divides by
    out.weight.mul_(0.1)
    out.bias.zero_()
    for colour in range(3):
        out.weight[colour] = 0
        out.weight[colour, 2 * colour, 1, 1] = -scale
        out.weight[colour, 2 * colour + 1, 1, 1] = scale


def scheduler(*, sample_max_value: float) -> DDPMScheduler:
    """Build the stock scheduler that samples the embedded models.

    It has IF's cosine schedule and thresholding, but v-prediction and a fixed variance.
    """
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
        variance_type="fixed_small", timestep_spacing="trailing", thresholding=True,
        dynamic_thresholding_ratio=0.95, sample_max_value=sample_max_value, clip_sample=True,
    )  # fmt: skip
