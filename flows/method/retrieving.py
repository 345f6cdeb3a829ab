"""Finding passages with several retrievers, by words or vectors, all in one order; a reranker may score the pool."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.fetching import fetch_labelled, fetch_texts, fetch_vectors
from flows.method.setup import Setup
from flows.method.tables import Ingested, Vectors, group_parts, only_parts, union
from infra.engines.specs import OpenAIEmbeddingsSpec, VectorsSpec
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Table
from tasks.mining.bm25 import search as bm25
from tasks.mining.dense.further import SearchWithConfig
from tasks.mining.encode import EncodeConfig
from tasks.mining.fuse import FuseConfig
from tasks.mining.hashing import HashConfig
from tasks.schemas import DENSE

_WAVES = 4  # requests that follow each other before vectors are kept: the slots are busy most of the time
_MOST_AT_ONCE = 8192  # texts whose vectors a kill may lose


def search(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> dict[str, Any]:
    """Search with every retriever of `mine.retrievers`; returns the `hits` and `passage_embeddings` that `mine` reads.

    The dense score of a hit that the dense search did not find is computed by `mine`, so its vector is fetched too.
    """
    config = setup.config.mine
    hashes = Table("hashes")
    if set(config.retrievers) - {bm25.NAME}:
        hashes = run(st.HASH_PASSAGES, HashConfig(), passages=data.passages)["hashes"]
    hits = [_search_one(run, setup, data, vectors, hashes, name) for name in config.retrievers]
    labelled = fetch_labelled(run, data, vectors)
    if not config.fuses:
        return {"hits": hits[0], "passage_embeddings": labelled}
    how = FuseConfig(
        retrievers=config.retrievers,
        fusion=config.fusion,
        rrf_k=config.rrf_k,
        depth=config.depth,
        pool=setup.rescored_depth or config.range_max,
    )
    made = run(
        st.FUSE, how, hits=union("hits", *hits), queries=data.queries, positives=data.positives, given=data.given
    )
    further = fetch_vectors(run, data, vectors, made["unscored"], "fused")
    return {"hits": made["fused"], "passage_embeddings": union("vectors", labelled, further)}


def rescore(run: Runner, setup: Setup, data: Ingested, mined_of: Mapping[str, Any]) -> Table | None:
    """Score the pool and the positives with the reranker of the settings; None if they name none.

    No setting of what is picked is read, so another filter asks nothing.

    mined_of: the inputs of `mine`.
    """
    if setup.rescorer is None:
        return None
    pool = setup.config.mine.pool_of(setup.rescored_depth)
    asked = run(st.CHOOSE_POOL, pool, key={"encoder": setup.encoder_key}, **mined_of)["asked"]
    rescored: Table = run(
        st.RESCORE,
        setup.rescorer.judge,
        key=setup.rescorer.shown,
        engine=setup.rescorer.engine,
        asked=asked,
        queries=data.queries,
        passages=fetch_texts(run, data, asked, data.positives, "rescored"),
        positives=data.positives,
    )["rescored"]
    return rescored


def encode(run: Runner, data: Ingested, engine: BaseModel, label: str = "") -> Vectors:
    """Encode the passages and the queries, each text once, or find their vectors in files.

    Raises:
        ConfigError: an endpoint answered as several models.
    """
    config = encode_config(engine)
    passages = run(st.ENCODE_PASSAGES, config, label=label, engine=engine, passages=data.passages)["embeddings"]
    queries = run(st.ENCODE_QUERIES, config, label=label, engine=engine, queries=data.queries)["embeddings"]
    if config.at_once:
        _look_at_answers(run, f"encoders.{label}" if label else "encoder")
    return Vectors(queries=queries, passages=passages)


def encode_config(engine: BaseModel) -> EncodeConfig:
    """Return how the stages that encode ask an engine: for texts, for the vectors in its files, or for money.

    >>> encode_config(OpenAIEmbeddingsSpec(model="m", batch_size=10, concurrency=2)).at_once
    80
    """
    if isinstance(engine, OpenAIEmbeddingsSpec):
        return EncodeConfig(at_once=min(_MOST_AT_ONCE, _WAVES * engine.batch_size * engine.concurrency))
    return EncodeConfig(found=isinstance(engine, VectorsSpec))


def _look_at_answers(run: Runner, encoder: str) -> None:
    """Refuse vectors of several models, which cannot be compared; say how many texts were too long for the endpoint.

    Raises:
        ConfigError: the parts, whenever they were computed, were answered by several models.
    """
    facts = [manifest.stats.get("facts", {}) for done in run.runs[-2:] for manifest in done.manifests]
    models = sorted({str(fact["model"]) for fact in facts if fact.get("model")})
    if len(models) > 1:
        raise ConfigError(
            f"{encoder}: the endpoint answered as {' and as '.join(map(repr, models))}; vectors of several models "
            f"cannot be compared. Name one model that does not change, and set {encoder}.revision to a new text: then "
            "every text is encoded anew"
        )
    shorter = sum(fact.get("engine_counts", {}).get("shortened", 0) for fact in facts)
    if shorter:
        run.on_note(
            f"{encoder}: {shorter:,} texts were too long for the endpoint and were sent shorter, by their beginning; "
            "`max_chars` cuts all texts at the same place"
        )


def _search_one(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, hashes: Table, name: str) -> Table:
    """Return the hits of one retriever, by query part."""
    if name == bm25.NAME:
        return _search_words(run, setup, data)
    if name == DENSE:
        return _search_vectors(run, setup, data, vectors, hashes)
    return _search_vectors(run, setup, data, encode(run, data, setup.encoders[name], name), hashes, name)


def _search_vectors(
    run: Runner, setup: Setup, data: Ingested, vectors: Vectors, hashes: Table, name: str = ""
) -> Table:
    """Search the passages for every query with the vectors of an encoder; further ones have a name."""
    queries = group_parts(data.queries, data.generations.query_parts, st.SEARCHED_QUERIES)
    passages = group_parts(data.passages, data.generations.passage_parts, st.SEARCHED_PASSAGES)
    stage, how = st.SEARCH, setup.config.search
    if name:
        stage, how = st.SEARCH_WITH, SearchWithConfig(**how.model_dump(), retriever=name)
    granted = run.resources.get(stage.name, stage.resources).num_cpus
    hits: Table = run(
        stage,
        how.model_copy(update={"threads": how.threads or max(1, int(granted))}),
        label=name,
        key=setup.software(stage),
        queries=data.queries.grouped(queries),
        positives=data.positives.grouped(queries),
        passages=data.passages.grouped(passages),
        hashes=hashes.grouped(passages),
        query_embeddings=vectors.queries.grouped(queries),
        passage_embeddings=vectors.passages.grouped(passages),
    )["hits"]
    _note_recall(run)
    return hits


def _note_recall(run: Runner) -> None:
    """Say what an approximate search found of the nearest passages; its parts measured that on some queries each."""
    done = run.runs[-1]
    facts = [manifest.stats.get("facts", {}) for manifest in done.manifests]
    measured = [fact for fact in facts if fact.get("recall_nearest")]
    nearest = sum(fact["recall_nearest"] for fact in measured)
    if nearest:
        found = sum(fact["recall"] * fact["recall_nearest"] for fact in measured) / nearest
        exactly = sum(fact["searched_exactly"] for fact in measured)
        alone = f"; {exactly} passages were too few for lists and searched exactly" if exactly else ""
        queries = sum(fact["recall_queries"] for fact in measured)
        run.on_note(
            f"{done.name}: lists found {found:.1%} of the nearest passages, measured on {queries} queries{alone}"
        )


def _search_words(run: Runner, setup: Setup, data: Ingested) -> Table:
    """Index the passages part by part, add up the frequencies of the queries' words, and search part by part."""
    c, software = setup.config, setup.software(st.SEARCH_BM25)
    index = run(st.INDEX_TERMS, c.bm25.as_words, key=software, passages=data.passages)
    # Passages that come later change no score of those that were there: the frequencies are those of the first ingest.
    first = frozenset(data.generations.passage_parts[0])
    known: dict[str, Any] = {name: only_parts(index[name], first) for name in ("terms", "totals")}
    whole = run(st.COUNT_TERMS, c.bm25.as_words, key=software, queries=data.queries, **known)
    counted = part_keys.digest([table.content() for table in known.values()])
    hits: Table = run(
        st.SEARCH_BM25,
        c.bm25,
        key={"counted": counted, **software},
        queries=data.queries,
        positives=data.positives,
        passages=data.passages,
        documents=index["documents"],
        postings=index["postings"],
        **whole,
    )["hits"]
    return hits
