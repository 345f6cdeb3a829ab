"""Define the tables that Reneg stores, as polars schemas with primary keys.

Long tables hold ids and hashes but no texts. Texts are joined where they are needed, by id, and checked by `text_hash`.
Each schema lists its columns in order. Only columns named in `nullable` may hold nulls. `key` is unique in the whole
table, over all parts.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import polars as pl

Dtype = pl.DataType | type[pl.DataType]

VERDICT_STATES = ("relevant", "not_relevant", "unsure", "unparsed")
LABELS = ("relevant", "not_relevant", "unsure")
HUMAN_JUDGE = "human"  # a pair that people labelled has the judge `human:<number of people>`
Treatment = Literal["default", "remove", "remove_hn", "relabel"]
TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)


@dataclass(frozen=True)
class Schema:
    """The columns of a table in order, its primary key, and the columns that may hold nulls."""

    columns: dict[str, Dtype]
    key: tuple[str, ...]
    nullable: frozenset[str] = field(default_factory=frozenset)

    def empty(self) -> pl.DataFrame:
        """Return a frame of this schema without rows."""
        return pl.DataFrame(schema=self.columns)


_TEXT = pl.String
_PAIR: dict[str, Dtype] = {"dataset": _TEXT, "query_id": _TEXT, "doc_id": _TEXT}
_PAIR_KEY = ("dataset", "query_id", "doc_id")
_VERDICT: dict[str, Dtype] = {
    **_PAIR,
    "tier": _TEXT,  # "similarity", the name of an LLM tier, or "cascade" for the final decision
    "judge": _TEXT,  # which judge answered: digests of model and prompt, shortened
    "state": _TEXT,  # one of VERDICT_STATES
    "score": pl.Float64,  # P(relevant) in 0..1, null when unparsed
    "grade": pl.Float64,
    "preference": _TEXT,  # better | equal | worse | none, compared with the positives
    "call_id": _TEXT,
    "attempt": pl.Int32,
}

QUERIES = Schema(
    {"dataset": _TEXT, "query_id": _TEXT, "text": _TEXT, "text_hash": _TEXT, "split": _TEXT},
    key=("dataset", "query_id"),
)
PASSAGES = Schema(
    {"dataset": _TEXT, "doc_id": _TEXT, "title": _TEXT, "text": _TEXT, "text_hash": _TEXT},
    key=("dataset", "doc_id"),
)
POSITIVES = Schema({**_PAIR, "text_hash": _TEXT, "source": _TEXT}, key=_PAIR_KEY)
# Negatives that the input rows contain, in their order, with the score of the input where it has one.
GIVEN = Schema(
    {**_PAIR, "text_hash": _TEXT, "rank": pl.Int32, "score": pl.Float64},
    key=_PAIR_KEY,
    nullable=frozenset({"score"}),
)
QRELS = Schema({**_PAIR, "relevance": pl.Int32}, key=_PAIR_KEY)
# False negatives that are known in advance (planted, or known by construction). No judge reads this table.
KNOWN = Schema({**_PAIR}, key=_PAIR_KEY)
EMBEDDINGS = Schema({"text_hash": _TEXT, "vector": pl.Array}, key=("text_hash",))
HITS = Schema(
    {**_PAIR, "text_hash": _TEXT, "retriever": _TEXT, "rank": pl.Int32, "score": pl.Float64},
    key=(*_PAIR_KEY, "retriever"),
)
CANDIDATES = Schema(
    {
        **_PAIR,
        "text_hash": _TEXT,
        "query_hash": _TEXT,
        "positives_hash": _TEXT,  # tasks.texts.combine_hashes of the query's positives
        "retriever": _TEXT,
        "rank": pl.Int32,
        "score": pl.Float64,
    },
    key=_PAIR_KEY,
    nullable=frozenset({"score"}),
)
NEGATIVES = Schema({**_PAIR, "text_hash": _TEXT, "rank": pl.Int32}, key=_PAIR_KEY)
VERDICTS = Schema(_VERDICT, key=(*_PAIR_KEY, "tier"), nullable=frozenset({"score", "grade", "preference", "call_id"}))
CALLS = Schema(
    {
        "call_id": _TEXT,
        "judge": _TEXT,
        "order_seed": pl.Int64,
        "raw": _TEXT,
        "finish_reason": _TEXT,
        "prompt_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "fingerprint": _TEXT,  # the `system_fingerprint` that an endpoint returns
    },
    key=("call_id",),
    nullable=frozenset({"order_seed", "fingerprint"}),
)
INSTANCES = Schema(
    {
        "dataset": _TEXT,
        "query_id": _TEXT,
        "positives": pl.List(pl.String),
        "negatives": pl.List(pl.String),
        "treatment": _TEXT,
        "texts_hash": _TEXT,  # hash of the hashes of query, positives and negatives, in order
    },
    key=("dataset", "query_id"),
)
EDITS = Schema(
    {**_PAIR, "from": _TEXT, "to": _TEXT, "because": _TEXT, "state": _TEXT, "score": pl.Float64},
    key=_PAIR_KEY,
    nullable=frozenset({"score"}),
)
# The check before the treatments: how many pairs there are, and how many have no verdict.
COMPLETENESS = Schema({"pairs": pl.Int64, "unparsed": pl.Int64}, key=())
SAMPLES = Schema({**_PAIR, "stratum": _TEXT, "inclusion_probability": pl.Float64, "annotator": _TEXT}, key=_PAIR_KEY)
# The label that one person gave one query and passage. It refers to the texts, so it also holds under other ids.
HUMAN = Schema(
    {
        "query_hash": _TEXT,
        "text_hash": _TEXT,
        "annotator": _TEXT,
        "label": _TEXT,  # one of LABELS
        "at": _TEXT,  # ISO 8601, UTC
        "curation": _TEXT,  # the curation whose sheet was labelled
        "comment": _TEXT,
    },
    key=("query_hash", "text_hash", "annotator"),
)
# The label that people agreed on, for the candidates of one curation.
LABELLED = Schema(
    {**_PAIR, "query_hash": _TEXT, "text_hash": _TEXT, "label": _TEXT, "annotators": pl.Int32, "tied": pl.Boolean},
    key=_PAIR_KEY,
)
# How far each tier agrees with people, over the labelled pairs that it judged; see tasks.quality.labels.
PEOPLE = Schema(
    {
        "tier": _TEXT,
        "labelled": pl.Int64,
        "contradicted": pl.Int64,  # people say relevant and the tier says not relevant, or the reverse
        "unsure": pl.Int64,  # people are unsure
        "sampled": pl.Int64,  # drawn with a known probability and not unsure: the estimates use these pairs
        "kappa": pl.Float64,
        "kappa_low": pl.Float64,
        "kappa_high": pl.Float64,
        "precision": pl.Float64,
        "precision_low": pl.Float64,
        "precision_high": pl.Float64,
        "recall": pl.Float64,
        "recall_low": pl.Float64,
        "recall_high": pl.Float64,
    },
    key=("tier",),
    nullable=frozenset(f"{name}{end}" for name in ("kappa", "precision", "recall") for end in ("", "_low", "_high")),
)
# The gold set: pairs with a known, fixed label, and the verdicts of tonight's judges on them.
GOLD = Schema({**_PAIR, "label": _TEXT}, key=_PAIR_KEY)
GOLD_VERDICTS = Schema(
    {**_PAIR, "tier": _TEXT, "label": _TEXT, "state": _TEXT, "score": pl.Float64},
    key=(*_PAIR_KEY, "tier"),
    nullable=frozenset({"score"}),
)
GOLD_AGREEMENT = Schema(
    {
        "tier": _TEXT,
        "items": pl.Int64,
        "kappa": pl.Float64,
        "kappa_low": pl.Float64,
        "kappa_high": pl.Float64,
        "accuracy": pl.Float64,
        "accuracy_low": pl.Float64,
        "accuracy_high": pl.Float64,
        "unparsed": pl.Int64,
    },
    key=("tier",),
    nullable=frozenset({"kappa", "kappa_low", "kappa_high"}),
)
SCORES = Schema(
    {
        "model": _TEXT,
        "dataset": _TEXT,
        "measure": _TEXT,
        "query_id": _TEXT,
        "value": pl.Float64,
        "seed": pl.Int64,
    },
    key=("model", "dataset", "measure", "query_id", "seed"),
)
REJECTS = Schema({"stage": _TEXT, "key": _TEXT, "reason": _TEXT, "detail": _TEXT}, key=())
# How well each tier finds the known false negatives, all tiers over the same candidates.
AGREEMENT = Schema(
    {
        "tier": _TEXT,
        "candidates": pl.Int64,
        "known": pl.Int64,
        "found": pl.Int64,  # candidates this tier calls relevant
        "known_found": pl.Int64,
        "recall": pl.Float64,
        "precision": pl.Float64,
        "precision_at_cascade_recall": pl.Float64,
        "auc": pl.Float64,
    },
    key=("tier",),
    nullable=frozenset({"recall", "precision", "precision_at_cascade_recall", "auc"}),
)
# The cost of each stage, from the manifests of its parts. Seconds are working time, summed over the parts.
COSTS = Schema(
    {
        "stage": _TEXT,
        "parts": pl.Int64,
        "seconds": pl.Float64,
        "rows_in": pl.Int64,
        "rows_out": pl.Int64,
    },
    key=("stage",),
)
# The effect of training without one dataset: `without` minus `complete`, per held-out set and measure.
PRUNING = Schema(
    {
        "left_out": _TEXT,
        "held_out": _TEXT,  # a dataset, or "all"
        "measure": _TEXT,
        "instances": pl.Int64,  # training rows of the dataset left out
        "queries": pl.Int64,
        "seeds": pl.Int64,
        "complete": pl.Float64,
        "without": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "p_value": pl.Float64,
        "p_adjusted": pl.Float64,
        "verdict": _TEXT,  # hurts | helps | not shown
    },
    key=("left_out", "held_out", "measure"),
    nullable=frozenset({"low", "high", "p_value", "p_adjusted"}),
)
# Agreement of people and judges, and precision and recall by the labels of people (tasks.quality.validate).
VALIDATION = Schema(
    {
        "subject": _TEXT,  # a tier, "cascade", "pool", "people", or two annotators
        "measure": _TEXT,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "labels": pl.Int64,  # number of labelled pairs behind the value
    },
    key=("subject", "measure"),
    nullable=frozenset({"value", "low", "high"}),
)
