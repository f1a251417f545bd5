"""Hub repositories: what the local cache has, whether the rest can be had, and why not."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitune.errors import Refused

TIMEOUT_S = 2.0  # of one request; a name server that does not answer ignores it, hence the limit
LIMIT_S = 2.5  # of the whole question
# A file of every pipeline; asking for it meets network, licence and token as a download would.
ALWAYS_THERE = "model_index.json"
WHAT_TO_DO = (
    "accept the licence on its page and log in (`hf auth login` or HF_TOKEN), "
    "or give model.path a local folder"
)


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

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.id.partition("/")[0]


def cached(repo: Repo) -> Path | None:
    """Return the repository's snapshot in the local cache, complete or not; asks nobody."""
    from huggingface_hub import snapshot_download

    try:
        # Nothing matches [], so that a snapshot with some parts is found too; which parts it needs
        # is the model's to check.
        found = snapshot_download(
            repo.id, revision=repo.revision, allow_patterns=[], local_files_only=True
        )
    except OSError:
        return None
    return Path(found)


def commit(folder: Path) -> str | None:
    """Return `owner/name@commit` of a snapshot in the hub's cache, which names its bytes."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return f"{repository.removeprefix('models--').replace('--', '/', 1)}@{folder.name}"


def ask(repo: Repo, *, file: str = ALWAYS_THERE, otherwise: str = WHAT_TO_DO) -> None:
    """Refuse, within 3 seconds, a repository that cannot be downloaded now.

    `file` is one that it surely holds; `otherwise` says what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo.id, file, revision=repo.revision)
    error = failure(lambda: get_hf_file_metadata(url, timeout=TIMEOUT_S))
    if error is not None:
        raise _refusal(repo, error, otherwise) from error


def failure(question: Callable[[], object]) -> Exception | None:
    """Ask the network; return why there was no answer within LIMIT_S, None where there was one."""
    errors: list[Exception] = []

    def ask_it() -> None:
        try:
            question()
        except Exception as error:  # of the HTTP library under the hub's, which differs by version
            errors.append(error)

    thread = threading.Thread(target=ask_it, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return TimeoutError() if thread.is_alive() else next(iter(errors), None)


def download(repo: Repo, parts: Sequence[str], *, variant: str = "") -> Path:
    """Download what these parts of a pipeline need; return the snapshot's folder."""
    kinds = ("*.json", "*.txt", "*.model", f"*{f'.{variant}' if variant else ''}*.safetensors")
    patterns = [ALWAYS_THERE, *(f"{part}/{kind}" for part in parts for kind in kinds)]
    # Repositories also hold other precisions and weights without averaging under longer names.
    ignored = () if variant else ("*.fp16*.safetensors", "*.non_ema*", "*.8bit*")
    return fetch(repo, patterns, ignored=ignored)


def fetch(
    repo: Repo,
    patterns: Sequence[str],
    *,
    ignored: Sequence[str] = (),
    file: str = ALWAYS_THERE,
    otherwise: str = WHAT_TO_DO,
) -> Path:
    """Download the files that match; return the snapshot's folder. Refuses as `ask` does."""
    from huggingface_hub import snapshot_download

    ask(repo, file=file, otherwise=otherwise)
    try:
        found = snapshot_download(
            repo.id, revision=repo.revision, allow_patterns=list(patterns),
            ignore_patterns=list(ignored), etag_timeout=TIMEOUT_S,
        )  # fmt: skip
    except Exception as error:
        raise _refusal(repo, error, otherwise) from error
    return Path(found)


def _refusal(repo: Repo, error: Exception, otherwise: str) -> Refused:
    """Say in one line why a repository cannot be had and what to do."""
    from huggingface_hub import errors

    reasons = {
        errors.GatedRepoError: "its licence has not been accepted, or you are not logged in",
        errors.RepositoryNotFoundError: (
            "there is no such repository, or it is private and you are not logged in"
        ),
        errors.RevisionNotFoundError: f"it has no revision {repo.revision}",
        errors.OfflineModeIsEnabled: (
            "it is not in the local cache, and HF_HUB_OFFLINE forbids to look further"
        ),
        errors.LocalEntryNotFoundError: (
            "it is not in the local cache, and the hub does not answer"
        ),
    }
    detail = next(iter(str(error).strip().splitlines()), "") or "no answer"
    unknown = (
        "it is not complete in the local cache, and the hub cannot be reached "
        f"({type(error).__name__}: {detail[:120]})"
    )
    said = next((said for kind, said in reasons.items() if isinstance(error, kind)), unknown)
    return Refused(f"the model {repo.id} cannot be had: {said}; {otherwise}")
