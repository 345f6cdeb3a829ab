"""Addresses of files elsewhere (`s3://…`, `hf://…`): which kinds are read, and which are Reneg's own results.

A configuration names them. Nothing else of fsspec is opened: some of its kinds run programs, write caches, or read
files that a third file names.
"""

import glob
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from flows.config.section import ConfigError
from infra.settings import Settings
from infra.storage.errors import is_of_storage

_LOCAL = ("file", "local")
_WEB = ("http", "https")
_SAME = {"local": "file", "s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}  # several spellings of one kind
_STORAGES = (*_LOCAL, "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", *_WEB)
_ARCHIVES = ("zip", "tar")
# A wrong address, a missing library; and what archives raise that are broken, encrypted or packed in another way.
_UNREADABLE = (ValueError, ImportError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
_SYSTEM = ("/proc", "/sys")
_HUB_KINDS = ("datasets", "models", "spaces", "kernels", "buckets")
_RESULTS = "(objects|published)"  # folders of a store that hold training data


def local_path(address: str) -> Path | None:
    """Return the path of a file or folder on this machine; None if the address leads elsewhere or into an archive."""
    if "://" not in address:
        return Path(address)
    kinds = [kind for kind, _ in _links(address)]
    return Path(LocalFileSystem._strip_protocol(address)) if len(kinds) == 1 and kinds[0] in _LOCAL else None


def refuse_system_file(path: Path, setting: str) -> None:
    """Refuse a path in /proc or /sys: what is there, such as the variables of a process, is nobody's data.

    Raises:
        ConfigError: it is one; `setting` names where it stands.
    """
    real = path.resolve()
    if any(real.is_relative_to(folder) for folder in _SYSTEM):
        raise ConfigError(f"{setting}: {path} is a file of the running system; give a file or folder of your own")


def is_web_page(address: str) -> bool:
    """Tell whether an address is that of one file on a web server, which has no folders."""
    return urlsplit(address).scheme in _WEB and "::" not in address


def open_address(address: str, setting: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        ConfigError: this kind of address is not read; `setting` names where it stands.
        ValueError, ImportError: the address is wrong, or the library for it is not installed.
    """
    if (path := local_path(address)) is not None:
        refuse_system_file(path, setting)
        return LocalFileSystem(), str(path.absolute())
    *outer, (innermost, _) = _links(address)
    wrong = [kind for kind, _ in outer if kind not in _ARCHIVES] + [innermost] * (innermost not in _STORAGES)
    if wrong:
        raise ConfigError(
            f"{setting}: {wrong[0]}:// is not read; a path, s3://, gs://, az://, hf:// or https:// expected, or an "
            "archive in one of them, such as zip://::s3://bucket/rows.zip"
        )
    found: tuple[Any, str] = url_to_fs(_of_datasets(address))
    return found


def _of_datasets(address: str) -> str:
    """Read `hf://owner/name` as a data set: without `datasets/` the hub's library looks for a model."""
    *outer, last = address.split("::")
    kind, mark, rest = last.partition("://")
    if kind == "hf" and mark and rest.split("/")[0] not in _HUB_KINDS:
        last = f"hf://datasets/{rest}"
    return "::".join([*outer, last])


def pinned(address: str) -> str:
    """Return the address of a data set of a hub with the commit that its revision names now; others as they are.

    So all files are of one commit, whatever is pushed meanwhile, and the record says which.

    Raises:
        Exception: the hub does not answer, or knows no such data set; `is_unreadable` tells these errors.
    """
    if not address.startswith("hf://"):
        return address
    fs, root = open_address(address, "source.path")
    found = fs.resolve_path(root)
    if not hasattr(found, "repo_id"):  # a bucket, which has no commits
        return address
    commit = fs._api.repo_info(found.repo_id, repo_type=found.repo_type, revision=found.revision).sha
    above = f"hf://{found.repo_type}s/{found.repo_id}@{commit}"
    return f"{above}/{found.path_in_repo}" if found.path_in_repo else above


def told(address: str, error: Exception) -> str:
    """Say that an address cannot be read, why, and what to do."""
    why = f"{address} cannot be read ({type(error).__name__}: {error})"
    if [*_links(address)][-1][0] != "hf":
        return why
    name = _of_datasets(address).partition("://")[2].removeprefix("datasets/").partition("@")[0]
    return (
        f"{why}. What to do: check the name, the revision and access (HF_TOKEN). Where the hub cannot be reached, run "
        f"`hf download {'/'.join(name.split('/')[:2])} --repo-type dataset --local-dir rows` on a machine that reaches "
        "it and give that folder, or name a mirror in HF_ENDPOINT"
    )


def fixed_part(pattern: str) -> str:
    """Return the folder above the first part of a path that has a wildcard.

    >>> fixed_part("data/2024-*/train.jsonl"), fixed_part("*.jsonl"), fixed_part("/data/[ab].jsonl")
    ('data', '', '/data')
    """
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if has_wildcard(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else "")


def has_wildcard(path: str) -> bool:
    """Tell whether a path is a pattern: with `*`, `?` or `[…]`."""
    return glob.has_magic(path)


def is_unreadable(error: Exception) -> bool:
    """Tell whether an error says that what an address names cannot be read; others are defects of our code."""
    return is_of_storage(error) or isinstance(error, _UNREADABLE)


def refuse_own_output(address: str, settings: Settings) -> None:
    """Refuse a source in the store or among the results, or around them: a nightly run would relabel its own output.

    Raises:
        ConfigError: it is one; with the remedy.
    """
    source = _place(address)
    for ours in (settings.store, str(settings.home / "curations")):
        own = _place(ours)
        if any(_is_below(inner, outer) for inner in _spellings(source) for outer in _spellings(own)):
            raise ConfigError(
                f"source.path: {address} is Reneg's own output; give the original source, with its own labels"
            )
        if any(_is_below(inner, outer) for inner in _spellings(own) for outer in _spellings(source)):
            raise ConfigError(
                f"source.path: {address} holds Reneg's own results ({ours}), so each run would read those of the last; "
                "give the files themselves, or a folder without them"
            )
        if own[0] == "s3" and source[0] in _WEB and _serves(address, own[1]):
            raise ConfigError(f"source.path: {address} is Reneg's own output, read by a web address; give the source")


def _links(address: str) -> Iterator[tuple[str, str]]:
    """Yield kind and path of each link of a chained address, as fsspec reads it: `zip://a::s3://b`, `zip::s3://b`."""
    for link in address.split("::"):
        kind, mark, path = link.partition("://")
        if mark:
            yield kind, path
        else:
            yield (link, "") if re.fullmatch("[a-z]+", link) else ("file", link)


def _place(address: str) -> tuple[str, str]:
    """Return where the innermost link of an address leads: the kind of storage, and the path in it."""
    kind, path = [*_links(address)][-1] if "://" in address else ("file", address)
    kind = _SAME.get(kind, kind)
    return kind, str(Path(path).resolve()) if kind == "file" else path


def _spellings(place: tuple[str, str]) -> set[tuple[str, str]]:
    """Return a place as it is written, and as a server that decodes and shortens paths may read it."""
    kind, path = place
    if kind == "file":
        return {place}
    return {(kind, posixpath.normpath(f"/{written}").lstrip("/")) for written in (path, unquote(unquote(path)))}


def _is_below(inner: tuple[str, str], outer: tuple[str, str]) -> bool:
    return inner[0] == outer[0] and f"{inner[1]}/".startswith(f"{outer[1].rstrip('/')}/")


def _serves(address: str, store: str) -> bool:
    """Tell whether a web address leads to a file of an S3 store: host/bucket/prefix/…, or bucket.host/prefix/…."""
    url = urlsplit([*address.split("::")][-1])
    bucket, _, prefix = store.strip("/").partition("/")
    path = posixpath.normpath(unquote(url.path)).strip("/")
    below = f"{prefix}/" if prefix else ""
    by_host = (url.hostname or "").startswith(f"{bucket}.") and re.match(f"{re.escape(below)}{_RESULTS}/", path)
    return bool(by_host or re.match(f"{re.escape(f'{bucket}/{below}')}{_RESULTS}/", path))
