"""Copies a curation's source into the store: a file or folder, on this machine or in object storage."""

import tempfile
from pathlib import Path

from fsspec.core import url_to_fs

from flows.config.curation import CurationConfig
from flows.config.section import ConfigError
from infra.settings import Settings
from infra.storage.artifacts import Directory, write_directory
from infra.storage.errors import is_of_storage
from infra.storage.large_files import put_file
from infra.storage.store import Store

_WANTED = "give a JSONL file, a folder of them or a BEIR folder"


def import_source(store: Store, settings: Settings, config: CurationConfig) -> Directory | None:
    """Copy the source into the store, so that the curation can be repeated without it; None for a harvest.

    Raises:
        ConfigError: it does not exist, or a curation made it: relabelled data must not be relabelled again.
    """
    if config.source.path is None:
        return None
    _refuse_own_output(config.source.path, settings)
    if "://" in config.source.path:
        return _import_remote(store, config.source.path)
    path = Path(config.source.path)
    if not path.exists():
        raise ConfigError(f"source.path: {path} does not exist; {_WANTED}")
    if path.is_dir():
        return write_directory(store, "source", path)
    return Directory("source", {path.name: put_file(store, path)})


def _import_remote(store: Store, url: str) -> Directory:
    try:
        fs, root = url_to_fs(url)
        files = sorted(fs.find(root))
        if not files:
            raise ConfigError(f"source.path: nothing at {url}; {_WANTED}")
        with tempfile.TemporaryDirectory(prefix="reneg-source-") as folder:
            for name in files:
                inside = name.removeprefix(root.rstrip("/")).lstrip("/") or name.rsplit("/", 1)[-1]
                target = Path(folder) / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(name, str(target))
            return write_directory(store, "source", Path(folder))
    except Exception as error:
        if not is_of_storage(error) and not isinstance(error, ValueError | ImportError):
            raise
        raise ConfigError(f"source.path: {url} cannot be read ({type(error).__name__}: {error})") from error


def _refuse_own_output(path: str, settings: Settings) -> None:
    """Refuse a source in the store or among the results: a nightly run would relabel its own output."""
    message = f"source.path: {path} is Reneg's own output; give the original source, with its own labels"
    if "://" in path:
        if f"{path.rstrip('/')}/".startswith(f"{settings.store.rstrip('/')}/"):
            raise ConfigError(message)
        return
    real = Path(path).resolve()
    ours = [settings.home / "curations"] + ([] if "://" in settings.store else [Path(settings.store)])
    if any(real.is_relative_to(folder.resolve()) for folder in ours):
        raise ConfigError(message)
