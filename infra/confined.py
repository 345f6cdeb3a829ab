"""Names that stay where they are put: keys of a store, and files of a directory artifact."""

from urllib.parse import unquote


def is_confined(name: str) -> bool:
    r"""Tell whether a relative path stays below where it is put, on any system and behind any server.

    Servers may decode a key once more than they should, so what it says then counts as well.

    >>> names = ("a/b.json", "100%.txt", "../a", "/a", "a//b", "a/%2e%2E/b", "%252e%252e", "a\\b", "a/C:a", "a/.")
    >>> [is_confined(name) for name in names]
    [True, True, False, False, False, False, False, False, False, False]
    """
    decoded = unquote(unquote(name))
    if any(ord(sign) < ord(" ") or sign == "\\" for sign in decoded):
        return False
    segments = [*name.split("/"), *decoded.split("/")]
    return all(segment not in ("", ".", "..") and segment[1:2] != ":" for segment in segments)
