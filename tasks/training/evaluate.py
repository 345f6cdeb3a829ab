"""Evaluate a model by dense search for the held-out queries, and compare the scores of two models.

The search is exact and over the whole corpus. The measures, and their names, are those of ir_measures. Scores are per
query, so two models are compared on the same queries, pair by pair.

Where the queries are passages too, each query would find itself first. So a passage that is the query's own text, or
has its id and near the same text, is left out of its ranking, as in BEIR and MTEB. One that is labelled relevant stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.mining.masks import SameId, find_own
from tasks.schemas import REJECTS, SCORES
from tasks.statistics import EQUAL
from tasks.texts import show_passage

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]

MEASURES = ("nDCG@10", "R@100", "RR@10")
ALL_DATASETS = "all"
RESAMPLES = 10_000

_PAIRED = ["dataset", "measure", "query_id"]
_BLOCK = 5_000_000  # numbers resampled at once: 40 MB


class EvaluateConfig(BaseModel):
    """Which model is evaluated, how it reads texts, and what is measured.

    model_name: name of the model in the scores: "base", or the treatment it was trained on; set by the flow.
    split: which held-out queries are asked. Choose settings by `dev`, so that `test` stays unseen.
    seed: seed of the training, to tell several trainings apart.
    measures: names of ir_measures. depth: passages ranked for each query. dtype, device: of the model.
    query_prompt, passage_prompt: prefix of each text of that role.
    max_seq_length: the most tokens read of a text, limited by the model.
    batch_size: texts encoded at once.
    ignore_same_id: whether the passage with the id of the query is left out of its ranking; `auto`: if their texts are
        near the same. The query's own text always is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str = "base"
    split: Literal["test", "dev"] = Field("test", json_schema_extra={"keyed_when_set": True})
    seed: int = Field(42, ge=0)
    measures: tuple[str, ...] = Field(MEASURES, min_length=1)
    depth: int = Field(100, ge=1)
    max_seq_length: int = Field(128, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra={"operational": True})
    ignore_same_id: SameId = Field("auto", json_schema_extra={"keyed_when_set": True})

    @field_validator("measures")
    @classmethod
    def _check_measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse measures that ir_measures does not know, and use its spelling of the others."""
        import ir_measures

        try:
            return tuple(str(ir_measures.parse_measure(name)) for name in names)
        except (NameError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"measures known to ir_measures expected, such as {', '.join(MEASURES)}: {error}"
            ) from error


@dataclass(frozen=True)
class Comparison:
    """The difference between the scores of a treatment and of a baseline on the same queries.

    dataset: name of the dataset, or "all" for the queries of all datasets.
    low, high: interval of the mean difference at `confidence`; None where it is not defined.
    p_value: two-sided; None for fewer than two queries.
    better, equal, worse: number of queries.
    """

    dataset: str
    measure: str
    queries: int
    baseline: float
    treatment: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    better: int
    equal: int
    worse: int
    confidence: float = 0.95

    @property
    def is_clear(self) -> bool:
        """Return whether zero is outside the interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def evaluate(
    config: EvaluateConfig, *, queries: pl.DataFrame, passages: pl.DataFrame, qrels: pl.DataFrame, model: Path
) -> dict[str, pl.DataFrame]:
    """Score a model on the queries of the configured split with a relevant passage, each dataset separately.

    Returns:
        `scores`: one row per measure and query; 0 for a query whose relevant passages are not found. No rows if no
            query is held out.
        `rejects`: the passages that are left out of a query's ranking.
    """
    relevant = qrels.filter(pl.col("relevance") > 0)
    held_out = queries.filter(pl.col("split") == config.split).join(relevant, on=["dataset", "query_id"], how="semi")
    if held_out.is_empty():
        return {"scores": SCORES.empty(), "rejects": REJECTS.empty()}
    encoder = _load(config, model)
    datasets = held_out["dataset"].unique().sort().to_list()
    ignored = _ignored(config, held_out, passages, relevant)
    frames = [_score(config, encoder, *_only(name, held_out, passages, qrels, ignored)) for name in datasets]
    named = {"stage": pl.lit("evaluate"), "key": pl.concat_str("dataset", "query_id", "doc_id", separator="/")}
    rejects = ignored.with_columns(**named).select(*REJECTS.columns).sort("key")
    return {"scores": pl.concat(frames).sort(SCORES.key), "rejects": rejects}


