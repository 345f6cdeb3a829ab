"""Evaluate a model by dense search for the held-out queries, and compare the scores of two models.

The search is exact and over the whole corpus. The measures, and their names, are those of ir_measures. Scores are per
query, so two models are compared on the same queries, pair by pair.

Where the queries are passages too, each query would find itself first. So the passage that is the query itself is left
out of its ranking, as in BEIR (`tasks.evaluation.left_out`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.evaluation.collections import CollectionConfig
from tasks.evaluation.encoding import load_model
from tasks.evaluation.left_out import LEFT_OUT, SharedIds, choose_left_out, find_same
from tasks.evaluation.measures import USUAL, measure_queries, parse_measures, refuse_deep
from tasks.evaluation.named_sets import expand
from tasks.evaluation.pool import PoolConfig
from tasks.evaluation.ranking import TopPassages
from tasks.mining.dense.corpus import Frames, frames_of
from tasks.mining.dense.nearest import QUERIES
from tasks.schemas import REJECTS, SCORES, TREATMENTS
from tasks.statistics import EQUAL
from tasks.summaries import RUN
from tasks.texts import show_passage

MEASURES = USUAL
ALL_DATASETS = "all"
PAIR = ("default", "relabel")  # the models that are compared, if both are there
DEV: Final = "dev"  # the split by which settings are chosen
RESAMPLES = 10_000

_PAIRED = ["dataset", "measure", "query_id"]
_BLOCK = 5_000_000  # numbers resampled at once: 40 MB


class EvaluateConfig(BaseModel):
    """Which model is evaluated, how it reads texts, and what is measured.

    model_name: name of the model in the scores: "base", or the treatment it was trained on; set by the flow.
    split: which held-out queries the report shows. The gate and pruning choose by `dev` where it has queries, so that
        `test` stays unseen.
    seed: seed of the training, to tell several trainings apart.
    measures: names of ir_measures; a cutoff is at most `depth`, which files and `evaluate` are held to, and not records
        of former runs. depth: passages ranked for each query.
    dtype, device: of the model.
    query_prompt, passage_prompt: prefix of each text of that role.
    max_seq_length: the most tokens read of a text, limited by the model.
    batch_size: texts encoded at once.
    min_relevance: the least label of a relevant passage, for measures that tell relevant from not relevant (R, RR, P);
        default: `ingest.min_relevance`. nDCG reads the labels as they are.
    ignore_same_id: whether the passage with the id of the query is left out of its ranking, as BEIR does. `auto`: not
        where ids are plain numbers of texts that are not near the same, nor where it is labelled relevant.
    ignore_same_text: whether the query's own text is left out too, under whatever id, if it is not labelled relevant.
        Not in collections.
    collections: folders or data sets of a hub that the models are evaluated on besides, as other tools would; sets of
        BEIR and mteb by name (docs/evaluation.md).
    pool: judges complete the labels of the test queries, and each measure is taken twice. Nothing is chosen by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str = "base"
    split: Literal["test", "dev"] = Field("test", json_schema_extra={"keyed_when_set": True})
    seed: int = Field(42, ge=0)
    measures: tuple[str, ...] = Field(USUAL, min_length=1)
    depth: int = Field(100, ge=1)
    max_seq_length: int = Field(128, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra={"operational": True})
    min_relevance: int | None = Field(None, json_schema_extra={"keyed_when_set": True})
    ignore_same_id: SharedIds = Field("auto", json_schema_extra={"keyed_when_set": True})
    ignore_same_text: bool = Field(True, json_schema_extra={"keyed_when_set": True})
    collections: tuple[CollectionConfig, ...] = Field((), json_schema_extra={"keyed_when_set": True})
    pool: PoolConfig | None = Field(None, json_schema_extra={"keyed_when_set": True})

    @property
    def least(self) -> int:
        """The least label of a relevant passage."""
        return 1 if self.min_relevance is None else self.min_relevance

    @model_validator(mode="after")
    def _pool_is_ranked(self) -> Self:
        """Refuse a pool that is deeper than the rankings."""
        if self.pool is not None and self.pool.depth > self.depth:
            raise ValueError(f"pool.depth={self.pool.depth} must not be above depth={self.depth}: no more are ranked")
        return self

    @field_validator("collections", mode="before")
    @classmethod
    def _find_named(cls, collections: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Put in the addresses of the sets that are known by name."""
        if not isinstance(collections, list | tuple):
            return collections
        return [found for item in collections for found in expand(item)]

    @field_validator("collections")
    @classmethod
    def _check_names(cls, collections: tuple[CollectionConfig, ...]) -> tuple[CollectionConfig, ...]:
        """Refuse two collections of one name."""
        labels = [each.label for each in collections]
        twice = sorted({label for label in labels if labels.count(label) > 1 or not label})
        if twice:
            raise ValueError(f"names that differ in letters or digits expected, several are {twice}; give each a name")
        return collections

    @field_validator("measures")
    @classmethod
    def _check_measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse measures that ir_measures does not know, and use its spelling of the others."""
        return parse_measures(names)


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
    config: EvaluateConfig, *, queries: pl.DataFrame, passages: Frames, qrels: pl.DataFrame, model: Path
) -> dict[str, Any]:
    """Score a model on the held-out queries with a relevant passage, each dataset separately.

    Passages are read twice, part by part: for the queries' own texts, and to encode and compare them.

    Args:
        config: the measures, and how texts are read.
        queries: of all splits.
        passages: one frame for each part of the corpus; a single frame is a part.
        qrels: of the held-out queries. They may name passages that the corpus does not hold: the best ranking has them.
        model: the folder of the model.

    Returns:
        `scores`: of the configured split, one row per measure and query; 0 for a query whose relevant passages are not
            found. No rows if no query is held out.
        `dev_scores`: the same of the split `dev`, whatever is configured.
        `run`: the ranked passages of all these queries, in frames of some queries each.
        `rejects`: the passages that are left out of a query's ranking.

    Raises:
        ValueError: the model was made for another similarity than cosine or dot product, or a measure looks at more
            passages than are ranked.
    """
    refuse_deep(config.measures, config.depth)
    config, asked, relevant = choose_asked(config, queries, qrels)
    if asked.is_empty():
        none = {"scores": SCORES.empty(), "dev_scores": SCORES.empty(), "rejects": REJECTS.empty()}
        return {**none, "run": [RUN.empty()]}
    left_out = _left_out(config, asked, passages, relevant)
    found = _rank(config, asked, passages, left_out, model)
    scores = pl.concat(_score(config, asked, name, top, qrels) for name, top in found.items())
    named = {"stage": pl.lit("evaluate"), "key": pl.concat_str("dataset", "query_id", "doc_id", separator="/")}
    return {
        **split_scores(config, scores, asked),
        "run": _run(found),
        "rejects": left_out.with_columns(**named).select(*REJECTS.columns).sort("key"),
    }


