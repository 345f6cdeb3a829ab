"""Finding passages with several retrievers: by words, with further encoders, and all of them in one order."""

from dataclasses import replace

from flows import stages as st
from flows.method.setup import Setup
from flows.method.tables import Ingested, Vectors, union
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Table
from tasks.mining.bm25 import search as bm25
from tasks.mining.further import SearchWithConfig
from tasks.mining.fuse import FuseConfig
from tasks.schemas import DENSE


def search(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> dict[str, Table]:
    """Search with every retriever of `mine.retrievers`; returns `hits`, and `scores` where their order is a fused one.

    The dense score of a hit that the dense search did not find is computed afterwards, for the filters.
    """
    config = setup.config.mine
    hits = [_search_one(run, setup, data, vectors, name) for name in config.retrievers]
    if not config.fuses:
        return {"hits": hits[0]}
    how = FuseConfig(
        retrievers=config.retrievers,
        fusion=config.fusion,
        rrf_k=config.rrf_k,
        depth=config.depth,
        pool=config.range_max,
    )
    fused = run(
        st.FUSE, how, hits=union("hits", *hits), queries=data.queries, positives=data.positives, given=data.given
    )["fused"]
    scores = run(
        st.SCORE_HITS,
        how,
        fused=fused,
        queries=data.queries,
        query_embeddings=vectors.queries,
        passage_embeddings=vectors.passages,
    )["scores"]
    return {"hits": fused, "scores": scores}


def _search_one(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, name: str) -> Table:
    """Return the hits of one retriever."""
    if name == bm25.NAME:
        return _search_words(run, setup, data)
    c, tables = setup.config, {"queries": data.queries, "positives": data.positives, "passages": data.passages}
    software = setup.software(st.SEARCH)
    if name == DENSE:
        found = {"query_embeddings": vectors.queries, "passage_embeddings": vectors.passages}
        dense: Table = run(st.SEARCH, c.search, key=software, **tables, **found)["hits"]
        return dense
    engine, how = setup.encoders[name], SearchWithConfig(**c.search.model_dump(), retriever=name)
    passages = run(st.ENCODE_PASSAGES, c.encode, label=name, engine=engine, passages=data.passages)["embeddings"]
    queries = run(st.ENCODE_QUERIES, c.encode, label=name, engine=engine, queries=data.queries)["embeddings"]
    found = {"query_embeddings": queries, "passage_embeddings": passages}
    hits: Table = run(st.SEARCH_WITH, how, label=name, key=software, **tables, **found)["hits"]
    return hits


def _search_words(run: Runner, setup: Setup, data: Ingested) -> Table:
    """Index the passages part by part, add up the frequencies of the queries' words, and search part by part."""
    c, software = setup.config, setup.software(st.SEARCH_BM25)
    index = run(st.INDEX_TERMS, c.bm25.as_words, key=software, passages=data.passages)
    known = {name: of_first_generation(run, index[name]) for name in ("terms", "totals")}
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


def of_first_generation(run: Runner, table: Table) -> Table:
    """Return the parts of the corpus that were there at the first ingest: the frequencies of words are taken from them.

    So passages that come later change no score of the passages that were there before. Without generations it is the
    whole corpus.
    """
    ingested = next((done for done in run.runs if done.name == st.INGEST.name), None)
    facts = ingested.manifests[0].stats.get("facts", {}) if ingested is not None and ingested.manifests else {}
    first = next(iter(facts.get("passage_generations", ())), None)
    if first is None:
        return table
    pieces = tuple(piece for piece in table.pieces if piece.index < first)
    return replace(table, pieces=pieces, missing=frozenset(index for index in table.missing if index < first))
