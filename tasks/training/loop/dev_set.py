"""Score a model on the development queries while it is trained: nDCG@10 among a fixed sample of the passages."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from sentence_transformers import SentenceTransformer

from tasks.evaluation.encoding import Model, Similarity
from tasks.evaluation.measures import measure_queries
from tasks.evaluation.ranking import TopPassages
from tasks.texts import show_passage

_DEPTH = 10
_MEASURE = "nDCG@10"
_BATCH = 32
_KEY = ["dataset", "query_id"]


@dataclass(frozen=True)
class DevSet:
    """Development queries, the passages they are compared with, and the labels.

    queries: dataset, query_id, text. passages: dataset, doc_id, title, text. labels: dataset, query_id, doc_id,
    relevance. prompts: of queries and of passages.
    """

    queries: pl.DataFrame
    passages: pl.DataFrame
    labels: pl.DataFrame
    prompts: tuple[str, str]

    def score(self, encoder: SentenceTransformer) -> float:
        """Return nDCG@10, the mean over the queries; each is compared with the passages of its own dataset."""
        similarity: Similarity = "dot" if encoder.similarity_fn_name == "dot" else "cosine"
        model = Model(encoder, similarity, _BATCH)
        values = []
        for own in self.queries.partition_by("dataset", maintain_order=True):
            ours = pl.col("dataset") == own["dataset"][0]
            held, labels = self.passages.filter(ours), self.labels.filter(ours)
            top = TopPassages(own["query_id"], model.encode(own["text"].to_list(), self.prompts[0]), _DEPTH)
            texts = [show_passage(title, text) for title, text in held.select("title", "text").iter_rows()]
            top.add(held["doc_id"], model.encode(texts, self.prompts[1]))
            ranked = pl.concat([frame for _, frame in top.ranked()])
            values.append(measure_queries((_MEASURE,), run=ranked, labels=labels)["value"])
        return float(pl.concat(values).mean())  # type: ignore[arg-type]  # there is a query


def dev_set(
    tables: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], queries: int, passages: int, prompts: Sequence[str]
) -> DevSet:
    """Choose by their hashes at most so many development queries, and so many passages beside their relevant ones.

    The choice is the same for every treatment and seed. tables: queries of all splits, passages, qrels.

    Raises:
        ValueError: no query is held out for development.
    """
    asked, held, qrels = tables
    relevant = qrels.filter(pl.col("relevance") > 0)
    chosen = (
        asked.filter(pl.col("split") == "dev")
        .join(relevant, on=_KEY, how="semi")
        .sort("text_hash", *_KEY)
        .head(queries)
        .sort(*_KEY)
    )
    if chosen.is_empty():
        raise ValueError(
            "early_stop: development queries with a relevant passage expected, none came; hold some out "
            "(ingest.dev or ingest.dev_split), or unset train.early_stop"
        )
    labels = qrels.join(chosen, on=_KEY, how="semi")
    wanted = held.join(relevant.join(chosen, on=_KEY, how="semi"), on=["dataset", "doc_id"], how="semi")
    others = (
        held.join(chosen, on="dataset", how="semi")
        .join(wanted, on=["dataset", "doc_id"], how="anti")
        .sort("text_hash", "dataset", "doc_id")
        .head(passages)
    )
    columns = ["dataset", "doc_id", "title", "text"]
    return DevSet(
        queries=chosen.select(*_KEY, "text"),
        passages=pl.concat([wanted.select(columns), others.select(columns)]).sort("dataset", "doc_id"),
        labels=labels.select(*_KEY, "doc_id", "relevance"),
        prompts=(prompts[0], prompts[1]),
    )
