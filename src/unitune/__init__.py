"""unitune: text-driven editing of one image by fine-tuning a diffusion model on it.

The names of `__all__` are what a script needs to edit a picture; each is loaded when it is first
used, so that importing the package loads no library.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "api": ("load", "picture", "sample", "tune"),
    "benchmarks.manifest": ("Folder",),
    "diffusion.interpolation": ("Interpolation",),
    "diffusion.guidance": ("Guidance",),
    "diffusion.sampler": ("Sampler",),
    "diffusion.sampling": ("SuperResolution",),
    "diffusion.steps": ("DDIM", "DDPM"),
    "images": ("save_png",),
    "methods.dreambooth": ("DreamBooth",),
    "methods.imagic": ("Imagic",),
    "methods.textual_inversion": ("TextualInversion",),
    "methods.unitune": ("UniTune",),
    "methods.untuned": ("Untuned",),
    "storage.store": ("Store",),
    "tuning.recipe": ("Tuning",),
    "types": ("Draw", "Edit", "Example", "Refused", "Request", "Tuned"),
}
_MODULE = {name: module for module, names in _PLACES.items() for name in names}
__all__ = sorted([*_MODULE, "pocket"])


def __getattr__(name: str) -> Any:
    if name == "pocket":
        return import_module("unitune.tuning.pocket")
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