def compare(
    scores: pl.DataFrame, baseline: str = "default", treatment: str = "relabel", *, seed: int = 0, resamples: int = 0
) -> list[Comparison]:
    """Compare two models on the queries that both have scores for: all, then each dataset if there are several.

    The value of a query is its mean over the training seeds. The interval is a percentile bootstrap of the mean
    difference. The p-value is that of the paired randomisation test (random signs). Both use `resamples` draws (default
    10,000) from `seed`. Without common queries the list is empty.
    """
    paired = paired_differences(scores, baseline, treatment)
    frames = [paired.with_columns(dataset=pl.lit(ALL_DATASETS))]
    if paired["dataset"].n_unique() > 1:
        frames.append(paired)
    order = pl.col("measure").replace_strict(_measure_order(scores), return_dtype=pl.Int64)
    results = []
    for frame in frames:
        groups = frame.sort("dataset", order, "query_id").partition_by("dataset", "measure", maintain_order=True)
        results += [_compare(group, seed, resamples or RESAMPLES) for group in groups]
    return results


def paired_differences(scores: pl.DataFrame, baseline: str = "default", treatment: str = "relabel") -> pl.DataFrame:
    """Join the scores of two models: dataset, measure, query_id, baseline, treatment, difference (means over seeds)."""
    sides = [
        scores.filter(pl.col("model") == name).group_by(_PAIRED).agg(pl.col("value").mean().alias(side))
        for name, side in ((baseline, "baseline"), (treatment, "treatment"))
    ]
    return (
        sides[0]
        .join(sides[1], on=_PAIRED)
        .with_columns(difference=pl.col("treatment") - pl.col("baseline"))
        .sort(_PAIRED)
    )


def _load(config: EvaluateConfig, model: Path) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(model),
        device=config.device,
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, config.dtype)},
    )
    if isinstance(encoder.max_seq_length, int):  # models of static vectors have no limit
        encoder.max_seq_length = min(config.max_seq_length, encoder.max_seq_length)
    return encoder


