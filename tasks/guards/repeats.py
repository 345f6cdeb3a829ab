"""Find candidates that nearly repeat a positive of their query: they are false negatives, whatever a judge says."""

import polars as pl

from tasks.guards.config import RepeatsConfig
from tasks.guards.duplicates import show
from tasks.guards.sketches import shingle, similarities
from tasks.guards.tables import REPEATS, count_figures
from tasks.schemas import BY_PEOPLE, REJECTS

POSITIVES = "positives"
NEAR_POSITIVE, NEAR_POSITIVE_KEPT = "near_positive", "near_positive_kept"
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_SHOWN = 3


def guard_positives(
    config: RepeatsConfig,
    *,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
    reserve: pl.DataFrame,
    positives: pl.DataFrame,
    texts: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare each candidate of a part with the positives of its query.

    `texts` are the passages of both. What people called irrelevant is reported too, but never dropped.

    Returns:
        repeats: the candidates that repeat a positive, with the positive that is the most similar.
        candidates, negatives, reserve: with `config.drop` without these. Negatives are filled up from the reserve.
        rejects: a row for each. figures: how many there are.
    """
    repeats = find_repeats(config.similarity, candidates, positives, texts)
    said = candidates.filter(pl.col("retriever") == BY_PEOPLE)
    dropped = repeats.join(said, on=_PAIR, how="anti") if config.drop else repeats.clear()
    kept = [frame.join(dropped, on=_PAIR, how="anti", maintain_order="left") for frame in (negatives, reserve)]
    filled = fill_up(negatives, *kept)
    queries = repeats.select(_QUERY).n_unique()
    counts = {"candidates": candidates.height, "found": repeats.height, "queries": queries, "dropped": dropped.height}
    first = repeats.sort("similarity", *_PAIR, descending=[True, False, False, False]).head(_SHOWN)
    examples = [
        (f"{dataset}/{query_id}: {doc_id} repeats {positive}", similarity)
        for dataset, query_id, doc_id, positive, similarity in first.iter_rows()
    ]
    return {
        "repeats": repeats,
        "candidates": candidates.join(dropped, on=_PAIR, how="anti", maintain_order="left"),
        "negatives": filled[0],
        "reserve": filled[1],
        "rejects": _rejects(repeats, dropped),
        "figures": count_figures(POSITIVES, counts, examples),
    }


def find_repeats(least: float, candidates: pl.DataFrame, positives: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Return a table of REPEATS: for each such candidate the positive that is the most similar, then the first by id.

    Raises:
        ValueError: the text of a candidate or positive is missing.
    """
    pairs = candidates.select(*_PAIR, "text_hash").join(
        positives.select(*_QUERY, positive="doc_id", positive_hash="text_hash"), on=_QUERY
    )
    held = texts.unique("text_hash").sort("text_hash")
    at = [_rows_of(pairs[name], held["text_hash"]) for name in ("text_hash", "positive_hash")]
    shingles = shingle(show(held))
    found = similarities(shingles, at[0].to_numpy(), shingles, at[1].to_numpy(), least)
    near = pairs.with_columns(similarity=pl.Series(found, dtype=pl.Float64)).filter(pl.col("similarity") >= least)
    best = near.sort(*_PAIR, "similarity", "positive", descending=[False, False, False, True, False])
    return best.unique(_PAIR, keep="first", maintain_order=True).select(*REPEATS.columns)


def _rows_of(hashes: pl.Series, held: pl.Series) -> pl.Series:
    """Return the rows of the sorted `held` with these hashes."""
    absent = hashes.filter(~hashes.is_in(held.implode()))
    if len(absent):
        raise ValueError(f"guards: the text with the hash {absent[0]} is of a candidate, but its passage did not come")
    return held.search_sorted(hashes)


def fill_up(before: pl.DataFrame, negatives: pl.DataFrame, reserve: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fill up what is left of the negatives to as many as there were before, and rank both tables from 1 again.

    Args:
        before: the negatives before some were taken out.
        negatives: those that are left.
        reserve: those that may follow, in the order of their ranks.
    """
    wanted = before.group_by(_QUERY).agg(wanted=pl.len())
    every = pl.concat([negatives.with_columns(_of=0), reserve.with_columns(_of=1)]).sort(*_QUERY, "_of", "rank")
    every = every.join(wanted, on=_QUERY, how="left", maintain_order="left").with_columns(
        place=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY), wanted=pl.col("wanted").fill_null(0)
    )
    picked = pl.col("place") <= pl.col("wanted")
    first = every.filter(picked).with_columns(rank="place")
    rest = every.filter(~picked).with_columns(rank=(pl.col("place") - pl.col("wanted")).cast(pl.Int32))
    key = ["dataset", "query_id", "doc_id"]
    return first.select(before.columns).sort(key), rest.select(before.columns).sort(key)


def _rejects(repeats: pl.DataFrame, dropped: pl.DataFrame) -> pl.DataFrame:
    gone = dropped.select(*_PAIR, gone=pl.lit(True))
    reason = pl.when("gone").then(pl.lit(NEAR_POSITIVE)).otherwise(pl.lit(NEAR_POSITIVE_KEPT))
    marked = repeats.join(gone, on=_PAIR, how="left", maintain_order="left")
    return marked.select(
        stage=pl.lit("guard_positives"),
        key=pl.concat_str(_PAIR, separator="/"),
        reason=reason,
        detail=pl.format("near the positive {}, similarity {}", "positive", pl.col("similarity").round(2)),
    ).select(*REJECTS.columns)
