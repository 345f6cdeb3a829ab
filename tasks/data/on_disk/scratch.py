"""A scratch folder with tables that need not fit in memory: frames are appended to a file and read back in order."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

_OLDEST = pl.CompatLevel.oldest()  # each text once, in one buffer; the newest format would write unused texts too


class Scratch:
    """A folder that only this user can enter. It is removed when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="reneg-scratch-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Spill:
    """A table in files of the scratch folder: append frames of one schema, and read them, as often as wanted.

    rows, bytes: how many were appended.
    """

    def __init__(self, scratch: Scratch, name: str) -> None:
        self.rows = self.bytes = 0
        self._scratch, self._name = scratch, name  # the folder stays as long as this table
        self._paths: list[Path] = []
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def append(self, frame: pl.DataFrame) -> None:
        """Write a frame behind the others."""
        if frame.is_empty():
            return
        table = frame.to_arrow(compat_level=_OLDEST)
        if self._writer is None:
            self._paths.append(self._scratch.path / f"{self._name}-{len(self._paths)}")
            self._writer = pa.ipc.new_stream(str(self._paths[-1]), table.schema)
        self._writer.write_table(table)
        self.rows, self.bytes = self.rows + frame.height, self.bytes + table.nbytes

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in pieces, in the order in which they were appended."""
        self._close()
        for path in self._paths:
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    frame = pl.from_arrow(batch)
                    assert isinstance(frame, pl.DataFrame)
                    yield frame

    def remove(self) -> None:
        """Delete the rows, to free their space before the scratch folder goes."""
        self._close()
        for path in self._paths:
            path.unlink()
        self.rows, self.bytes, self._paths = 0, 0, []

    def _close(self) -> None:
        """Finish the file that is written. What is appended later goes to another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
