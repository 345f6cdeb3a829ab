"""Write the lines of one or a few query parts, so that an export of a source that grew only merges them.

A line can be written by a part alone if it follows from its row: in `tevatron` always, in `flagembedding` if the source
has no scores and no further fields and no soft labels are asked for, because all rows must have the same keys there.
The files of the other formats depend on all rows: parquet is cut into row groups, a corpus names each passage once.
"""

from collections.abc import Callable, Collection, Iterator

import polars as pl

from tasks.data.writing.config import ExportConfig, Target
from tasks.data.writing.flagembedding import unscored_lines
from tasks.data.writing.scores import Evidence
from tasks.data.writing.tevatron import tevatron_lines
from tasks.data.writing.training_set import Chunk, Counts, bounds_of, chunk_of, join_texts
from tasks.schemas import Schema

# A row of the index says what the same row of the texts is: the line of a row in a format. `alone`: the row has no
# negatives. bytes: of the line with its end.
INDEX = Schema(
    {"dataset": pl.String, "query_id": pl.String, "format": pl.String, "alone": pl.Boolean, "bytes": pl.Int64},
    key=("dataset", "query_id", "format"),
)
TEXTS = Schema({"line": pl.String}, key=())

_LINES: dict[Target, Callable[[ExportConfig, Chunk], pl.Series]] = {
    "tevatron": lambda _config, chunk: tevatron_lines(chunk),
    "flagembedding": unscored_lines,
}
_SCORED = ("teacher", "extras")


def rendered_formats(config: ExportConfig, given: Collection[str]) -> tuple[Target, ...]:
    """Name the formats of which each part can write its lines; `given` names the tables besides the instances.

    >>> rendered_formats(ExportConfig(formats=("tevatron", "beir", "flagembedding")), ())
    ('flagembedding', 'tevatron')
    >>> rendered_formats(ExportConfig(formats=("tevatron", "flagembedding")), ("teacher",))
    ('tevatron',)
    """
    is_scored = config.soft_labels != "none" or any(name in given for name in _SCORED)
    names = {"tevatron"} if is_scored else set(_LINES)
    return tuple(name for name in sorted(set(config.formats)) if name in names)


def render_config(config: ExportConfig, formats: tuple[Target, ...]) -> ExportConfig:
    """Return the settings that decide the lines of some formats; the others are not in the keys of their parts."""
    return ExportConfig(formats=formats, soft_labels=config.soft_labels, provenance=config.provenance)


def render(  # noqa: PLR0913 - tables by name
    config: ExportConfig,
    *,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame | None = None,
    negatives: pl.DataFrame | None = None,
    decisions: pl.DataFrame | None = None,
    teacher: pl.DataFrame | None = None,
    extras: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Write the lines of the instances of query parts; `passages` may name one several times.

    Returns:
        `index` (INDEX) and `texts` (TEXTS), row by row, and `tallies` (TALLIES), what the lines hold.

    Raises:
        ValueError: as `tasks.data.export.export`.
    """
    fields = () if extras is None else tuple(extras["name"].unique().sort())
    known = Evidence(positives=positives, negatives=negatives, decisions=decisions, teacher=teacher, extras=extras)
    distinct = passages.unique(["dataset", "doc_id"], keep="first", maintain_order=True)
    rows, counts = join_texts(config, instances, queries, distinct, known, fields), Counts()
    counts.count_rows(rows, fields)
    index, texts = [INDEX.empty()], [TEXTS.empty()]
    for lines, text in _lines_of(config, rows.drop("treatment")):
        index.append(lines)
        texts.append(text)
    return {"index": pl.concat(index), "texts": pl.concat(texts), "tallies": counts.tally()}


def _lines_of(config: ExportConfig, rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield pieces of the index, and of the texts."""
    for start, stop in bounds_of(rows["size"].to_numpy()):
        chunk = chunk_of(rows[start:stop])
        alone = pl.Series("alone", chunk.negatives.counts == 0, dtype=pl.Boolean)
        for name in sorted(config.formats):
            text = pl.DataFrame({"line": _LINES[name](config, chunk)}).select(pl.col("line") + "\n")
            index = chunk.rows.select("dataset", "query_id", format=pl.lit(name)).with_columns(
                alone, text["line"].str.len_bytes().cast(pl.Int64).alias("bytes")
            )
            yield index, text
