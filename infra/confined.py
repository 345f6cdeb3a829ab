"""Checks of relative names that other people gave to files: in archives, buckets, manifests and models."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from unicodedata import category
from urllib.parse import unquote

_LONGEST = 255  # bytes of a file's name that file systems hold
_NO_LETTERS = ("Cc", "Cs")  # control characters; lone surrogates, which stand for bytes that are not UTF-8


def is_confined(name: str) -> bool:
    r"""Tell whether a relative path stays below the folder it is used in, on any system and any server.

    Some servers decode a key once too often, so the decoded path is checked as well.

    >>> names = ("a/b.json", "100%.txt", "../a", "/a", "a//b", "a/%2e%2E/b", "%252e%252e", "a\\b", "a/C:a", "a/.")
    >>> [is_confined(name) for name in names]
    [True, True, False, False, False, False, False, False, False, False]
    """
    decoded = unquote(unquote(name)) if "%" in name else name
    plain = decoded is name and name.isascii() and name.isprintable() and "\\" not in name  # as nearly all names are
    if not plain and any(sign == "\\" or category(sign) in _NO_LETTERS for sign in name + decoded):
        return False
    segments = [*name.split("/"), *decoded.split("/")]
    return all(segment not in ("", ".", "..") and segment[1:2] != ":" for segment in segments) and not any(
        len(segment.encode()) > _LONGEST for segment in name.split("/")
    )


def check_names(names: Iterable[str]) -> None:
    """Check the names that somebody else gave to the files of one folder.

    Raises:
        ValueError: a name would leave the folder, no file system can hold it, or it lies below another file.
    """
    found = set(names)
    for name in sorted(found):
        if not is_confined(name):
            raise ValueError(
                f"file name {name!r}: a relative path expected, without `..`, `.`, empty parts, backslashes or control "
                f"characters, and at most {_LONGEST} bytes between slashes; rename the file"
            )
        above = next((str(folder) for folder in PurePosixPath(name).parents if str(folder) in found), None)
        if above is not None:
            raise ValueError(f"file name {name!r}: lies below {above!r}, which is a file too; rename one of them")
