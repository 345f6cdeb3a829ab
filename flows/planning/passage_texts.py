"""The passages of a source for a plan. Their texts are read when they are needed, and never all at once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from tasks import schemas
from tasks.data.on_disk.scratch import Scratch, Spill

_PASSAGE = ["dataset", "doc_id"]


@dataclass(frozen=True)
class PassageTexts:
    """Passages in frames of `schemas.PASSAGES`. `frames` yields all of them, as often as it is called."""

    frames: Callable[[], Iterator[pl.DataFrame]]

    @classmethod
    def keep(cls, frames: Iterable[pl.DataFrame]) -> "PassageTexts":
        """Keep passages that can be read only once in a scratch folder."""
        spill = Spill(Scratch(), "passages")
        for frame in frames:
            spill.append(frame)
        return cls(spill.frames)

    @cached_property
    def ids(self) -> pl.DataFrame:
        """All passages without their texts: `dataset`, `doc_id`, `text_hash`."""
        columns = (frame.select(*_PASSAGE, "text_hash") for frame in self.frames())
        return pl.concat([schemas.PASSAGES.empty().select(*_PASSAGE, "text_hash"), *columns])

    def named_in(self, *pairs: pl.DataFrame) -> pl.DataFrame:
        """Return the passages that tables of pairs name, with their texts."""
        named = pl.concat([frame.select(_PASSAGE) for frame in pairs]).unique()
        found = (frame.join(named, on=_PASSAGE, how="semi") for frame in self.frames())
        return pl.concat([schemas.PASSAGES.empty(), *found])
