"""Read rows of parquet and Arrow files by column: whole frames at once instead of one passage after the other.

It reads the layout of Tevatron and RLHN, in which a column holds lists of passages with `docid`, `title` and `text`. It
yields what `rows.py` yields: a row with anything unusual (a missing id, an empty text, a passage that is null) is left
to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from tasks.data.layouts.fields import Layout, Unread, layout_of
from tasks.data.layouts.values import INT32, LONGEST_ID
from tasks.data.reading.objects import parsed
from tasks.data.reading.passages import PassageKeys
from tasks.data.reading.records import EXTRAS, PASSAGES, ROWS, Batch, Row, batch_of, batches_of
from tasks.data.reading.rows import RowOptions, RowReader
from tasks.lines import Problem

_CONTROL = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # those that tasks.texts.clean replaces
_TEXTS = (pl.String, pl.Null)
_STRUCTURED = ("tevatron", "dpr")


@dataclass(frozen=True, slots=True)
class _Side:
    """A column of passages, and which fields of its structs hold what."""

    key: str
    keys: PassageKeys
    fields: dict[str, pl.DataType]


def read_columns(
    frames: Iterator[tuple[int, pl.DataFrame] | Problem], name: str, options: RowOptions
) -> Iterator[Batch]:
    """Read the frames of the file `name`, each with the number of its first row, as batches.

    The last batch counts the fields with content that nobody read, and names those that the settings name in vain.
    """
    reader = RowReader(options)
    for item in frames:
        if isinstance(item, Problem):
            yield from batches_of([item])
            continue
        first, frame = item
        yield _batch(frame, name, first, reader)
    yield from batches_of(reader.of_fields(name))


def fits(schema: pl.Schema, options: RowOptions) -> bool:
    """Whether frames of a schema can be read by column."""
    layout = layout_of(tuple(schema), options.names)
    dataset = layout.dataset in ("", "subset", options.names.dataset)
    texts = (layout.query, *((layout.dataset,) if layout.dataset else ()), *layout.extras)
    return (
        layout.form == "tevatron"
        and options.form in (None, "tevatron")
        and bool(layout.query and layout.query_id)
        and dataset
        and all(schema[key] in _TEXTS for key in texts)
        and _is_id(schema[layout.query_id])
        and not (layout.positive_scores or layout.negative_scores or layout.documents or layout.labels)
        and len(layout.positives) == 1
        and len(layout.negatives) <= 1
        and all(_side(schema, key, options) is not None for key in (*layout.positives, *layout.negatives))
    )


def _is_id(kind: pl.DataType) -> bool:
    return kind == pl.String or kind.is_integer()


def _side(schema: pl.Schema, key: str, options: RowOptions) -> _Side | None:
    """Find the fields of a column of passages; None where it cannot be read by column."""
    kind = schema[key]
    if not isinstance(kind, pl.List) or not isinstance(kind.inner, pl.Struct):
        return None
    fields = {field.name: pl.Series(dtype=field.dtype).dtype for field in kind.inner.fields}
    keys = PassageKeys.of(tuple(fields), options.names)
    known = (
        len(keys.texts) == 1
        and bool(keys.doc_id)
        and _is_id(fields[keys.doc_id])
        and all(fields[one] in _TEXTS for one in (*keys.texts, *((keys.title,) if keys.title else ())))
        and (not keys.score or fields[keys.score].is_numeric())
    )
    return _Side(key, keys, fields) if known else None


def _batch(frame: pl.DataFrame, name: str, first: int, reader: RowReader) -> Batch:
    options = reader.options
    layout = layout_of(tuple(frame.columns), options.names)
    frame = frame.with_row_index("row ")  # no key of a row ends so
    sides = [_side(frame.schema, key, options) for key in (*layout.positives, *layout.negatives)]
    exploded = [_passages(frame, side, number == 0) for number, side in enumerate(sides) if side is not None]
    texts = _texts(frame, layout)
    unusual = pl.concat([texts.filter("unusual")["row"], *_unusual(frame, layout, exploded, options)]).unique()
    usual = ~texts["row"].is_in(unusual.implode())
    for side, passages in zip(sides, exploded, strict=True):
        if side is not None:
            kept = passages.filter(~pl.col("row").is_in(unusual.implode()))
            _count(reader.unread, kept, side.keys.unread, f"{side.key}.")
    _count(reader.unread, frame.filter(usual), layout.unread)
    rows = texts.filter(usual).with_columns(where=pl.format("{}#{}", pl.lit(name), pl.col("row") + first))
    passages = pl.concat([one.select(*PASSAGES) for one in exploded])
    passages = passages.filter(~pl.col("row").is_in(unusual.implode())).sort("row", maintain_order=True)
    extras = _extras(frame.filter(usual), layout)
    batch = Batch(rows.select(*ROWS), passages, extras, [])
    return batch if unusual.is_empty() else _with_unusual(batch, frame, unusual, (name, first), reader)


def _cleaned(column: pl.Expr) -> pl.Expr:
    """Clean texts as `tasks.texts.clean` does."""
    return column.cast(pl.String).str.replace_all(_CONTROL, " ").str.strip_chars().fill_null("")


def _identifier(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Read ids as `identifier` does; empty where there is none."""
    if kind.is_integer():
        return column.cast(pl.String).fill_null("")
    return _cleaned(column).str.replace_all("[\t\r\n]", " ")


