"""Hub repositories: what is in the local cache, whether the rest can be had, and the one line that says why not."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitune.errors import Refused

TIMEOUT_S = 2.0  # of one request; a name server that does not answer ignores it, so the whole question has a limit too
LIMIT_S = 2.5
ALWAYS_THERE = "model_index.json"  # of every pipeline; asking for it meets network, licence and token as a download would
WHAT_TO_DO = "accept the licence on its page and log in (`hf auth login` or HF_TOKEN), or give model.path a local folder"


@dataclass(frozen=True)
class Repo:
    """A repository of the hub at a revision: a commit where it is pinned."""

    id: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> "Repo":
        """Read `owner/name` or `owner/name@revision`."""
        name, _, revision = text.partition("@")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
            raise Refused(
                f"{text!r} is neither a folder nor a repository of the hub (owner/name@revision)"
            )
        return cls(name, revision or "main")


def cached(repo: Repo) -> Path | None:
    """Return the repository's snapshot in the local cache, complete or not, or None; asks nobody."""
    from huggingface_hub import snapshot_download

    try:
        # Nothing matches this pattern, so that a snapshot with some parts is found too; which parts it needs is the model's to check.
        return Path(
            snapshot_download(
                repo.id, revision=repo.revision, allow_patterns=[], local_files_only=True
            )
        )
    except OSError:
        return None


def commit(folder: Path) -> str | None:
    """Return `owner/name@commit` of a snapshot in the hub's cache, which names its bytes; None for any other folder."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return f"{repository.removeprefix('models--').replace('--', '/', 1)}@{folder.name}"


def ask(repo: Repo, *, file: str = ALWAYS_THERE, otherwise: str = WHAT_TO_DO) -> None:
    """Refuse a repository that cannot be downloaded now: no network, no such repository, licence not accepted. Takes at most 3 seconds.

    `file` is one that it surely holds; `otherwise` says what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    errors: list[Exception] = []

    def question() -> None:
        try:
            get_hf_file_metadata(
                hf_hub_url(repo.id, file, revision=repo.revision), timeout=TIMEOUT_S
            )
        except (
            Exception
        ) as error:  # the HTTP library under the hub's, and so its errors, differ by version
            errors.append(error)

    thread = threading.Thread(target=question, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():
        errors.append(TimeoutError())
    if errors:
        raise refusal(repo, errors[0], otherwise=otherwise) from errors[0]


def download(repo: Repo, parts: Sequence[str], *, variant: str = "") -> Path:
    """Download what these parts of a pipeline need, safetensors only; return the snapshot's folder."""
    from huggingface_hub import snapshot_download

    ask(repo)
    patterns = [
        ALWAYS_THERE,
        *(f"{part}/{kind}" for part in parts for kind in ("*.json", "*.txt", "*.model")),
    ]
    patterns += [f"{part}/*{f'.{variant}' if variant else ''}*.safetensors" for part in parts]
    # The hub's repositories also hold other precisions and weights without averaging under longer names.
    ignored = [] if variant else ["*.fp16*.safetensors", "*.non_ema*", "*.8bit*"]
    try:
        return Path(
            snapshot_download(
                repo.id,
                revision=repo.revision,
                allow_patterns=patterns,
                ignore_patterns=ignored,
                etag_timeout=TIMEOUT_S,
            )
        )
    except Exception as error:
        raise refusal(repo, error) from error


def refusal(repo: Repo, error: Exception, *, otherwise: str = WHAT_TO_DO) -> Refused:
    """Say in one line why a repository cannot be had and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reasons = (
        (GatedRepoError, "its licence has not been accepted, or you are not logged in"),
        (
            RepositoryNotFoundError,
            "there is no such repository, or it is private and you are not logged in",
        ),
        (RevisionNotFoundError, f"it has no revision {repo.revision}"),
        (
            OfflineModeIsEnabled,
            "it is not in the local cache, and HF_HUB_OFFLINE forbids to look further",
        ),
        (LocalEntryNotFoundError, "it is not in the local cache, and the hub does not answer"),
    )
    said = next((said for kind, said in reasons if isinstance(error, kind)), None)
    if said is None:
        detail = next(iter(str(error).strip().splitlines()), "") or "no answer"
        said = f"it is not complete in the local cache, and the hub cannot be reached ({type(error).__name__}: {detail[:120]})"
    return Refused(f"the model {repo.id} cannot be had: {said}; {otherwise}")
