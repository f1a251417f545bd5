"""The only importers of diffusers and transformers models: what a cascade is and how its folders are read."""

from unitune.compat import ensure_torchvision

ensure_torchvision()

from transformers.utils.logging import disable_progress_bar  # noqa: E402

disable_progress_bar()  # a bar for reading a few megabytes is noise