def _texts(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Return query, id and dataset of each row, and whether they are unusual."""
    dataset = _cleaned(pl.col(layout.dataset)).str.replace_all("[\t\r\n]", " ") if layout.dataset else pl.lit("")
    texts = frame.select(
        row="row ",
        dataset=dataset,
        query_id=_identifier(pl.col(layout.query_id), frame.schema[layout.query_id]),
        query=_cleaned(pl.col(layout.query)),
    )
    long = pl.max_horizontal(pl.col("dataset", "query_id").str.len_chars()) > LONGEST_ID
    unusual = long | (pl.col("query_id") == "") | (pl.col("query") == "")
    return texts.with_columns(unusual=unusual, dataset=pl.when(pl.col("dataset") != "").then("dataset"))


def _passages(frame: pl.DataFrame, side: _Side, positive: bool) -> pl.DataFrame:
    """Return the passages of a column in reading order, whether each is unusual, and the fields that nobody reads."""
    keys, fields = side.keys, side.fields
    one = frame.select(row="row ", passage=side.key).filter(pl.col("passage").list.len() > 0).explode("passage")
    inner = pl.col("passage").struct
    score = pl.lit(None, pl.Float64)
    if keys.score:
        number = inner.field(keys.score)
        large = number.abs() >= INT32 if fields[keys.score].is_integer() else ~number.is_finite()
        score = pl.when(~large).then(number.cast(pl.Float64))
    passages = one.select(
        "row",
        *(inner.field(key).alias(f"{key} ") for key in keys.unread),
        positive=pl.lit(positive),
        doc_id=_identifier(inner.field(keys.doc_id), fields[keys.doc_id]),
        title=_cleaned(inner.field(keys.title)) if keys.title else pl.lit(""),
        text=_cleaned(inner.field(keys.texts[0])),
        score=score,
        missing=pl.col("passage").is_null(),
    )
    empty = (pl.col("title") == "") & (pl.col("text") == "")
    unnamed = (pl.col("doc_id") == "") | (pl.col("doc_id").str.len_chars() > LONGEST_ID)
    return passages.with_columns(unusual=pl.col("missing") | empty | unnamed).rename(
        {f"{key} ": f"unread {key}" for key in keys.unread}
    )


def _unusual(
    frame: pl.DataFrame, layout: Layout, exploded: Sequence[pl.DataFrame], options: RowOptions
) -> Iterator[pl.Series]:
    """Yield the numbers of rows with unusual passages, without positives, or with too many passages."""
    yield from (passages.filter("unusual")["row"] for passages in exploded)
    lengths = [pl.col(key).list.len().fill_null(0) for key in (*layout.positives, *layout.negatives)]
    yield frame.filter((lengths[0] == 0) | (pl.sum_horizontal(lengths) > options.limits.passages))["row "]


def _count(unread: Unread, frame: pl.DataFrame, keys: Sequence[str], above: str = "") -> None:
    """Count the fields with content that nobody reads."""
    for key in keys:
        column = frame[f"unread {key}" if above else key]
        full = column.is_not_null()
        if column.dtype == pl.String:
            full &= column != ""
        elif column.dtype.is_float():
            full &= ~column.is_nan()
        elif isinstance(column.dtype, pl.List | pl.Array):
            full &= column.list.len() > 0
        if count := int(full.fill_null(value=False).sum()):
            unread.keys[f"{above}{key}"] += count


def _extras(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Return the further fields of the rows that are kept."""
    texts = {key: pl.col(key).cast(pl.String).fill_null("") for key in layout.extras}
    kept = [frame.filter(text != "").select(row="row ", name=pl.lit(key), value=text) for key, text in texts.items()]
    return pl.concat([pl.DataFrame(schema=EXTRAS), *kept]).sort("row", maintain_order=True)


def _with_unusual(
    batch: Batch, frame: pl.DataFrame, unusual: pl.Series, place: tuple[str, int], reader: RowReader
) -> Batch:
    """Add the unusual rows of a frame, which are read one by one, at their places."""
    name, first = place
    numbers = sorted(unusual.to_list())
    found = frame.drop("row ")[numbers].to_dicts()
    items = parsed(((f"{name}#{first + n}", row) for n, row in zip(numbers, found, strict=True)), reader.row)
    kept: list[Row] = []
    places: list[int] = []
    problems: list[Problem] = []
    for number, item in zip(numbers, items, strict=True):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        kept.append(item)
        places.append(number)
        problems.extend(item.problems)
    read = batch_of(kept, problems)
    order = pl.DataFrame({"row": range(len(places)), "place": places}, schema={"row": pl.UInt32, "place": pl.UInt32})

    def joined(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        moved = other.join(order, "row", maintain_order="left").with_columns(row="place").select(one.columns)
        return pl.concat([one, moved]).sort("row", maintain_order=True)

    rows = joined(batch.rows, read.rows)
    dense = rows.select("row").with_row_index("dense")

    def renumbered(one: pl.DataFrame) -> pl.DataFrame:
        return one.join(dense, "row", maintain_order="left").with_columns(row="dense").drop("dense")

    return Batch(
        renumbered(rows),
        renumbered(joined(batch.passages, read.passages)),
        renumbered(joined(batch.extras, read.extras)),
        problems,
    )
