"""Copies of files that are checked while they are made, and a check of relative names."""

import hashlib
import os
import uuid
from pathlib import Path
from urllib.parse import unquote

_PIECE = 16 * 2**20


def copy_checked(source: Path, target: Path, digest: str, *, read_only: bool = False) -> bool:
    """Copy a file whose SHA-256 is known; returns False and copies nothing if the file has another one.

    The target appears under its name only when it is complete.

    Raises:
        OSError: it cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        copied = hashlib.sha256()
        with source.open("rb") as original, temporary.open("wb") as file:
            while piece := original.read(_PIECE):
                copied.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if copied.hexdigest() != digest:
            return False
        if read_only:
            temporary.chmod(0o444)
        temporary.replace(target)  # what may be there has the same bytes, or was cut short
    finally:
        temporary.unlink(missing_ok=True)
    return True


def is_confined(name: str) -> bool:
    r"""Tell whether a relative path stays below the folder it is used in, on any system and any server.

    Some servers decode a key once too often, so the decoded path is checked as well.

    >>> names = ("a/b.json", "100%.txt", "../a", "/a", "a//b", "a/%2e%2E/b", "%252e%252e", "a\\b", "a/C:a", "a/.")
    >>> [is_confined(name) for name in names]
    [True, True, False, False, False, False, False, False, False, False]
    """
    decoded = unquote(unquote(name))
    if any(ord(sign) < ord(" ") or sign == "\\" for sign in decoded):
        return False
    segments = [*name.split("/"), *decoded.split("/")]
    return all(segment not in ("", ".", "..") and segment[1:2] != ":" for segment in segments)
