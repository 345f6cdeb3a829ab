"""Models of a hub: which commit is meant, and the files of one."""

import re
import shutil
from pathlib import Path

from infra.models.catalogue import CATALOGUE
from infra.models.wheels import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>.+))?")
_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
_SECONDS = 30.0  # to wait for the hub


def check(rest: str) -> tuple[str, str]:
    """Return repository and commit of a hub reference; refuse a branch or tag, because it may move."""
    found = _HUB.fullmatch(rest)
    if not found or not _COMMIT.fullmatch(found["revision"] or ""):
        raise ModelError(
            f"hub:{rest}: expected hub:<owner>/<name>@<commit>, the commit with its 40 digits (a branch or tag may "
            "move); it stands on the model's page under its files"
        )
    return found["repository"], found["revision"]


def without_commit(rest: str) -> str | None:
    """Return the repository of `<owner>/<name>`; None where a commit, a branch or a tag follows.

    >>> without_commit("owner/name"), without_commit("owner/name@main")
    ('owner/name', None)
    """
    found = _HUB.fullmatch(rest)
    return found["repository"] if found and found["revision"] is None else None


def newest_commit(repository: str) -> str:
    """Ask the hub for the newest commit of a model's main branch (40 hexadecimal digits).

    Raises:
        ModelError: the hub does not answer, or has no such model; the message names the form with a commit.
    """
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repository, timeout=_SECONDS).sha or ""
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        raise ModelError(
            f"hub:{repository} names no commit, and the hub could not be asked for it ({_told(error)}). What to do: "
            f"write hub:{repository}@<commit>, the commit with its 40 digits; it stands on the model's page under its "
            "files"
        ) from error
    if not _COMMIT.fullmatch(commit):
        raise ModelError(f"hub:{repository}: the hub names no commit ({commit!r}); write hub:{repository}@<commit>")
    return commit


def download(repository: str, commit: str, target: Path) -> None:
    """Download a model's safetensors, configuration and tokenizer from a hub at a commit.

    Raises:
        ModelError: it is not there, or not to be had; the message says what to do.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        snapshot_download(repository, revision=commit, allow_patterns=_FILES, local_dir=target)
    except (RepositoryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"hub:{repository}@{commit} could not be downloaded ({_told(error)}). What to do: check the name, the "
            f"commit and access rights; without a hub, fetch the directory elsewhere and give path:<directory>, or use "
            f"one of package:{', package:'.join(sorted(CATALOGUE))}"
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _told(error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{type(error).__name__}: {first}"
