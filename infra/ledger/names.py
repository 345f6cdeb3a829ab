"""Keys of the ledger's segments: `ledger/<judge>/<shelf>/<name>`, or `ledger/<judge>/new/<first>-<last>-<name>`.

A shelf is the first two digits of a row's first subject. Rows that are not sorted into shelves yet are in `new/`, where
each segment's key begins with the range of its rows' shelves. The name of a segment is `<SHA-256>.parquet`, or
`<rows>-<start>-<length>-<digest>-<SHA-256>.blocks`: how many rows it has, where its index lies, and the index's digest.
Vectors lie below `vectors/` in the same way.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

ANSWERS, VECTORS = "ledger", "vectors"  # the folders: payloads of text, and of bytes
NEW = "new"
DIGEST = 32  # hexadecimal digits of the index's digest
_JUDGE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_HASH = re.compile(r"[0-9a-f]{2,}")
_KEY = re.compile(
    r"(?:ledger|vectors)/[^/]+/(?:[0-9a-f]{2}/|new/(?P<first>[0-9a-f]{2})-(?P<last>[0-9a-f]{2})-)"
    r"(?:(?P<rows>\d+)-(?P<start>\d+)-(?P<length>\d+)-(?P<index>[0-9a-f]{32})-(?P<of_blocks>[0-9a-f]{64})\.blocks"
    r"|(?P<of_file>[0-9a-f]{64})\.parquet)"
)


@dataclass(frozen=True)
class SegmentName:
    """What the key of a segment says.

    sha256: of all its bytes. rows, start, length, index: of a segment of blocks how many rows it has, where its index
    lies, and its digest; None and "" for a segment that is one parquet file.
    """

    sha256: str
    rows: int | None = None
    start: int = 0
    length: int = 0
    index: str = ""

    @classmethod
    def parse(cls, key: str) -> Self:
        """Read a key.

        Raises:
            ValueError: it is no segment's.
        """
        found = _KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"ledger: {key!r} is no segment")
        if found["of_file"]:
            return cls(found["of_file"])
        rows, start, length = (int(found[name]) for name in ("rows", "start", "length"))
        return cls(found["of_blocks"], rows, start, length, found["index"])

    @property
    def size(self) -> int:
        """Bytes of a segment of blocks: its index is the last thing in it."""
        return self.start + self.length

    def __str__(self) -> str:
        """Write it as the last part of a key."""
        if self.rows is None:
            return f"{self.sha256}.parquet"
        return f"{self.rows}-{self.start}-{self.length}-{self.index}-{self.sha256}.blocks"


def is_segment(key: str) -> bool:
    """Tell whether a key is that of a segment."""
    return _KEY.fullmatch(key) is not None


def folder_of(judge: str, root: str = ANSWERS) -> str:
    """Return the folder of a judge's segments.

    Raises:
        ValueError: the judge's name is no path component.
    """
    if not _JUDGE.fullmatch(judge):
        raise ValueError(f"ledger: judge {judge!r} is no name of a folder; letters, digits, dot, dash and _ expected")
    return f"{root}/{judge}"


def touches(key: str, shelves: Collection[str]) -> bool:
    """Tell whether a segment may hold rows of these shelves."""
    parts = _KEY.fullmatch(key)
    if parts is None or parts["first"] is None:
        return parts is not None
    return any(parts["first"] <= shelf <= parts["last"] for shelf in shelves)


def shelf_of(subject: str) -> str:
    """Return the shelf of a row's first subject.

    Raises:
        ValueError: it is no hash.
    """
    if not _HASH.fullmatch(subject):
        raise ValueError(f"ledger: subject {subject!r} is no hash; hexadecimal digits in lower case expected")
    return subject[:2]
