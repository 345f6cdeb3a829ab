"""Checks of what a model directory holds, and its digest by content."""

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from infra.confined import is_confined
from infra.models.wheels import ModelError, sha256_of

# What decides a model's answers; a read-me or a licence beside it does not.
_RELEVANT = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken"})
_VECTORS = frozenset({".parquet", ".npy", ".txt"})  # of a folder that holds vectors and no model
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_OWN_FILES = frozenset({"reneg-model.json"})


def check_model_directory(path: Path) -> None:
    """Refuse a path that is no model directory, or a model that brings code which loading it could run.

    Raises:
        ModelError: no such directory, no safetensors, pickled weights only, or custom modelling code.
    """
    if not path.is_dir():
        raise ModelError(f"{path}: no such directory; expected a model directory with *.safetensors, or a .gguf file")
    suffixes = {file.suffix for file in path.rglob("*") if file.is_file()}
    if ".safetensors" not in suffixes:
        if found := suffixes & _PICKLED:
            raise ModelError(
                f"{path}: its weights are pickled ({', '.join(sorted(found))}), and loading a pickle can run any code; "
                "convert them to safetensors (save_pretrained of the loaded model), or take a revision that has them"
            )
        raise ModelError(f"{path}: no *.safetensors in it; expected the directory of a transformers model")
    if not (path / "config.json").exists() and not (path / "modules.json").exists():
        raise ModelError(f"{path}: neither config.json nor modules.json in it; expected the model's own directory")
    refuse_foreign_code(path)


def check_vectors_directory(path: Path) -> None:
    """Refuse a path that holds no vectors; what is in the files is checked when they are read.

    Raises:
        ModelError: no such directory, or a file is missing.
    """
    for stem in ("passages", "queries"):
        if not any((path / f"{stem}{ending}").is_file() for ending in (".parquet", ".npy")):
            raise ModelError(
                f"{path}: {stem}.parquet expected in it, or {stem}.npy with its keys beside it (docs/judging.md)"
            )


def refuse_foreign_code(path: Path) -> None:
    """Refuse a model's folder if loading the model could run code that it brings.

    Raises:
        ModelError: pickled weights without safetensors beside them, or settings that name modelling code of the model.
    """
    for file in sorted(path.rglob("*")):
        if file.suffix in _PICKLED and not any(file.parent.glob("*.safetensors")):
            raise ModelError(
                f"{file}: pickled weights, and no safetensors beside them; loading a pickle can run any code. Convert "
                "them to safetensors (save_pretrained of the loaded model), or take a revision that has them"
            )
    for file in sorted(path.rglob("*.json")):
        _check_settings(file)


def directory_digest(path: Path, cache: Path) -> str:
    """Return the digest of a model directory, over names and SHA-256 of the files that decide its answers.

    Each file is read once; afterwards its hash is remembered by path, size and modification time.
    """
    return hash_files(_remembered(path, relevant_files(path), cache))


def relevant_files(path: Path) -> dict[str, Path]:
    """Find the files of a model directory that decide its answers, by relative name; of vectors their files."""
    files = list(path.rglob("*"))
    wanted = _RELEVANT if any(file.suffix == ".safetensors" for file in files) else _RELEVANT | _VECTORS
    return {
        file.relative_to(path).as_posix(): file
        for file in files
        if file.suffix in wanted and file.name not in _OWN_FILES and not _is_hidden(file.relative_to(path))
    }


def file_digest(path: Path, cache: Path) -> str:
    """Return the SHA-256 of one file; it is remembered like those of a directory."""
    return _remembered(path, {path.name: path}, cache)[path.name]


def hash_files(digests: Mapping[str, str]) -> str:
    """Return the digest over relative names and their SHA-256, in sorted order."""
    return sha256("".join(f"{name}\x1f{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _remembered(path: Path, files: Mapping[str, Path], cache: Path) -> dict[str, str]:
    """Return the SHA-256 of files by name, from the cache if size and modification time are still the same."""
    memory = cache / "digests" / f"{sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    try:
        known: dict[str, list[int | str]] = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        known = {}
    stats = {name: file.stat() for name, file in files.items()}
    entries: dict[str, list[int | str]] = {}
    for name in sorted(files):
        stamp = [stats[name].st_size, stats[name].st_mtime_ns]
        digest = known[name][2] if name in known and known[name][:2] == stamp else sha256_of(files[name])
        entries[name] = [*stamp, digest]
    if entries != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
        temporary.replace(memory)
    return {name: str(entry[2]) for name, entry in entries.items()}


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _named_files(file: Path, settings: Any) -> Iterator[str]:  # noqa: ANN401 - JSON is any
    """Yield what a model's settings name in its folder: the parts of an encoder, the pieces of the weights."""
    if file.name == "modules.json" and isinstance(settings, list):
        yield from (str(module["path"]) for module in settings if isinstance(module, dict) and module.get("path"))
    pieces = settings.get("weight_map") if isinstance(settings, dict) else None
    if file.name.endswith(".index.json") and isinstance(pieces, dict):
        yield from {str(name) for name in pieces.values()}


def _check_settings(file: Path) -> None:
    """Refuse settings that name code of the model (`auto_map`, foreign modules), or files outside of its folder."""
    try:
        settings = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not readable as JSON ({error}); fetch the model again") from error
    if outside := next((name for name in _named_files(file, settings) if not is_confined(name)), None):
        raise ModelError(f"{file}: names {outside!r}, which is no file below the model's folder; fetch the model again")
    custom = isinstance(settings, dict) and "auto_map" in settings
    if file.name == "modules.json" and isinstance(settings, list):
        types = [str(module.get("type", "")) if isinstance(module, dict) else "" for module in settings]
        custom = not all(name.startswith("sentence_transformers.") for name in types)
    if custom:
        raise ModelError(
            f"{file}: the model brings modelling code of its own, and foreign code is never run (trust_remote_code is "
            "off); use a model of an architecture that transformers has"
        )