def choose_asked(
    config: EvaluateConfig, queries: pl.DataFrame, qrels: pl.DataFrame
) -> tuple[EvaluateConfig, pl.DataFrame, pl.DataFrame]:
    """Return the held-out queries with a relevant passage, the labels of these, and the settings that hold for them."""
    if not (qrels["relevance"] >= config.least).any():  # labels of rows are 1, whatever `min_relevance` is
        config = config.model_copy(update={"min_relevance": None})
    relevant = qrels.filter(pl.col("relevance") >= config.least)
    asked = queries.filter(pl.col("split").is_in([config.split, DEV]))
    return config, asked.join(relevant, on=["dataset", "query_id"], how="semi").sort("dataset", "query_id"), relevant


def split_scores(config: EvaluateConfig, scores: pl.DataFrame, asked: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the scores of the configured split and those of the development queries: `scores`, `dev_scores`."""
    splits = scores.join(asked.select("dataset", "query_id", "split"), on=["dataset", "query_id"])
    of = {"scores": config.split, "dev_scores": DEV}
    return {
        name: splits.filter(pl.col("split") == split).select(*SCORES.columns).sort(SCORES.key)
        for name, split in of.items()
    }


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


def choose_pair(scores: pl.DataFrame) -> tuple[str, str]:
    """Choose the two models that a report compares: baseline, treatment.

    `default` and `relabel` if both are there; else the first of the others takes the place of the one that is not, in
    the order of the treatments; and where no model was trained on `default`, the untrained one.
    """
    there = set(scores["model"].unique())
    baseline = next((name for name in (PAIR[0], "base") if name in there), PAIR[0])
    others = [name for name in (PAIR[1], *TREATMENTS) if name in there and name != baseline]
    return baseline, next(iter(others), PAIR[1])


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


def _left_out(config: EvaluateConfig, queries: pl.DataFrame, passages: Frames, relevant: pl.DataFrame) -> pl.DataFrame:
    """Return the passages that are left out of a query's ranking: dataset, query_id, doc_id, reason, detail."""
    found = [find_same(queries, part) for part in frames_of(passages)]
    same = pl.concat([pl.DataFrame(schema=LEFT_OUT), *found])
    return choose_left_out(same, relevant, same_id=config.ignore_same_id, same_text=config.ignore_same_text)


def _rank(
    config: EvaluateConfig, asked: pl.DataFrame, passages: Frames, left_out: pl.DataFrame, folder: Path
) -> dict[str, TopPassages]:
    """Search the passages of each dataset for its queries."""
    model = load_model(folder, **config.model_dump(include={"device", "dtype", "max_seq_length", "batch_size"}))
    found = {}
    for own in asked.partition_by("dataset", maintain_order=True):
        vectors = model.encode(own["text"].to_list(), config.query_prompt)
        found[own["dataset"][0]] = TopPassages(own["query_id"], vectors, config.depth)
    for part in frames_of(passages):
        for own in part.filter(pl.col("dataset").is_in(list(found))).partition_by("dataset"):
            name = own["dataset"][0]
            shown = [show_passage(title, text) for title, text in own.select("title", "text").iter_rows()]
            vectors = model.encode(shown, config.passage_prompt)
            found[name].add(own["doc_id"], vectors, left_out.filter(pl.col("dataset") == name))
    return found


def _score(
    config: EvaluateConfig, asked: pl.DataFrame, dataset: str, top: TopPassages, qrels: pl.DataFrame
) -> pl.DataFrame:
    """Measure the rankings of one dataset, some queries at a time."""
    ours = pl.col("dataset") == dataset
    queries, labels = asked.filter(ours), qrels.filter(ours)
    measured = []
    for start, ranked in top.ranked():
        block = queries[start : start + QUERIES].select("query_id")
        judged = labels.join(block, on="query_id", how="semi")
        measured.append(measure_queries(config.measures, run=ranked, labels=judged, min_relevance=config.least))
    named = {"model": pl.lit(config.model_name), "dataset": pl.lit(dataset), "seed": pl.lit(config.seed, pl.Int64)}
    return pl.concat(measured).with_columns(**named).select(*SCORES.columns)


def _run(found: Mapping[str, TopPassages]) -> Iterator[pl.DataFrame]:
    """Yield the rankings, some queries at a time."""
    for dataset, top in found.items():
        for _, ranked in top.ranked():
            rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("query_id")
            yield ranked.with_columns(dataset=pl.lit(dataset), rank=rank).select(*RUN.columns)


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
