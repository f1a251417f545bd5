"""The classes of diffusers and transformers that models are made of; both are imported here first.

Their bars for reading a few megabytes are noise, and torchvision must be made importable before.
"""

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import diffusers.utils.logging  # noqa: E402
import transformers.utils.logging  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import (  # noqa: E402
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
    AttnProcessor,
    AttnProcessor2_0,
)
from transformers import (  # noqa: E402
    AutoTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

__all__ = [
    "AttnAddedKVProcessor",
    "AttnAddedKVProcessor2_0",
    "AttnProcessor",
    "AttnProcessor2_0",
    "AutoTokenizer",
    "AutoencoderKL",
    "CLIPSegConfig",
    "CLIPSegForImageSegmentation",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTokenizer",
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "T5Config",
    "T5EncoderModel",
    "T5Tokenizer",
    "UNet2DConditionModel",
]
