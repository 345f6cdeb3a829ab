"""Measures of rankings. Names and values are those of ir_measures, which computes them with trec_eval."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

USUAL = ("nDCG@10", "R@100", "RR@10")
VALUES: Mapping[str, type[pl.DataType]] = {"query_id": pl.String, "measure": pl.String, "value": pl.Float64}
_AT_ONCE = 1_000  # queries whose rankings are Python objects at a time


def parse_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in the spelling of ir_measures.

    Raises:
        ValueError: ir_measures does not know a measure.

    >>> parse_measures(["NDCG@10", "MRR@10"])
    ('nDCG@10', 'RR@10')
    """
    import ir_measures

    try:
        return tuple(str(ir_measures.parse_measure(name)) for name in names)
    except (NameError, SyntaxError, ValueError) as error:
        raise ValueError(f"measures known to ir_measures expected, such as {', '.join(USUAL)}: {error}") from error


def refuse_deep(names: Iterable[str], depth: int) -> None:
    """Refuse measures that look at more passages than are ranked: they would be those of another depth.

    Raises:
        ValueError: a measure's cutoff is above `depth`; the message says what to set.
    """
    import ir_measures

    for name in names:
        cutoff = int(ir_measures.parse_measure(name).params.get("cutoff") or 0)
        if cutoff > depth:
            raise ValueError(
                f"measures: {name} looks at {cutoff} passages of a ranking, and depth is {depth}: no more are ranked. "
                f"Set depth: {cutoff}, or a smaller cutoff"
            )


def measure_queries(
    names: Sequence[str], *, run: pl.DataFrame, labels: pl.DataFrame, min_relevance: int = 1
) -> pl.DataFrame:
    """Measure the ranking of each query that has labels; a query without a ranking has the value 0.

    Args:
        names: of measures, as `parse_measures` returns them.
        run: query_id, doc_id, score. The order follows from the scores; of equal ones the larger id is first, as in
            trec_eval.
        labels: query_id, doc_id, relevance. A passage that the corpus does not hold counts too: it is in the ideal
            ranking and among those to be found.
        min_relevance: the least label of a relevant passage, for measures that tell relevant from not relevant. A
            measure that names its own (`RR(rel=2)`) keeps it, and one of grades (nDCG) reads the labels as they are.

    Returns:
        query_id, measure, value; sorted.
    """
    frames = [pl.DataFrame(schema=dict(VALUES))]
    frames += [_measure(names, run, block, min_relevance) for block in _blocks(labels)]
    return pl.concat(frames).sort("query_id", "measure")


def _measure(names: Sequence[str], run: pl.DataFrame, labels: pl.DataFrame, least: int) -> pl.DataFrame:
    import ir_measures

    measures = [ir_measures.parse_measure(name) for name in names]
    rankings = _nested(run.join(labels, on="query_id", how="semi"), "score")
    values = {(query_id, name): 0.0 for query_id in labels["query_id"].unique() for name in names}
    at_least = labels.with_columns(relevance=(pl.col("relevance") >= least).cast(pl.Int64))
    for binary, judged in ((False, labels), (True, at_least)):
        wanted = [measure for measure in measures if _is_binary(measure, least) == binary]
        if wanted:
            found = ir_measures.iter_calc(wanted, _nested(judged, "relevance"), rankings)
            values |= {(one.query_id, str(one.measure)): float(one.value) for one in found}
    rows = [(query_id, name, value) for (query_id, name), value in values.items()]
    return pl.DataFrame(rows, schema=dict(VALUES), orient="row")


def _is_binary(measure: Any, least: int) -> bool:  # noqa: ANN401 - ir_measures has no types
    """Tell whether labels below `least` must be hidden from a measure, which counts labels from 1 on as relevant."""
    return least != 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params


def _blocks(labels: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut labels into those of some queries at a time."""
    ids = labels.select(pl.col("query_id").unique().sort())
    for start in range(0, ids.height, _AT_ONCE):
        yield labels.join(ids[start : start + _AT_ONCE], on="query_id", how="semi")


def _nested(frame: pl.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    """Return the values of a column by query and passage."""
    found: dict[str, dict[str, Any]] = {}
    for query_id, doc_id, value in frame.select("query_id", "doc_id", column).iter_rows():
        found.setdefault(query_id, {})[doc_id] = value
    return found
