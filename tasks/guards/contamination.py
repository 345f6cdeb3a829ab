"""Find training rows that repeat a text of an evaluation set: their query does, or one of their positives."""

import re

import polars as pl

from tasks.guards.config import ContaminationConfig
from tasks.guards.duplicates import show
from tasks.guards.evaluation import CONTAMINATION, QUERY_KIND
from tasks.guards.sketches import BANDS, bucket_keys, plain, shingle, similarities
from tasks.guards.tables import CONTAMINATION as CONTAMINATION_TABLE
from tasks.guards.tables import count_figures
from tasks.schemas import REJECTS
from tasks.texts import hash_text

IN_EVALUATION = "in_evaluation"
SAME, NEAR = "same", "near"
_QUERY = ["dataset", "query_id"]
_SHOWN = 3
_FIGURES = re.compile(r"\d+")


def find_contamination(  # noqa: PLR0913 - tables by name
    config: ContaminationConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    given: pl.DataFrame,
    irrelevant: pl.DataFrame,
    texts: pl.DataFrame,
    evaluation: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare the training queries of a part, and their positives, with all texts of the evaluation sets.

    Two texts are the same if they differ in case, punctuation, Unicode form and spaces only. Two queries with other
    numbers are not near each other: "in 2010" asks for something else than "in 2011".

    Args:
        config: the least similarity, and whether such queries are dropped.
        queries: of the part; those that are held out are not compared.
        positives: of the part.
        given: of the part.
        irrelevant: of the part.
        texts: the passages of the positives; there may be more.
        evaluation: a table of EVALUATION, whole.

    Returns:
        contamination: the pairs of texts. figures: counts and examples.
        queries, positives, given, irrelevant: with `config.drop` without the queries that were found. rejects: these.
    """
    ours = _texts_of(queries, positives, texts)
    found = _matches(config.similarity, ours, evaluation)
    contaminated = found.select(_QUERY).unique(maintain_order=True)
    dropped = contaminated if config.drop else contaminated.clear()
    tables = {"queries": queries, "positives": positives, "given": given, "irrelevant": irrelevant}
    kept = {name: frame.join(dropped, on=_QUERY, how="anti", maintain_order="left") for name, frame in tables.items()}
    counts = {
        "queries": queries.filter(pl.col("split") == "train").height,
        "found": contaminated.height,
        "by_query": found.filter(pl.col("doc_id").is_null()).select(_QUERY).n_unique(),
        "by_positive": found.filter(pl.col("doc_id").is_not_null()).select(_QUERY).n_unique(),
        "same": found.filter(pl.col("match") == SAME).select(_QUERY).n_unique(),
        "dropped": dropped.height,
    }
    return {
        "contamination": found,
        **kept,
        "rejects": _rejects(found.join(dropped, on=_QUERY, how="semi")),
        "figures": count_figures(CONTAMINATION, counts, _examples(found)),
    }


def _texts_of(queries: pl.DataFrame, positives: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """List the texts of the training rows: dataset, query_id, doc_id (null of the query), text.

    Raises:
        ValueError: the text of a positive is missing.
    """
    asked = queries.filter(pl.col("split") == "train")
    shown = texts.select("text_hash", show(texts)).unique("text_hash")
    answers = positives.join(asked, on=_QUERY, how="semi").join(shown, on="text_hash", how="left")
    if answers["shown"].null_count():
        absent = answers.filter(pl.col("shown").is_null())["doc_id"][0]
        raise ValueError(f"guards: {absent!r} is a positive, but its text did not come")
    columns = [*_QUERY, "doc_id", "text"]
    both = [
        asked.with_columns(doc_id=pl.lit(None, dtype=pl.String)).select(columns),
        answers.select(*_QUERY, "doc_id", text="shown"),
    ]
    return pl.concat(both)


def _matches(least: float, ours: pl.DataFrame, evaluation: pl.DataFrame) -> pl.DataFrame:
    """Return a table of CONTAMINATION: the same texts, and the near ones, each pair once."""
    texts = ours.select("text").unique(maintain_order=True).with_row_index("row")
    theirs = evaluation.with_row_index("other")
    shingles, keys = shingle(texts["text"]), bucket_keys(shingle(texts["text"]))
    hashes = pl.Series("same", [hash_text(text) for text in plain(texts["text"])], dtype=pl.String)
    same = texts.select("row", hashes).join(theirs.select("other", "same"), on="same")
    ours_in = pl.DataFrame(
        {"row": texts["row"].gather(pl.Series(range(texts.height)).repeat_by(BANDS).explode()), "bands": keys.ravel()}
    )
    theirs_in = theirs.select("other", "bands").explode("bands")
    near = ours_in.join(theirs_in, on="bands").select("row", "other").unique()
    near = near.join(same, on=["row", "other"], how="anti").sort("row", "other")
    few = theirs.join(near.select("other").unique(), on="other", how="semi", maintain_order="left")
    of_few = shingle(few["text"])
    left = near["row"].to_numpy().astype("int64")
    right = few["other"].search_sorted(near["other"]).to_numpy().astype("int64")
    found = near.with_columns(
        similarity=pl.Series(similarities(shingles, left, of_few, right, least), dtype=pl.Float64), match=pl.lit(NEAR)
    ).filter(pl.col("similarity") >= least)
    pairs = pl.concat([same.select("row", "other", similarity=pl.lit(1.0), match=pl.lit(SAME)), found])
    named = ours.join(texts, on="text").join(pairs, on="row").join(theirs.drop("same", "bands"), on="other")
    return _same_figures(named).select(*CONTAMINATION_TABLE.columns).sort(CONTAMINATION_TABLE.key)


def _same_figures(pairs: pl.DataFrame) -> pl.DataFrame:
    """Leave out near queries with other numbers; `text` is ours, `text_right` that of the evaluation set."""
    of_queries = pl.col("doc_id").is_null() & (pl.col("kind") == QUERY_KIND) & (pl.col("match") == NEAR)
    figures = [
        pl.Series([_FIGURES.findall(text) for text in pairs[name]], dtype=pl.List(pl.String))
        for name in ("text", "text_right")
    ]
    return pairs.filter(~(of_queries & (figures[0] != figures[1])))


def _examples(found: pl.DataFrame) -> list[tuple[str, float]]:
    first = found.sort("similarity", *CONTAMINATION_TABLE.key, descending=[True, *[False] * 6]).head(_SHOWN)
    return [
        (f"{row['dataset']}/{row['query_id']}: {_said(row['doc_id'])} is {row['kind']} {row['id']} of {row['set']}",
         row["similarity"])
        for row in first.iter_rows(named=True)
    ]  # fmt: skip


def _said(doc_id: str | None) -> str:
    return "the query" if doc_id is None else f"positive {doc_id}"


def _rejects(found: pl.DataFrame) -> pl.DataFrame:
    first = found.unique(_QUERY, keep="first", maintain_order=True)
    detail = pl.format(
        "{} is {} {} of {}", pl.coalesce(pl.format("positive {}", "doc_id"), pl.lit("the query")), "kind", "id", "set"
    )
    return first.select(
        stage=pl.lit("find_contamination"),
        key=pl.concat_str(_QUERY, separator="/"),
        reason=pl.lit(IN_EVALUATION),
        detail=detail,
    ).select(*REJECTS.columns)
