"""The classes of diffusers and transformers that models are made of; both are imported here first.

Their progress bars for reading a few megabytes are noise; they need an importable torchvision.
"""

# ruff: noqa: E402, F401

from unitune.models.compat import ensure_torchvision

ensure_torchvision()

import diffusers.utils.logging
import transformers.utils.logging
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import (
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
    AttnProcessor,
    AttnProcessor2_0,
)
from transformers import (
    AutoTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
