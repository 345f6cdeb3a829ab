"""The evaluation of models (paper section 4).

Models are evaluated on the curation's held-out queries, and on the collections that the settings name besides. Where
the settings say so, judges complete the labels of the test queries, and each measure is taken twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from pydantic import BaseModel

from flows import stages as st
from flows.method.fetching import fetch_texts, fetch_vectors
from flows.method.judging import decide_pairs
from flows.method.retrieving import encode_config
from flows.method.setup import Setup
from flows.method.tables import Completed, Fetched, Ingested, Vectors, empty_table, group_parts, union
from flows.method.training import BASE
from infra.cluster.weights import publish_stored
from infra.engines.specs import CrossEncoderSpec, SentenceTransformersSpec
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.evaluation.collections import CollectionConfig, ReadConfig, say_unreadable
from tasks.evaluation.pool import CompletedConfig, RankedConfig
from tasks.evaluation.rerank import RerankConfig
from tasks.evaluation.results import ResultsConfig
from tasks.evaluation.search import ScoreConfig, SearchConfig
from tasks.mining.encode import EncodeConfig

RERANKER = "reranker"  # the name of the cross-encoder in results
_OF_THE_ENGINE = {"device", "dtype", "max_seq_length", "query_prompt", "passage_prompt", "batch_size"}


@dataclass(frozen=True)
class Scored:
    """The scores of some models on the held-out queries.

    scores: of the split that is reported. dev_scores: of the development queries, by which the gate and pruning choose.
    rejects: the passages left out of the rankings, which are the same for each model. runs: by model, its rankings.
    """

    scores: Table
    dev_scores: Table
    rejects: Table
    runs: Mapping[str, Table] = field(default_factory=dict)


def evaluate(run: Runner, setup: Setup, data: Ingested, models: Mapping[str, Directory]) -> Scored:
    """Score each model on the held-out queries."""
    texts = {"queries": data.queries, "passages": data.passages, "qrels": data.qrels}
    made = [evaluate_one(run, setup, texts, model, name) for name, model in models.items()]
    if made:
        return join_scores(made)
    none, none_dev = (empty_table(run, name, schemas.SCORES) for name in ("scores", "dev_scores"))
    return Scored(none, none_dev, empty_table(run, "rejects", schemas.REJECTS))


def evaluate_one(  # noqa: PLR0913 - the two last have defaults
    run: Runner,
    setup: Setup,
    texts: Mapping[str, Table],
    model: Directory,
    name: str,
    *,
    label: str = "",
    seed: int | None = None,
) -> Scored:
    """Score one model on the held-out queries.

    Args:
        run: the runner.
        setup: of the curation.
        texts: `queries`, `passages` and `qrels`.
        model: the model.
        name: of the model in the scores.
        label: of the stage; default: the model's name.
        seed: of the training; default: that of the settings.
    """
    c = setup.config.evaluate
    least = least_relevance(setup) if c.min_relevance is None else c.min_relevance
    chosen = {"model_name": name, "min_relevance": least, "collections": (), "pool": None}
    config = c.model_copy(update=chosen if seed is None else {**chosen, "seed": seed})
    key = setup.software(st.EVALUATE, c.device)
    inputs: dict[str, Any] = {**texts, "model": model}
    made = run(st.EVALUATE, config, label=label or name, key=key, **inputs)
    return Scored(made["scores"], made["dev_scores"], made["rejects"], {name: made["run"]})


def complete_labels(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, scored: Scored) -> Completed | None:
    """Let the judges complete the labels of the test queries, and measure each model with and without; None if unset.

    They are asked about the unlabelled pairs among the first of all rankings, tier by tier, as about the candidates.
    The scores by which gates and pruning choose stay those of the labels alone.
    """
    c = setup.config.evaluate
    if c.pool is None or not scored.runs:
        return None
    least = (least_relevance(setup) if c.min_relevance is None else c.min_relevance) or 1
    labels: dict[str, Any] = {"queries": data.queries, "qrels": data.qrels}
    which = RankedConfig(
        depth=c.pool.depth,
        split=c.split,
        min_relevance=least,
        parts=max(data.queries.indexes, default=0) + 1,
        skip=setup.skipped,
    )
    ranked = union("run", *scored.runs.values())
    about = replace(run, about=st.HELD_OUT)  # the same stages as for the candidates, under labels of their own
    found = run(st.POOL_UNLABELLED, which, **labels, run=ranked, passages=data.passages)
    decisions = _judge_ranked(about, setup, replace(data, positives=found["positives"]), vectors, found["candidates"])
    scores = [
        run(
            st.SCORE_COMPLETED,
            CompletedConfig(
                model_name=name, split=c.split, seed=c.seed, measures=c.measures, depth=c.depth, min_relevance=least
            ),
            label=name,
            **labels,
            run=own,
            decisions=decisions,
        )
        for name, own in scored.runs.items()
    ]
    labelled, completed = (union(name, *(made[name] for made in scores)) for name in ("labelled", "completed"))
    return Completed(labelled, completed, decisions)


def _judge_ranked(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, pairs: Table) -> Table:
    """Judge pairs of held-out queries; returns the decisions. data: with the positives of these queries."""
    engine = setup.encoder
    how = encode_config(engine).model_copy(update={"split": setup.config.evaluate.split})
    asked = run(st.ENCODE_QUERIES, how, engine=engine, queries=data.queries)["embeddings"]
    fetched = Fetched(
        fetch_texts(run, data, pairs, data.positives, "texts"), fetch_vectors(run, data, vectors, pairs, "vectors")
    )
    return decide_pairs(run, setup, data, fetched, pairs, asked).decisions


def evaluate_rerankers(
    run: Runner, setup: Setup, data: Ingested, scored: Scored, rerankers: Mapping[str, Directory]
) -> Scored:
    """Let each trained reranker rank again what the untrained model found, and put its scores beside the others'.

    A reranker's name in the scores is `reranker-` and its treatment. The candidates are the same for all of them.
    """
    least, c = least_relevance(setup), setup.config.evaluate
    chosen = {"min_relevance": least if c.min_relevance is None else c.min_relevance, "collections": (), "pool": None}
    made, engines = [], _rerankers(run, setup, rerankers)
    if not engines:
        return scored
    asked = run(st.PICK_HELD_OUT, RerankConfig(), queries=data.queries)["asked"]
    for label, engine in engines.items():
        texts: dict[str, Any] = {"run": scored.runs[BASE], "asked": asked, "passages": data.passages}
        found = run(st.RERANK_HELD_OUT, RerankConfig(), label=label, engine=engine, **texts)["found"]
        config = c.model_copy(update={**chosen, "model_name": label})
        tables: dict[str, Any] = {"found": found, "queries": data.queries, "qrels": data.qrels}
        scores = run(st.SCORE_RERANKED, config, label=label, **tables)
        made.append(replace(scored, scores=scores["scores"], dev_scores=scores["dev_scores"]))
    return join_scores([scored, *made])


def _rerankers(run: Runner, setup: Setup, trained: Mapping[str, Directory]) -> dict[str, CrossEncoderSpec]:
    """Return the engines of the trained rerankers that are there, by their names in scores."""
    wanted, found = setup.config.train_reranker, dict[str, CrossEncoderSpec]()
    for name, model in trained.items():
        if wanted is None or model.incomplete:
            continue
        digest = part_keys.digest(dict(model.files))
        if run.executor is not None:
            publish_stored(run.store, digest, model.files)
        of_evaluation = setup.config.evaluate.model_dump(include={"device", "dtype", "batch_size"})
        spec = CrossEncoderSpec(model="", digest=digest, **wanted.reading, **of_evaluation)
        found[f"{RERANKER}-{name}"] = spec
    return found


def evaluate_collections(
    run: Runner, setup: Setup, models: Mapping[str, Directory], rerankers: Mapping[str, Directory] | None = None
) -> dict[str, Directory]:
    """Evaluate each model on each collection of `evaluate.collections`; returns folders of results by their label.

    A model that is not there yet is left out, and a collection that could not be read. rerankers: that were trained.
    """
    c = setup.config.evaluate
    there = {name: model for name, model in models.items() if not model.incomplete}
    read: list[tuple[CollectionConfig, Mapping[str, Table]]] = []
    tables: Mapping[str, Table]
    for wanted, source in zip(c.collections, setup.collections, strict=True) if there else ():
        how = ReadConfig(name=wanted.name, split=wanted.split, ignore_same_id=c.ignore_same_id)
        tables = run(st.READ_COLLECTION, how, label=wanted.label, source=source)
        for facts in (manifest.stats.get("facts", {}) for manifest in run.runs[-1].manifests):
            if facts.get("unreadable"):
                run.on_note(say_unreadable(wanted.name, facts["unreadable"]))
        if not tables["queries"].incomplete:
            read.append((wanted, tables))
    found: dict[str, Directory] = {}
    given = {} if setup.reranker is None else {RERANKER: setup.reranker}
    again: dict[str, BaseModel] = {**given, **(_rerankers(run, setup, rerankers or {}) if read else {})}
    for (name, model), (wanted, tables) in product(there.items(), read):  # model by model: each engine is built once
        label, spec = f"{name}-{wanted.label}", _spec(run, setup, name, model)
        scored = _score_collection(run, setup, tables, label, (name, wanted.split), spec)
        found[label] = _write(run, setup, scored, (name, spec.digest), label, wanted)
        for own, engine in again.items() if name == BASE else ():
            label, digest = f"{own}-{wanted.label}", str(getattr(engine, "digest", ""))
            reranked = _rerank(run, setup, engine, tables, scored["run"], (own, label))
            found[label] = _write(run, setup, reranked, (own, digest), label, wanted)
    return found


def _rerank(
    run: Runner, setup: Setup, engine: BaseModel, read: Mapping[str, Table], ranked: Table, named: tuple[str, str]
) -> Mapping[str, Table]:
    """Rank what was found in a collection again; returns `scores` and `run`. named: the reranker, and the label."""
    texts: dict[str, Any] = {name: read[name] for name in ("queries", "passages")}
    name, label = named
    found = run(st.RERANK, RerankConfig(), label=label, engine=engine, run=ranked, **texts)["found"]
    return _score(run, setup, read, found, name, label)


def _score_collection(
    run: Runner,
    setup: Setup,
    read: Mapping[str, Table],
    label: str,
    named: tuple[str, str],
    spec: SentenceTransformersSpec,
) -> Mapping[str, Table]:
    """Encode and search a collection with one model; returns `scores` and `run`. named: the model and the split."""
    c, (name, split) = setup.config.evaluate, named
    how, vectors = EncodeConfig(split=split), dict[str, Table]()
    for stage, role in ((st.ENCODE_PASSAGES, "passages"), (st.ENCODE_QUERIES, "queries")):
        texts: dict[str, Any] = {role: read[role]}
        vectors[role] = run(stage, how, label=label, engine=spec, **texts)["embeddings"]
    queries = group_parts(read["queries"], _one(read["queries"]), st.SEARCHED_QUERIES)
    passages = group_parts(read["passages"], _one(read["passages"]), st.SEARCHED_PASSAGES)
    found = run(
        st.SEARCH_COLLECTION,
        SearchConfig(depth=c.depth),
        label=label,
        key=setup.software(st.SEARCH_COLLECTION),
        queries=read["queries"].grouped(queries),
        query_embeddings=vectors["queries"].grouped(queries),
        passages=read["passages"].grouped(passages),
        passage_embeddings=vectors["passages"].grouped(passages),
    )["found"]
    return _score(run, setup, read, found, name, label)


def _score(
    run: Runner, setup: Setup, read: Mapping[str, Table], found: Table, name: str, label: str
) -> Mapping[str, Table]:
    c = setup.config.evaluate
    measured = ScoreConfig(model_name=name, measures=c.measures, depth=c.depth, min_relevance=c.least)
    tables: dict[str, Any] = {name: read[name] for name in ("queries", "qrels", "left_out")}
    scored: Mapping[str, Table] = run(st.SCORE_COLLECTION, measured, label=label, found=found, **tables)
    return scored


def _one(table: Table) -> tuple[range]:
    """Return the parts of a table as one generation."""
    return (range(len(table.indexes)),)


def _write(
    run: Runner,
    setup: Setup,
    scored: Mapping[str, Table],
    model: tuple[str, str],
    label: str,
    wanted: CollectionConfig,
) -> Directory:
    """Write the files that other tools read. model: its name and digest."""
    name, digest = model
    config = ResultsConfig(
        model=f"{setup.config.name}-{name}",
        revision=digest[:12],
        split=wanted.split,
        languages={wanted.name: wanted.languages},
        main=wanted.main or setup.config.evaluate.measures[0],
        data=wanted.revision or "local",
    )
    tables: dict[str, Any] = {name: scored[name] for name in ("scores", "run")}
    results: Directory = run(st.WRITE_RESULTS, config, label=label, **tables)["results"]
    return results


def _spec(run: Runner, setup: Setup, name: str, model: Directory) -> SentenceTransformersSpec:
    """Return the engine that encodes with a model of the store, by the model's own similarity.

    The vectors of the base model are those of mining, where it reads texts in the same way: none is encoded twice.
    """
    c = setup.config.evaluate
    digest = setup.base_model_key if name == BASE else part_keys.digest(dict(model.files))
    if run.executor is not None:
        publish_stored(run.store, digest, model.files)
    settings = c.model_dump(include=_OF_THE_ENGINE)
    dot = _similarity(run, model) == "dot"
    place = setup.base_model_path if name == BASE else ""
    return SentenceTransformersSpec(model=place, digest=digest, similarity="dot" if dot else None, **settings)


def _similarity(run: Runner, model: Directory) -> str:
    """Return the similarity that a model was made for, as its own settings say."""
    key = model.files.get("config_sentence_transformers.json")
    said = {} if key is None else json.loads(run.store.get_object(key))
    return str(said.get("similarity_fn_name") or "cosine")


def join_scores(scored: Sequence[Scored]) -> Scored:
    """Put the scores of several models into one table each."""
    scores, dev_scores = (union(name, *(getattr(each, name) for each in scored)) for name in ("scores", "dev_scores"))
    runs = {name: ranked for each in scored for name, ranked in each.runs.items()}
    return Scored(scores, dev_scores, scored[-1].rejects, runs)


def least_relevance(setup: Setup) -> int | None:
    """Return the least label of a positive, where it is not 1."""
    least = setup.config.ingest.min_relevance
    return None if least == 1 else least
