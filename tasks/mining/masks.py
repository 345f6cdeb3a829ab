"""Mask the passages that cannot be negatives of a query: its own text, its positives, and copies of either.

Two passages are copies where their title and text are equal, or what is shown of them, or its normalised form. The
normalised form ignores case, the number of spaces and the Unicode form.

In some corpora the queries are passages too, under the same ids (Quora, ArguAna). In others the ids of queries and
passages are small numbers that have nothing to do with each other (Cranfield). So an equal id alone says nothing: by
default it counts only where the two texts are near the same. A setting can say otherwise.
"""

from collections.abc import Callable
from typing import Literal

import polars as pl

from tasks.schemas import POSITIVES, REJECTS
from tasks.texts import hash_guard, hash_shown, normalise, show_passage

SameId = Literal["auto"] | bool

POSITIVE = "positive"  # a labelled positive under its own id: expected, so it is no reject
SAME_TEXT_AS_QUERY = "same_text_as_query"
SAME_ID_AS_QUERY = "same_id_as_query"
SAME_TEXT_AS_POSITIVE = "same_text_as_positive"
SAME_TEXT_AS_CANDIDATE = "same_text_as_candidate"

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_LEVELS = {"text_hash": "text", "shown_hash": "shown text", "guard_hash": "normalised text"}
_SHOWN, _NORMALISED, _BODY = "shown text", "normalised text", "text without its title"
NEAR, OTHER = "near the same text", "another text"
_SHARED = 0.75  # share of common triples of characters from which two texts are near the same


def hash_queries(queries: pl.DataFrame) -> pl.DataFrame:
    """Return the ids of the queries, and their text under the hashes by which passages are compared."""
    return queries.select(
        *_QUERY,
        query_shown=pl.Series([hash_shown("", text) for text in queries["text"]], dtype=pl.String),
        query_guard=pl.Series([hash_guard("", text) for text in queries["text"]], dtype=pl.String),
    )


def hash_passages(passages: pl.DataFrame) -> pl.DataFrame:
    """Add `shown_hash`, `guard_hash` and `body_hash`, the normalised text without its title, to passages."""
    hashed: dict[str, list[str]] = {"shown_hash": [], "guard_hash": [], "body_hash": []}
    for title, text in passages.select("title", "text").iter_rows():
        guard = hash_guard(title, text)
        hashed["shown_hash"].append(hash_shown(title, text))
        hashed["guard_hash"].append(guard)
        hashed["body_hash"].append(hash_guard("", text) if title else guard)
    return passages.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in hashed.items())


def pair_own(
    named: pl.DataFrame, queries: pl.DataFrame, hashed: pl.DataFrame, read: Callable[[], pl.DataFrame]
) -> pl.DataFrame:
    """Pair queries with the passages of their dataset that repeat them, or have their id.

    Args:
        named: `hash_queries(queries)`; the caller makes it once for several parts of a corpus.
        queries: of one dataset.
        hashed: passages of the same dataset, with the hashes of `hash_passages`.
        read: returns these passages with their texts; called only where one has the id of a query.

    Returns:
        query_id, doc_id, `repeats` as `hash_hits` gives it; each pair once.
    """
    titled = hashed.filter(pl.col("body_hash") != pl.col("guard_hash"))
    shown = pl.when(pl.col("shown_hash") == pl.col("query_shown")).then(pl.lit(_SHOWN)).otherwise(pl.lit(_NORMALISED))
    whole = named.join(hashed.drop("dataset"), left_on="query_guard", right_on="guard_hash")
    body = named.join(titled.drop("dataset"), left_on="query_guard", right_on="body_hash")
    same_id = queries.select(_QUERY).join(hashed, left_on=_QUERY, right_on=["dataset", "doc_id"], coalesce=False)
    columns = ["query_id", "doc_id"]
    found = [whole.select(*columns, repeats=shown), body.select(*columns, repeats=pl.lit(_BODY))]
    if same_id.height:
        compared = _compare_same_ids(same_id.select(_PAIR), queries, read())
        found.append(compared.select(*columns, repeats="_same_id"))
    return pl.concat(found).unique(columns, keep="first", maintain_order=True)


