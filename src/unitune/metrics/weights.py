"""Where a scoring model's weights come from: a local file, the local cache, or a download.

What cannot be had is refused within 3 seconds.
"""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from unitune.models import hub, parameters
from unitune.storage.disk import shown
from unitune.types import Refused


def read(file: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from torchvision's .pth, of tensors and no code."""
    if not file.is_file():
        raise Refused(
            f"{shown(file)}: no such file of weights; name an existing .safetensors or .pth file"
        )
    if file.suffix not in (".pth", ".pt"):
        return parameters.load(file)
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # damaged, or a pickle that is more than tensors
        raise Refused(
            f"the weights {shown(file)} cannot be read as a plain state dict "
            f"({type(error).__name__}); give torchvision's file, or safetensors"
        ) from error


def changed(file: Path) -> int:
    """Return when a file was last changed, ns, 0 where there is none: what a cache is kept by."""
    return file.stat().st_mtime_ns if file.exists() else 0


def _check_reachable(url: str, *, what: str, otherwise: str) -> None:
    """Refuse a download of `what` that cannot begin now; `otherwise` says what to do instead."""
    request = Request(url, method="HEAD")
    error = hub.failure(lambda: urlopen(request, timeout=hub.TIMEOUT_S).close())
    if error is not None:
        host = urlsplit(url).netloc
        raise Refused(
            f"{what} is not on this machine, and {host} does not give it; {otherwise}"
        ) from error


def of_torchvision(url: str, *, what: str, file: str | Path | None) -> dict[str, Tensor]:
    """Return torchvision's weights from `file`, else from torch's cache, else from its url."""
    if file is not None:
        return read(Path(file))
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not cached.is_file():
        otherwise = f"give file= its weights ({url}, or the same as safetensors)"
        _check_reachable(url, what=what, otherwise=otherwise)
    return torch.hub.load_state_dict_from_url(
        url, map_location="cpu", progress=False, check_hash=True, weights_only=True
    )


def of_hub(repository: str, name: str, *, what: str, otherwise: str) -> Path:
    """Return a file of a hub repository, from the local cache or downloaded."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    if isinstance(found, str):
        return Path(found)
    if constants.HF_HUB_OFFLINE:
        raise Refused(
            f"{what} is not in the local cache, and HF_HUB_OFFLINE forbids to look further; "
            f"{otherwise}"
        )
    _check_reachable(hf_hub_url(repository, name), what=what, otherwise=otherwise)
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # of the HTTP library under the hub's, which differs by version
        raise Refused(
            f"{what} cannot be downloaded ({type(error).__name__}); {otherwise}"
        ) from error
