"""The only importers of diffusers and transformers models: what a cascade is and how its folders are read."""

from unitune.compat import ensure_torchvision

ensure_torchvision()

import diffusers.utils.logging  # noqa: E402
import transformers.utils.logging  # noqa: E402

diffusers.utils.logging.disable_progress_bar()  # a bar for reading a few megabytes is noise
transformers.utils.logging.disable_progress_bar()
