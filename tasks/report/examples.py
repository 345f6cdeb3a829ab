"""Pick a few queries with relabelled passages as examples, by hash; and find what the report needs of the passages.

What the page shows of the examples, and the lengths of the candidates, are found in the query parts, so that the report
reads neither the corpus nor all verdicts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.report.parts.sum_up import EditsConfig, first_queries
from tasks.schemas import EDITS, KNOWN, PASSAGES, POSITIVES, QUERIES, VERDICTS
from tasks.summaries import CHOSEN, LENGTHS
from tasks.texts import show_passage

NEAR_MISSES = 2  # unsure candidates shown per query
KEPT = 1  # candidates shown per query that stay negatives

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_PASSAGE = ["dataset", "doc_id"]
_FATES = ("relabelled", "unsure", "kept")


@dataclass(frozen=True)
class Passage:
    """A passage of an example.

    fate: "positive" (labelled), "relabelled", "unsure" or "kept" (a negative).
    picked: whether it was one of the training negatives, not only a candidate.
    known: whether it is known in advance to be a false negative.
    scores: P(relevant) by tier, for tiers with a score.
    """

    doc_id: str
    text: str
    fate: str
    picked: bool = False
    known: bool = False
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Example:
    """A query with its labelled positives and some of its candidates."""

    dataset: str
    query_id: str
    query: str
    positives: list[Passage]
    candidates: list[Passage]


def pick_examples(  # noqa: PLR0913 - tables by name
    *,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    verdicts: pl.DataFrame,
    edits: pl.DataFrame,
    known: pl.DataFrame,
    limit: int,
) -> list[Example]:
    """Return up to `limit` queries with a relabelled passage, in the order of the hashes of their ids.

    `verdicts` are those of all tiers, `passages` at least those of these queries. Each example has all relabelled
    passages by falling score, then the unsure ones with the highest scores, then the kept negative with the highest
    score.
    """
    relabelled = edits.filter(pl.col("to") == "positive")
    chosen = first_queries(relabelled, limit)
    keys = pl.DataFrame(chosen, schema=dict.fromkeys(_QUERY, pl.String), orient="row")
    rows = _with_scores(verdicts.join(keys, on=_QUERY, how="semi"))
    rows = (
        rows.join(relabelled.select(*_PAIR, origin="from"), on=_PAIR, how="left")
        .join(known.select(*_PAIR, known=pl.lit(True)), on=_PAIR, how="left")
        .with_columns(pl.col("known").fill_null(False), fate=_fate())
        .filter(pl.col("fate").is_not_null())
    )
    wanted = pl.concat([rows.select("dataset", "doc_id"), positives.join(keys, on=_QUERY).select("dataset", "doc_id")])
    texts = {
        (dataset, doc_id): show_passage(title, text)
        for dataset, doc_id, title, text in passages.join(wanted, on=["dataset", "doc_id"], how="semi")
        .select("dataset", "doc_id", "title", "text")
        .iter_rows()
    }
    named = {(d, q): text for d, q, text in queries.select(*_QUERY, "text").iter_rows()}
    return [
        Example(
            dataset,
            query_id,
            named.get((dataset, query_id), ""),
            _labelled(_of(positives, dataset, query_id), texts),
            _candidates(_of(rows, dataset, query_id), texts),
        )
        for dataset, query_id in chosen
    ]


def _of(frame: pl.DataFrame, dataset: str, query_id: str) -> pl.DataFrame:
    return frame.filter(pl.col("dataset") == dataset, pl.col("query_id") == query_id)


def _with_scores(verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return one row per pair: the state of the decision, and the scores of all tiers as a list of structs."""
    tiers = verdicts.sort(*_PAIR, "tier").group_by(_PAIR, maintain_order=True).agg(scores=pl.struct("tier", "score"))
    decided = verdicts.filter(pl.col("tier") == "cascade").select(*_PAIR, "state", decided="score")
    return decided.join(tiers, on=_PAIR, how="left")


