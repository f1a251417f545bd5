"""Small random model folders for tests, this project's and its users'.

Their weights mean nothing; classes, config keys and files are those of the real models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unitune.models.libraries import (
    AutoencoderKL,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UNet2DConditionModel,
)

WIDTH = 32  # of the text encoders
LETTERS = "abcdefghijklmnopqrstuvwxyz,.'"

# The keys of DeepFloyd/IF-I-XL's unet/config.json, at small width and fewer levels.
IF_I: dict[str, Any] = {
    "act_fn": "gelu", "addition_embed_type": "text", "addition_embed_type_num_heads": 4,
    "attention_head_dim": 8, "block_out_channels": (8, 32), "center_input_sample": False,
    "class_embed_type": None, "class_embeddings_concat": False, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "cross_attention_dim": 32, "cross_attention_norm": "group_norm",
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "downsample_padding": 1, "dual_cross_attention": False, "encoder_hid_dim": WIDTH,
    "encoder_hid_dim_type": "text_proj", "flip_sin_to_cos": True, "freq_shift": 0,
    "in_channels": 3, "layers_per_block": 1, "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "norm_eps": 1e-05, "norm_num_groups": 4, "num_class_embeds": None,
    "only_cross_attention": False, "out_channels": 6,
    "projection_class_embeddings_input_dim": None, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "scale_shift",
    "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None,
    "time_embedding_type": "positional", "timestep_post_act": None,
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
# What the second stages change: the low-resolution picture and its noise level come in, other
# residual scaling. Cross-attention alone is the embedded model's choice and probably IF-II-M's;
# IF-II-L attends to its own pixels too (only_cross_attention False).
IF_II = IF_I | {
    "class_embed_type": "timestep", "in_channels": 6, "only_cross_attention": True,
    "mid_block_scale_factor": 1.4142271248762552, "resnet_out_scale_factor": 1.4142271248762552,
    "resnet_skip_time_act": True, "time_embedding_act_fn": "gelu", "time_embedding_dim": 32,
}  # fmt: skip
# The keys of Stable Diffusion 1.5's unet/config.json, at small width and fewer levels.
# attention_head_dim is the number of heads here.
SD_15: dict[str, Any] = {
    "act_fn": "silu", "attention_head_dim": 2, "block_out_channels": (8, 16),
    "center_input_sample": False, "cross_attention_dim": WIDTH,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 1,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 4, "out_channels": 4,
    "sample_size": 16, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
SD_21 = SD_15 | {
    "attention_head_dim": (2, 4), "dual_cross_attention": False, "num_class_embeds": None,
    "only_cross_attention": False, "use_linear_projection": True,
}  # fmt: skip
VAE: dict[str, Any] = {
    "act_fn": "silu", "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"), "in_channels": 3,
    "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "out_channels": 3,
    "sample_size": 32, "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
}  # fmt: skip
CLIP: dict[str, Any] = {
    "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
    "hidden_act": "quick_gelu", "hidden_size": WIDTH, "initializer_factor": 1.0,
    "initializer_range": 0.02, "intermediate_size": 32, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "num_attention_heads": 2, "num_hidden_layers": 1,
    "pad_token_id": 1, "projection_dim": WIDTH,
}  # fmt: skip
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def floyd(folder: Path, *, resolutions: tuple[int, int] = (16, 32), seed: int = 0) -> Path:
    """Write an IF-shaped cascade, subfolders `base` and `sr256`; return the folder.

    As IF it predicts eps with a learned variance on the cosine schedule; `resolutions` are the two
    stages' sides in px.
    """
    base, sr256 = folder / "base", folder / "sr256"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _floyd_stage(base, IF_I, resolutions[0], cap=1.5)
        _t5(base)
        _floyd_stage(sr256, IF_II, resolutions[1], cap=1.0)
    low = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    low.save_pretrained(sr256 / "image_noising_scheduler")
    parts = {"scheduler": "DDPMScheduler", "unet": "UNet2DConditionModel", "watermarker": None}
    text = {"text_encoder": "T5EncoderModel", "tokenizer": "T5Tokenizer"}
    _index(base, "IFPipeline", parts | text)
    none = {**dict.fromkeys(text), "image_noising_scheduler": "DDPMScheduler"}
    _index(sr256, "IFSuperResolutionPipeline", parts | none)
    return folder


def sd15(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder like Stable Diffusion 1.5's: eps, PNDM, quick_gelu, pictures of 32 px."""
    scheduler = PNDMScheduler(skip_prk_steps=True, **SCHEDULE)
    return _stable_diffusion(folder, SD_15, scheduler, "quick_gelu", seed)


def sd21(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder like Stable Diffusion 2.1's for 768 px: v, DDIM, gelu, pictures of 32 px."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **SCHEDULE)
    return _stable_diffusion(folder, SD_21 | {"upcast_attention": True}, scheduler, "gelu", seed)


def clipseg(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIPSeg folder as `CIDAS/clipseg-rd64-refined` has it, for 64 px; return it."""
    layers: dict[str, Any] = {
        "hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = _letters()
        tokenizer.save_pretrained(folder)
        config = CLIPSegConfig(
            text_config=layers | {
                "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            vision_config=layers | {"image_size": 64, "patch_size": 16}, projection_dim=WIDTH,
            reduce_dim=8, extract_layers=[0, 1], decoder_num_attention_heads=2,
            decoder_intermediate_size=16, conditional_layer=0,
            use_complex_transposed_convolution=True,
        )  # fmt: skip
        CLIPSegForImageSegmentation(config).save_pretrained(folder)
    return folder


def _floyd_stage(folder: Path, config: dict[str, Any], side: int, *, cap: float) -> None:
    UNet2DConditionModel(sample_size=side, **config).save_pretrained(folder / "unet")
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="epsilon", clip_sample=True,
        variance_type="learned_range", thresholding=True, dynamic_thresholding_ratio=0.95,
        sample_max_value=cap,
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")


def _stable_diffusion(
    folder: Path, config: dict[str, Any], scheduler: Any, act: str, seed: int
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        UNet2DConditionModel(**config).save_pretrained(folder / "unet")
        AutoencoderKL(**VAE).save_pretrained(folder / "vae")
        tokenizer = _letters()
        tokenizer.save_pretrained(folder / "tokenizer")
        text = CLIPTextConfig(**CLIP | {"hidden_act": act, "vocab_size": len(tokenizer)})
        CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": type(scheduler).__name__, "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL",
    }  # fmt: skip
    _index(folder, "StableDiffusionPipeline", parts)
    return folder


def _index(folder: Path, pipeline: str, parts: Mapping[str, str | None]) -> None:
    """Write which class reads which part; None: the pipeline does without."""
    index: dict[str, Any] = {"_class_name": pipeline, "requires_safety_checker": False}
    for part, kind in {**parts, "safety_checker": None, "feature_extractor": None}.items():
        of_text = part in ("text_encoder", "tokenizer")
        library = None if kind is None else "transformers" if of_text else "diffusers"
        index[part] = [library, kind]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _letters() -> CLIPTokenizer:
    """Return a tokenizer that knows letters."""
    pieces = ["!", *LETTERS]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = [*pieces, *(f"{piece}</w>" for piece in pieces), *marks]
    vocab = {piece: i for i, piece in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _t5(folder: Path) -> None:
    """Write a tokenizer that knows letters, and a one-layer T5 encoder."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = T5Config(
        vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", is_encoder_decoder=False,
        d_model=WIDTH, d_kv=8, num_heads=2, num_layers=1, d_ff=32,
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
