"""The only importers of diffusers and transformers models: what a cascade is and how its folders are read."""

from unitune.compat import ensure_torchvision

ensure_torchvision()