def _only(dataset: str, *frames: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return (frame.filter(pl.col("dataset") == dataset) for frame in frames)


def _ignored(
    config: EvaluateConfig, queries: pl.DataFrame, passages: pl.DataFrame, relevant: pl.DataFrame
) -> pl.DataFrame:
    """Return the passages that are left out of a query's ranking: dataset, query_id, doc_id, reason, detail."""
    found = find_own(queries, passages, same_id=config.ignore_same_id)
    return found.join(relevant, on=["dataset", "query_id", "doc_id"], how="anti")


def _score(
    config: EvaluateConfig,
    encoder: "SentenceTransformer",
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    qrels: pl.DataFrame,
    ignored: pl.DataFrame,
) -> pl.DataFrame:
    """Search the passages of one dataset for its held-out queries, and measure the result."""
    import ir_measures

    queries, passages = queries.sort("query_id"), passages.sort("doc_id")
    shown = [show_passage(title, text) for title, text in passages.select("title", "text").iter_rows()]
    passage_vectors = _encode(config, encoder, shown, config.passage_prompt)
    query_vectors = _encode(config, encoder, queries["text"].to_list(), config.query_prompt)
    own: dict[str, set[str]] = {}
    for query_id, doc_id in ignored.select("query_id", "doc_id").iter_rows():
        own.setdefault(query_id, set()).add(doc_id)
    run = _search(query_vectors, passage_vectors, queries["query_id"], passages["doc_id"], config.depth, own)
    labels: dict[str, dict[str, int]] = {query_id: {} for query_id in run}
    for query_id, doc_id, relevance in (
        qrels.join(queries, on="query_id", how="semi").select("query_id", "doc_id", "relevance").iter_rows()
    ):
        labels[query_id][doc_id] = relevance
    measures = [ir_measures.parse_measure(name) for name in config.measures]
    values = {(query_id, name): 0.0 for query_id in run for name in config.measures}
    values |= {(m.query_id, str(m.measure)): float(m.value) for m in ir_measures.iter_calc(measures, labels, run)}
    rows = [
        (config.model_name, queries["dataset"][0], name, query_id, value, config.seed)
        for (query_id, name), value in values.items()
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def _encode(config: EvaluateConfig, encoder: "SentenceTransformer", texts: list[str], prompt: str) -> Vectors:
    """Encode each distinct text once, so that equal passages have equal scores; the library sorts by length."""
    distinct = sorted(set(texts))
    vectors = encoder.encode(
        distinct,
        prompt=prompt or None,
        batch_size=config.batch_size,
        normalize_embeddings=True,
        convert_to_tensor=True,
        show_progress_bar=False,
    )
    rows = {text: row for row, text in enumerate(distinct)}
    return np.ascontiguousarray(vectors.float().cpu().numpy()[[rows[text] for text in texts]])


def _search(
    queries: Vectors,
    passages: Vectors,
    query_ids: pl.Series,
    doc_ids: pl.Series,
    depth: int,
    own: Mapping[str, set[str]],
) -> dict[str, dict[str, float]]:
    """Return the `depth` passages with the highest inner product for each query, without its `own`, and the scores."""
    import faiss

    index = faiss.IndexFlatIP(passages.shape[1])
    index.add(passages)
    reach = depth + max((len(ids) for ids in own.values()), default=0)
    scores, rows = index.search(queries, min(reach, len(passages)))
    names = doc_ids.to_list()
    run: dict[str, dict[str, float]] = {}
    for query_id, found, values in zip(query_ids, rows, scores, strict=True):
        ranked = ((names[row], float(score)) for row, score in zip(found, values, strict=True))
        others = ((doc_id, score) for doc_id, score in ranked if doc_id not in own.get(query_id, ()))
        run[query_id] = dict(islice(others, depth))
    return run


def _measure_order(scores: pl.DataFrame) -> dict[str, int]:
    """Return the position of each measure: those of `MEASURES` in their order, then others by name."""
    others = sorted(set(scores["measure"].unique()) - set(MEASURES))
    return {name: position for position, name in enumerate((*MEASURES, *others))}


def _compare(group: pl.DataFrame, seed: int, resamples: int) -> Comparison:
    differences = group["difference"].to_numpy()
    low, high, p_value = _interval_and_p(differences, seed, resamples)
    return Comparison(
        dataset=group["dataset"][0],
        measure=group["measure"][0],
        queries=group.height,
        baseline=float(group["baseline"].to_numpy().mean()),
        treatment=float(group["treatment"].to_numpy().mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=p_value,
        better=int((differences > 0).sum()),
        equal=int((differences == 0).sum()),
        worse=int((differences < 0).sum()),
    )


def _interval_and_p(
    differences: npt.NDArray[np.float64], seed: int, resamples: int
) -> tuple[float | None, float | None, float | None]:
    """Return the bootstrap interval and the p-value of the sign-flip test of the mean; None for fewer than two queries.

    There is no interval if all queries have the same difference, as such a sample does not show how queries vary.
    """
    from scipy import stats

    if len(differences) < 2:  # noqa: PLR2004 - a single difference has no spread
        return None, None, None
    batch = max(1, _BLOCK // len(differences))
    boot = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        batch=batch,
        rng=np.random.default_rng(seed),
    )
    test = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        batch=batch,
        rng=np.random.default_rng(seed),
    )
    if abs(differences[0]) > EQUAL and np.ptp(differences) <= EQUAL:
        return None, None, float(test.pvalue)
    interval = boot.confidence_interval
    return float(interval.low), float(interval.high), float(test.pvalue)
