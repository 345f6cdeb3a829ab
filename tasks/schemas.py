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
SOURCE_JUDGE = f"{HUMAN_JUDGE}:source"  # the source says that people called the pair irrelevant
BY_PEOPLE = "people"  # the retriever of such a pair
DENSE = "dense"  # the retriever that searches with the vectors of the curation's encoder
FILE_JUDGE = "file"  # a pair whose verdict was read from a file has the judge `file:<what is in the file>`
Treatment = Literal["default", "remove", "remove_hn", "relabel", "drop_ambiguous"]
TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)
PAPER_TREATMENTS: tuple[Treatment, ...] = ("default", "remove", "remove_hn", "relabel")


@dataclass(frozen=True)
class Schema:
    """The columns of a table in order, its primary key, and the columns that may hold nulls."""

    columns: dict[str, Dtype]
    key: tuple[str, ...]
    nullable: frozenset[str] = field(default_factory=frozenset)

    def empty(self) -> pl.DataFrame:
        """Return a frame of this schema without rows."""
        return pl.DataFrame(schema=self.columns)


def _with_bounds(*names: str) -> list[str]:
    """Name the columns of figures with their intervals, clustered by query: kappa, kappa_low, kappa_high."""
    return [f"{name}{end}" for name in names for end in ("", "_low", "_high")]


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
# A labelled or given passage under each of its hashes; `shown_hash` and `guard_hash` find copies (tasks.texts).
_HASHED: dict[str, Dtype] = {**_PAIR, "text_hash": _TEXT, "shown_hash": _TEXT, "guard_hash": _TEXT}
POSITIVES = Schema({**_HASHED, "source": _TEXT}, key=_PAIR_KEY)
# Negatives that the input rows contain, in their order, with the score of the input where it has one.
GIVEN = Schema(
    {**_HASHED, "rank": pl.Int32, "score": pl.Float64},
    key=_PAIR_KEY,
    nullable=frozenset({"score"}),
)
# Passages that people judged and called irrelevant to a training query: negatives that no judge is asked about.
IRRELEVANT = Schema({**_HASHED, "relevance": pl.Int32}, key=_PAIR_KEY)
# Scores that a teacher gave to the pairs of the source's rows, of positives and negatives alike.
TEACHER = Schema({**_PAIR, "score": pl.Float64}, key=_PAIR_KEY)
# Further fields of the source's rows that exports carry on: `prompt`, `type`.
EXTRAS = Schema(
    {"dataset": _TEXT, "query_id": _TEXT, "name": _TEXT, "value": _TEXT}, key=("dataset", "query_id", "name")
)
QRELS = Schema({**_PAIR, "relevance": pl.Int32}, key=_PAIR_KEY)
# False negatives that are known in advance (planted, or known by construction). No judge reads this table.
KNOWN = Schema({**_PAIR}, key=_PAIR_KEY)
# Ids of queries and passages that say the same as another of their dataset, under whose id they were merged.
COPIES = Schema({"dataset": _TEXT, "kind": _TEXT, "id": _TEXT, "kept": _TEXT}, key=("dataset", "kind", "id"))
QUERY, PASSAGE = "query", "passage"  # the kinds of `COPIES` and of `GENERATIONS`
# Where ingest put its texts, for the next ingest: the beginnings of the hashes of dataset and text, and the generation.
PLACES = Schema({"dataset": pl.UInt32, "high": pl.UInt64, "generation": pl.UInt16}, key=())
# How many parts each generation of queries and of passages has (tasks.data.partition).
GENERATIONS = Schema({"kind": _TEXT, "generation": pl.Int32, "parts": pl.Int32}, key=("kind", "generation"))
EMBEDDINGS = Schema({"text_hash": _TEXT, "vector": pl.Array}, key=("text_hash",))
HITS = Schema(
    {
        **_HASHED,
        "repeats": _TEXT,  # how the passage repeats the query's own text or id; see tasks.mining.masks
        "retriever": _TEXT,
        "rank": pl.Int32,
        "score": pl.Float64,
    },
    key=(*_PAIR_KEY, "retriever"),
    nullable=frozenset({"repeats"}),
)
CANDIDATES = Schema(
    {
        **_PAIR,
        "text_hash": _TEXT,
        "query_hash": _TEXT,
        "positives_hash": _TEXT,  # tasks.texts.combine_hashes of the query's positives
        "retriever": _TEXT,  # "dense", "dense+bm25"; "given" for negatives of the source; BY_PEOPLE
        "rank": pl.Int32,
        "score": pl.Float64,
    },
    key=_PAIR_KEY,
    nullable=frozenset({"score"}),
)
NEGATIVES = Schema({**_PAIR, "text_hash": _TEXT, "rank": pl.Int32}, key=_PAIR_KEY)
VERDICTS = Schema(_VERDICT, key=(*_PAIR_KEY, "tier"), nullable=frozenset({"score", "grade", "preference", "call_id"}))
_QUESTION: dict[str, Dtype] = {"query_hash": _TEXT, "positives_hash": _TEXT, "text_hash": _TEXT}
# The pool of a guarantee: its questions with the scores of the tier before, and which are drawn for the audit.
AUDIT = Schema(
    {
        **_QUESTION,
        "score": pl.Float64,
        "stratum": _TEXT,  # high | low
        "inclusion_probability": pl.Float64,
        "drawn": pl.Boolean,
    },
    key=tuple(_QUESTION),
)
# What the audit allows: accepted are scores from `accept` on, rejected are those below `reject`; null: none. Counts are
# of questions; `accepted` and `rejected` without the audited ones.
_THRESHOLDS: dict[str, Dtype] = {
    "questions": pl.Int64,
    "audited": pl.Int64,
    "accept": pl.Float64,
    "reject": pl.Float64,
    "accepted": pl.Int64,
    "rejected": pl.Int64,
    "found_rejected": pl.Int64,  # audited, to be rejected by their score, and relevant
    "found_wrong": pl.Int64,  # audited, to be accepted by their score, and not relevant
}
THRESHOLDS = Schema(_THRESHOLDS, key=(), nullable=frozenset({"accept", "reject"}))
# What a guarantee reached, once everything that was passed on is asked (tasks.verdicts.guarantee.assure).
GUARANTEE = Schema(
    {
        "tier": _TEXT,
        **_THRESHOLDS,
        "asked": pl.Int64,  # the audited ones included
        "found": pl.Int64,  # asked, and relevant
        "recall": pl.Float64,  # the targets; null: no demand
        "precision": pl.Float64,
        "confidence": pl.Float64,
        "recall_bound": pl.Float64,  # hold together with the confidence
        "precision_bound": pl.Float64,
    },
    key=("tier",),
    nullable=frozenset({"accept", "reject", "recall", "precision"}),
)
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
# Where in its passage a judge found what a verdict rests on: the window that decided, by characters (title and text,
# without invisible ones) and by estimated tokens. A verdict that could not be read has no row.
WINDOWS = Schema(
    {
        **_PAIR,
        "tier": _TEXT,
        "windows": pl.Int32,  # in how many the passage was cut
        "start": pl.Int32,
        "end": pl.Int32,
        "chars": pl.Int32,  # of the whole passage
        "start_tokens": pl.Int32,  # before the window
        "end_tokens": pl.Int32,  # up to its end
    },
    key=(*_PAIR_KEY, "tier"),
)
# What is known of a pair without asking a model: cosines, and how it was found (tasks.judging.similarity).
FEATURES = Schema(
    {
        **_PAIR,
        "query_hash": _TEXT,
        "text_hash": _TEXT,
        "to_query": pl.Float64,  # cosine of candidate and query
        "to_positive": pl.Float64,  # the largest cosine of candidate and a positive
        "to_positives": pl.Float64,  # the mean of these cosines
        "positive_to_query": pl.Float64,  # the largest cosine of query and a positive
        "positives": pl.Int32,  # how many there are
        "rank": pl.Int32,
        "missed_words": pl.Float64,  # share of the query's words that a positive has and the candidate lacks
        "shared_triples": pl.Float64,  # of words in a row, with a positive: Jaccard's coefficient, the largest
    },
    key=_PAIR_KEY,
    nullable=frozenset({"missed_words", "shared_triples"}),
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
        # kappa is that of two states: relevant against everything else that the tier said (tasks.agreement)
        **dict.fromkeys(_with_bounds("kappa", "precision", "recall"), pl.Float64),
    },
    key=("tier",),
    nullable=frozenset(_with_bounds("kappa", "precision", "recall")),
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
        **dict.fromkeys(_with_bounds("kappa", "accuracy"), pl.Float64),  # kappa of two states, as in PEOPLE
        "unparsed": pl.Int64,
    },
    key=("tier",),
    nullable=frozenset(_with_bounds("kappa")),
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
# How often each value occurs: lengths, numbers per query, ranks, scores (tasks.report.describe).
COUNTS = Schema(
    {"subject": _TEXT, "dataset": _TEXT, "kind": _TEXT, "value": pl.Float64, "count": pl.Int64},
    key=(),
)
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
        "recall_low": pl.Float64,
        "recall_high": pl.Float64,
        "precision_low": pl.Float64,
        "precision_high": pl.Float64,
        "auc_low": pl.Float64,
        "auc_high": pl.Float64,
    },
    key=("tier",),
    nullable=frozenset(_with_bounds("recall", "precision", "auc")) | {"precision_at_cascade_recall"},
)
# How often two judges are both wrong, and how often they would be by chance (tasks.verdicts.shared_errors).
SHARED_ERRORS = Schema(
    {
        "first": _TEXT,
        "second": _TEXT,
        "kind": _TEXT,  # all, or how kinds of pairs are told apart: dataset, rank, ...
        "value": _TEXT,
        "pairs": pl.Int64,
        "queries": pl.Int64,
        "first_wrong": pl.Float64,  # shares of the pairs
        "second_wrong": pl.Float64,
        "both_wrong": pl.Float64,
        "by_chance": pl.Float64,
        "excess_low": pl.Float64,  # interval of both_wrong - by_chance, clustered by query
        "excess_high": pl.Float64,
    },
    key=("first", "second", "kind", "value"),
    nullable=frozenset({"excess_low", "excess_high"}),
)
# The positives that were put to a judge: `asked_id` is the query under which each was asked (tasks.verdicts.checks).
CHECKED = Schema({"dataset": _TEXT, "asked_id": _TEXT, "query_id": _TEXT, "doc_id": _TEXT}, key=("dataset", "asked_id"))
# Queries that have no clear answer.
QUERY_CHECKS = Schema(
    {
        "dataset": _TEXT,
        "query_id": _TEXT,
        "state": _TEXT,  # unsure
        "reason": _TEXT,
        "positives": pl.Int64,  # that were put to the judge, and read
        "positives_relevant": pl.Int64,
        "candidates": pl.Int64,
        "candidates_relevant": pl.Int64,
    },
    key=("dataset", "query_id"),
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