def _fate() -> pl.Expr:
    return (
        pl.when(pl.col("origin").is_not_null())
        .then(pl.lit("relabelled"))
        .when(pl.col("state") == "unsure")
        .then(pl.lit("unsure"))
        .when(pl.col("state") == "not_relevant")
        .then(pl.lit("kept"))
    )


def _labelled(positives: pl.DataFrame, texts: Mapping[tuple[str, str], str]) -> list[Passage]:
    pairs = positives.sort("doc_id").select("dataset", "doc_id").iter_rows()
    return [Passage(doc_id, texts.get((dataset, doc_id), ""), "positive") for dataset, doc_id in pairs]


def _candidates(rows: pl.DataFrame, texts: Mapping[tuple[str, str], str]) -> list[Passage]:
    limits = dict(zip(_FATES, (rows.height, NEAR_MISSES, KEPT), strict=True))
    ordered = rows.sort("decided", "doc_id", descending=[True, False], nulls_last=True)
    return [
        Passage(
            row["doc_id"],
            texts.get((row["dataset"], row["doc_id"]), ""),
            fate,
            picked=row["origin"] == "negative",
            known=row["known"],
            scores={item["tier"]: item["score"] for item in row["scores"] if item["score"] is not None},
        )
        for fate in _FATES
        for row in ordered.filter(pl.col("fate") == fate).head(limits[fate]).iter_rows(named=True)
    ]


def choose_examples(config: EditsConfig, *, shortlist: pl.DataFrame) -> dict[str, Any]:
    """Choose the examples of the report, as `pick_examples` does, among those that the query parts shortlisted.

    shortlist: CHOSEN, with the number of their query part in `part`.

    Returns:
        `chosen`: an iterable of query parts and CHOSEN.
    """
    keys = pl.DataFrame(first_queries(shortlist, config.examples), schema=CHOSEN.columns, orient="row")
    chosen = shortlist.select(*_QUERY, "part").unique().join(keys, on=_QUERY).sort("part", *CHOSEN.key)
    parts = chosen.partition_by("part", as_dict=True, maintain_order=True, include_key=False)
    return {"chosen": _numbered(parts)}


def _numbered(parts: dict[tuple[Any, ...], pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    yield from ((int(part), frame.select(*CHOSEN.columns)) for (part,), frame in parts.items())


def excerpt(  # noqa: PLR0913 - tables by name
    config: EditsConfig,
    *,
    chosen: pl.DataFrame,
    queries: pl.DataFrame,
    candidates: pl.DataFrame,
    positives: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
    edits: pl.DataFrame,
    passages: pl.DataFrame,
    known: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Return what the page shows of the chosen queries of one query part.

    Returns:
        `queries`, `positives`, `edits`, `known` of these queries; `verdicts` of all tiers on their candidates; and
        `texts`: PASSAGES, their candidates and positives.
    """
    del config
    known = KNOWN.empty() if known is None else known
    pairs = pl.concat(frame.join(chosen, on=_QUERY).select(_PASSAGE) for frame in (candidates, positives))
    verdicts = pl.concat([similarity, llm_verdicts, decisions])
    tables = {"queries": (queries, QUERIES), "positives": (positives, POSITIVES), "verdicts": (verdicts, VERDICTS)}
    tables |= {"edits": (edits, EDITS), "known": (known.unique(), KNOWN)}
    of_chosen = {
        name: frame.join(chosen, on=_QUERY, how="semi").sort(schema.key) for name, (frame, schema) in tables.items()
    }
    return {**of_chosen, "texts": passages.join(pairs.unique(), on=_PASSAGE, how="semi").sort(PASSAGES.key)}


class MeasureConfig(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def measure(config: MeasureConfig, *, candidates: pl.DataFrame, passages: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return `lengths`: LENGTHS, the characters of title and text of each candidate of one query part."""
    del config
    chars = pl.col("title").str.len_chars() + pl.col("text").str.len_chars()
    measured = candidates.join(passages.select(*_PASSAGE, chars=chars), on=_PASSAGE)
    return {"lengths": measured.select(*LENGTHS.columns).sort(LENGTHS.key)}