def find_repeats(pairs: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    """Add `repeats`: how a passage repeats the query's text, by the hashes of both; null where it does not."""
    asked = hash_queries(queries.join(pairs, on=_QUERY, how="semi"))
    repeats = (
        pl.when(pl.col("shown_hash") == pl.col("query_shown"))
        .then(pl.lit(_SHOWN))
        .when(pl.col("guard_hash") == pl.col("query_guard"))
        .then(pl.lit(_NORMALISED))
    )
    joined = pairs.join(asked, on=_QUERY, how="left", maintain_order="left")
    return joined.with_columns(repeats=repeats).drop("query_shown", "query_guard")


def hash_hits(hits: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Add `shown_hash`, `guard_hash` and `repeats` to hits, from the texts of the passages and queries of one dataset.

    Only the passages that were hit are hashed. `repeats` also says where a passage is the query but for its title, and
    where it has the query's id.
    """
    found = passages.join(hits.select("doc_id").unique(), on="doc_id", how="semi").select("doc_id", "title", "text")
    hashes = hash_passages(found).select("doc_id", "shown_hash", "guard_hash", "body_hash")
    joined = hits.join(hashes, on="doc_id", how="left", maintain_order="left")
    return mark_repeats(joined, queries, found)


def mark_repeats(hits: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Add `repeats` to hits that have the hashes of `hash_passages`, in place of `body_hash`.

    Of `passages` only those with the id of a query are read.
    """
    asked = hash_queries(queries).select(*_QUERY, body_hash="query_guard", _body=pl.lit(_BODY))
    joined = find_repeats(hits, queries).join(asked, on=[*_QUERY, "body_hash"], how="left", maintain_order="left")
    same_id = _compare_same_ids(joined.filter(pl.col("query_id") == pl.col("doc_id")), queries, passages)
    joined = joined.join(same_id, on=_PAIR, how="left", maintain_order="left")
    return joined.with_columns(repeats=pl.coalesce("repeats", "_body", "_same_id")).drop(
        "body_hash", "_body", "_same_id"
    )


def find_own(queries: pl.DataFrame, passages: pl.DataFrame, *, same_id: SameId = "auto") -> pl.DataFrame:
    """Return the passages that are a query's own text, or have its id, with `reason` and `detail` as `mask` gives them.

    `queries` and `passages` may be of several datasets. All passages are read once, and no pairs are built but those
    that are found.

    Returns:
        dataset, query_id, doc_id, reason, detail.
    """
    found = [_own_pairs(queries, group) for group in passages.partition_by("dataset")]
    columns = ["reason", "detail"]
    if not found:
        return pl.DataFrame(schema=dict.fromkeys([*_PAIR, *columns], pl.String))
    marked = mask(pl.concat(found), positives=POSITIVES.empty(), same_id=same_id)
    of_query = pl.col("reason").is_in([SAME_TEXT_AS_QUERY, SAME_ID_AS_QUERY])
    return marked.filter(of_query).select(*_PAIR, *columns)


def _own_pairs(queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Pair the queries with the passages of one dataset that could be their own: of the same text, or the same id."""
    asked = queries.join(passages.select("dataset").unique(), on="dataset", how="semi")
    bodies = [hash_guard("", text) for text in passages["text"]]
    guards = [
        hash_guard(title, text) if title else None for title, text in passages.select("title", "text").iter_rows()
    ]
    texts = passages.select(
        "dataset",
        "doc_id",
        "text_hash",
        body=pl.Series(bodies, dtype=pl.String),
        guard=pl.Series(guards, dtype=pl.String),
    )
    named = hash_queries(asked)
    pairs = [
        named.join(texts, left_on=["dataset", "query_guard"], right_on=["dataset", "body"]),
        named.join(texts, left_on=["dataset", "query_guard"], right_on=["dataset", "guard"]),
        named.join(texts, left_on=["dataset", "query_id"], right_on=["dataset", "doc_id"], coalesce=False),
    ]
    columns = [*_PAIR, "text_hash"]
    return hash_hits(pl.concat(frame.select(columns) for frame in pairs).unique(maintain_order=True), asked, passages)


def _compare_same_ids(pairs: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Say of passages with the id of the query whether their texts are near the same."""
    texts = pairs.select(_PAIR).unique().join(queries.select(*_QUERY, query="text"), on=_QUERY)
    texts = texts.join(passages.select("doc_id", "title", "text"), on="doc_id")
    said = [
        NEAR if is_near(query, title, text) else OTHER
        for query, title, text in texts.select("query", "title", "text").iter_rows()
    ]
    return texts.select(*_PAIR, pl.Series("_same_id", said, dtype=pl.String))


def is_near(query: str, title: str, text: str) -> bool:
    """Return whether a query is near the same as a passage's title, its text, or both: by common triples of characters.

    >>> is_near("How do I cook rice?", "", "how do I cook  rice"), is_near("laws of heat", "", "a wing at rest")
    (True, False)
    """
    asked = _triples(query)
    for part in (title, text, show_passage(title, text)):
        found = _triples(part)
        if len(asked & found) >= _SHARED * len(asked | found) > 0:
            return True
    return False


def _triples(text: str) -> set[str]:
    plain = normalise(text)
    return {plain[start : start + 3] for start in range(len(plain) - 2)} or {plain} - {""}


def mask(pairs: pl.DataFrame, *, positives: pl.DataFrame, same_id: SameId = "auto") -> pl.DataFrame:
    """Add `reason` and `detail` to pairs: why a passage cannot be a negative of the query. Both are null where it can.

    Of several copies the first in the order of the rows can.

    Args:
        pairs: one row per query and passage, with the three hashes, and `repeats` (see `find_repeats`).
        positives: the labelled positives of these queries, with the three hashes.
        same_id: whether a passage with the id of the query is masked. `auto`: if their texts are near the same.
    """
    known = positives.lazy()
    labelled = known.select(*_PAIR, _labelled=pl.lit(True)).unique()
    marked = pairs.lazy().join(labelled, on=_PAIR, how="left", maintain_order="left")
    for column, level in _LEVELS.items():
        copies = known.select(*_QUERY, column).unique().with_columns(pl.lit(level).alias(f"_{column}"))
        marked = marked.join(copies, on=[*_QUERY, column], how="left", maintain_order="left")
    same = [NEAR, OTHER] if same_id is True else [NEAR] if same_id == "auto" else []
    repeated, copied = pl.col("repeats"), pl.coalesce(f"_{column}" for column in _LEVELS)
    reason = (
        pl.when("_labelled")
        .then(pl.lit(POSITIVE))
        .when(repeated.is_in([_SHOWN, _NORMALISED, _BODY]))
        .then(pl.lit(SAME_TEXT_AS_QUERY))
        .when(repeated.is_in(same))
        .then(pl.lit(SAME_ID_AS_QUERY))
        .when(copied.is_not_null())
        .then(pl.lit(SAME_TEXT_AS_POSITIVE))
    )
    marked = marked.with_columns(reason=reason).with_columns(
        _level=pl.when(pl.col("reason") == SAME_TEXT_AS_POSITIVE).then(copied).otherwise("repeats")
    )
    masked = _mask_doubles(marked).select(*pairs.columns, "reason", detail=pl.format("{} {}", "_level", "text_hash"))
    return masked.collect()


def _mask_doubles(marked: pl.LazyFrame) -> pl.LazyFrame:
    """Mask the copies of a passage that can be a negative, all but the first."""
    free, group = pl.col("reason").is_null(), [*_QUERY, "guard_hash"]
    firsts = marked.filter(free).unique(group, keep="first", maintain_order=True)
    firsts = firsts.select(*group, _doc="doc_id", _text="text_hash", _shown="shown_hash")
    joined = marked.join(firsts, on=group, how="left", maintain_order="left")
    level = (
        pl.when(pl.col("text_hash") == pl.col("_text"))
        .then(pl.lit(_LEVELS["text_hash"]))
        .when(pl.col("shown_hash") == pl.col("_shown"))
        .then(pl.lit(_LEVELS["shown_hash"]))
        .otherwise(pl.lit(_LEVELS["guard_hash"]))
    )
    double = free & (pl.col("doc_id") != pl.col("_doc"))
    return joined.with_columns(
        reason=pl.when(double).then(pl.lit(SAME_TEXT_AS_CANDIDATE)).otherwise("reason"),
        _level=pl.when(double).then(level).otherwise("_level"),
    )


def split_masked(stage: str, marked: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split marked pairs into those that can be negatives, and rejects for the others but the labelled positives."""
    kept = marked.filter(pl.col("reason").is_null()).drop("reason", "detail")
    reported = marked.filter(pl.col("reason").is_not_null(), pl.col("reason") != POSITIVE)
    key = pl.concat_str(_PAIR, separator="/")
    return kept, reported.select(stage=pl.lit(stage), key=key, reason="reason", detail="detail").select(
        *REJECTS.columns
    )
