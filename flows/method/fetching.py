"""Brings texts and vectors of passages to the query parts, so that no later part reads the corpus.

A query part says which passages it wants; each corpus part that is asked is read once, and sends what it has. Queries
of one generation are served together, under a label of their own. What growth brings is so fetched apart, and the older
fetches keep their keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows import stages as st
from flows.method.tables import Fetched, Ingested, Vectors, only_asked, only_parts, union
from infra.stages.runner import Runner
from infra.storage.artifacts import Table
from tasks import schemas
from tasks.fetching.fetch import FetchConfig
from tasks.fetching.want import WantConfig

_CONFIG = FetchConfig()


@dataclass(frozen=True)
class _Step:
    """One fetch. counts: by query part, how many passages it wants; empty where that is not known."""

    label: str
    parts: frozenset[int]
    wanted: Table
    texts: Table
    counts: Mapping[int, int]


def fetch_labelled(run: Runner, data: Ingested, vectors: Vectors) -> Table:
    """Return the vectors of the labelled passages of the training queries, by query part."""
    wanted: Table = run(
        st.WANT_LABELLED,
        _places(data.generations.passage_parts),
        queries=data.queries,
        positives=data.positives,
        irrelevant=data.irrelevant,
    )["wanted"]
    return _send_vectors(run, "labelled", wanted, vectors)


def fetch_vectors(run: Runner, data: Ingested, vectors: Vectors, pairs: Table, label: str) -> Table:
    """Return the vectors of the passages of some pairs, and of their queries' positives, by query part."""
    places = _places(data.generations.passage_parts)
    wanted: Table = run(st.WANT, places, label=label, candidates=pairs, positives=data.positives)["wanted"]
    return _send_vectors(run, label, wanted, vectors)


def fetch_passages(run: Runner, data: Ingested, vectors: Vectors, candidates: Table) -> Fetched:
    """Return the passages and vectors of the candidates and of the training queries' positives, by query part.

    These are all that a training set can hold, whatever the treatment.
    """
    tables = {"queries": data.queries, "candidates": candidates, "positives": data.positives}
    steps = _fetch_by_generation(run, data, "pool", tables)
    sent = [_confined(_send_vectors(run, step.label, step.wanted, vectors), step.parts) for step in steps]
    return Fetched(_texts_of(steps), union("vectors", Table("vectors", schema=schemas.EMBEDDINGS), *sent))


def fetch_texts(run: Runner, data: Ingested, candidates: Table, positives: Table, label: str) -> Table:
    """Return the passages of candidates and of their queries' positives, by query part."""
    return _texts_of(_fetch_by_generation(run, data, label, {"candidates": candidates, "positives": positives}))


def _texts_of(steps: Sequence[_Step]) -> Table:
    return union("texts", Table("texts", schema=schemas.PASSAGES), *(step.texts for step in steps))


def _fetch_by_generation(run: Runner, data: Ingested, label: str, tables: Mapping[str, Table]) -> list[_Step]:
    """Fetch texts for each generation of queries. tables: what says which texts, the candidates among them.

    First those generations of passages are asked that existed with the queries. A later one is asked only for the parts
    that still lack a passage, as of queries that are mined again. So growth leaves the older fetches as they were.
    """
    corpus, steps = data.generations.passage_parts, list[_Step]()
    for number, parts in enumerate(data.generations.query_parts):
        asking = frozenset(parts) & tables["candidates"].indexes
        if not asking:
            continue
        name = f"{label}-g{number}" if number else label
        here = [_fetch(run, data, name, tables, asking, corpus[: number + 1])]
        for generation, places in enumerate(corpus[number + 1 :], start=number + 1):
            lacking = _lacking(here)
            if not lacking:
                break
            here.append(_fetch(run, data, f"{name}-from-g{generation}", tables, lacking, (places,)))
        steps += here
    return steps


def _fetch(
    run: Runner,
    data: Ingested,
    label: str,
    tables: Mapping[str, Table],
    parts: frozenset[int],
    places: Sequence[range],
) -> _Step:
    """Fetch texts for some query parts from some generations of passages."""
    asked: dict[str, Any] = {name: only_parts(table, parts) for name, table in tables.items()}
    made = run(st.WANT_TRAINING if "queries" in asked else st.WANT, _places(places), label=label, **asked)
    wanted: Table = made["wanted"]
    indexes = sorted(frozenset[int]().union(*(table.indexes for table in asked.values())))
    finished = run.runs[-1].finished
    counts = {indexes[number]: int(m.stats["facts"]["wanted"]) for number, m in finished.items()}
    texts = run(st.FETCH_TEXTS, _CONFIG, label=label, wanted=wanted, passages=only_asked(wanted, data.passages))[
        "texts"
    ]
    return _Step(label, parts, wanted, _confined(texts, parts), counts)


def _lacking(steps: Sequence[_Step]) -> frozenset[int]:
    """Return the query parts that want more passages than came; none where that is not known yet."""
    came = union("texts", *(step.texts for step in steps))
    wanted = steps[0].counts
    return frozenset(index for index, count in wanted.items() if not came.lacks(index) and came.at(index).rows < count)


def _send_vectors(run: Runner, label: str, wanted: Table, vectors: Vectors) -> Table:
    embeddings = only_asked(wanted, vectors.passages)
    sent: Table = run(st.FETCH_VECTORS, _CONFIG, label=label, wanted=wanted, embeddings=embeddings)["vectors"]
    return sent


def _confined(table: Table, parts: frozenset[int]) -> Table:
    """Say which query parts wait for a failed corpus part: those of this fetch, and no others."""
    return replace(table, partial=False, missing=parts) if table.partial else table


def _places(generations: Sequence[range]) -> WantConfig:
    return WantConfig(generations=tuple((parts.start, len(parts)) for parts in generations if parts))
