"""Finding passages with several retrievers: by words, with further encoders, and all of them in one order."""

from typing import Any

from pydantic import BaseModel

from flows import stages as st
from flows.method.fetching import fetch_labelled, fetch_vectors
from flows.method.setup import Setup
from flows.method.tables import Ingested, Vectors, group_parts, only_parts, union
from infra.engines.specs import VectorsSpec
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Table
from tasks.mining.bm25 import search as bm25
from tasks.mining.dense.further import SearchWithConfig
from tasks.mining.encode import EncodeConfig
from tasks.mining.fuse import FuseConfig
from tasks.schemas import DENSE


def search(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> dict[str, Any]:
    """Search with every retriever of `mine.retrievers`; returns the `hits` and `passage_embeddings` that `mine` reads.

    The dense score of a hit that the dense search did not find is computed by `mine`, so its vector is fetched too.
    """
    config = setup.config.mine
    hits = [_search_one(run, setup, data, vectors, name) for name in config.retrievers]
    labelled = fetch_labelled(run, data, vectors)
    if not config.fuses:
        return {"hits": hits[0], "passage_embeddings": labelled}
    how = FuseConfig(
        retrievers=config.retrievers,
        fusion=config.fusion,
        rrf_k=config.rrf_k,
        depth=config.depth,
        pool=config.range_max,
    )
    made = run(
        st.FUSE, how, hits=union("hits", *hits), queries=data.queries, positives=data.positives, given=data.given
    )
    further = fetch_vectors(run, data, vectors, made["unscored"], "fused")
    return {"hits": made["fused"], "passage_embeddings": union("vectors", labelled, further)}


def encode(run: Runner, data: Ingested, engine: BaseModel, label: str = "") -> Vectors:
    """Encode the passages and the queries, each text once, or find their vectors in files."""
    config = EncodeConfig(found=isinstance(engine, VectorsSpec))
    passages = run(st.ENCODE_PASSAGES, config, label=label, engine=engine, passages=data.passages)["embeddings"]
    queries = run(st.ENCODE_QUERIES, config, label=label, engine=engine, queries=data.queries)["embeddings"]
    return Vectors(queries=queries, passages=passages)


def _search_one(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, name: str) -> Table:
    """Return the hits of one retriever, by query part."""
    if name == bm25.NAME:
        return _search_words(run, setup, data)
    if name == DENSE:
        return _search_vectors(run, setup, data, vectors)
    return _search_vectors(run, setup, data, encode(run, data, setup.encoders[name], name), name)


def _search_vectors(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, name: str = "") -> Table:
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
