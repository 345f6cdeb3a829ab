"""Explains the decision on one pair: what is known of it, what each judge said, P(relevant), the thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.section import ConfigError
from flows.curation.lookup import look
from flows.curation.prepare import prepare
from flows.curation.records import load_curation
from flows.curation.workspace import Workspace
from flows.method.judging import combine_label
from flows.method.setup import Setup
from flows.method.tables import Finished
from infra.names import StageName
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tasks import schemas

_FEATURES = tuple(name for name in schemas.FEATURES.columns if name not in ("dataset", "query_id", "doc_id"))


@dataclass(frozen=True)
class PairExplained:
    """One pair.

    features: by name, as `schemas.FEATURES` explains them. verdicts: of each judge that was asked, in order. p: by the
    judge after which it was computed; empty without a calibration. decision: the final verdict. thresholds: of its
    score. found_by: the retrievers that found it, with rank and score of each; empty where one alone searched.
    rescored: what the reranker of the pool scored, if there is one; it decides only what is picked.
    """

    dataset: str
    query_id: str
    doc_id: str
    features: Mapping[str, Any]
    verdicts: tuple[Mapping[str, Any], ...]
    decision: Mapping[str, Any]
    thresholds: Mapping[str, float]
    p: Mapping[str, float | None] = field(default_factory=dict)
    found_by: tuple[Mapping[str, Any], ...] = ()
    rescored: tuple[Mapping[str, Any], ...] = ()

    def lines(self) -> list[str]:
        """Say it in lines."""
        known = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in self._known
        ]
        told = [f"{self.dataset}: query {self.query_id}, passage {self.doc_id}", f"known: {', '.join(known)}"]
        told += [f"found by {one['retriever']}: rank {one['rank']}, score {one['score']:.4g}" for one in self.found_by]
        told += [f"rescored, for picking negatives: {_score(one['score'])}" for one in self.rescored]
        told += [f"{one['tier']} said {one['state']}, score {_score(one['score'])}" for one in self.verdicts]
        told += [f"P(relevant) after {tier}: {_score(value)}" for tier, value in self.p.items()]
        upper, lower = self.thresholds["relevant_from"], self.thresholds["not_relevant_below"]
        decided = (
            f"decided: {self.decision['state']}, score {_score(self.decision['score'])}, by {self.decision['judge']}"
        )
        return [*told, f"{decided} (relevant from {upper:.4g}, not relevant below {lower:.4g})"]

    @property
    def _known(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.features.items() if not name.endswith("_hash")]


def explain_pair(workspace: Workspace, curation: str, query: str, doc: str, dataset: str = "") -> PairExplained:
    """Read what a curation knows of one pair; dataset: only needed where several have the ids.

    Raises:
        ConfigError: there is no such candidate, it is in several datasets, or it is not decided yet.
    """
    setup = prepare(workspace, load_curation(workspace.store, curation))
    done = Finished({run.name: run for run in look(workspace.store, setup)[1]})
    chosen = (pl.col("query_id") == query) & (pl.col("doc_id") == doc)
    if dataset:
        chosen &= pl.col("dataset") == dataset
    store = workspace.store
    features = _find(store, done.table("features", st.JUDGE_SIMILARITY.name), chosen)
    if not features:
        raise ConfigError(f"{curation}: passage {doc!r} is no candidate of query {query!r}, so no judge was asked")
    if len(features) > 1:
        among = ", ".join(row["dataset"] for row in features)
        raise ConfigError(f"{curation}: query {query!r} and passage {doc!r} are candidates of {among}; give --dataset")
    (pair,) = features
    chosen &= pl.col("dataset") == pair["dataset"]
    answers = [row for stage in _asked(setup, done) for row in _find(store, done.table("verdicts", stage), chosen)]
    (decision,) = _find(store, done.table("decisions", st.DECIDE.name), chosen)
    return PairExplained(
        dataset=pair["dataset"],
        query_id=query,
        doc_id=doc,
        features={name: pair[name] for name in _FEATURES},
        verdicts=tuple({name: row[name] for name in ("tier", "judge", "state", "score", "grade")} for row in answers),
        decision={name: decision[name] for name in ("state", "score", "judge")},
        thresholds={name: getattr(setup.decide, name) for name in ("relevant_from", "not_relevant_below")},
        p=_p_after(store, setup, done, chosen),
        found_by=_of_stage(store, done, (st.FUSE.name, "found_by"), chosen),
        rescored=_of_stage(store, done, (st.RESCORE.name, "rescored"), chosen),
    )


def _of_stage(store: Store, done: Finished, made: tuple[str, str], chosen: pl.Expr) -> tuple[Mapping[str, Any], ...]:
    """Return retriever, rank and score of the pair in one output of a stage; nothing where the stage did not run.

    That is so where one retriever searched alone, there is no reranker, or the row brought the passage.
    """
    stage, output = made
    if stage not in done.runs:
        return ()
    rows = _find(store, done.table(output, stage), chosen)
    return tuple({name: row[name] for name in ("retriever", "rank", "score")} for row in rows)


def _asked(setup: Setup, done: Finished) -> list[str]:
    """Name the stages that gave verdicts, in order."""
    imported = [st.IMPORTED.name] if setup.imported is not None else []
    stages = [st.JUDGE_SIMILARITY.name, *imported, *(tier.stage for tier in setup.tiers)]
    return [stage for stage in stages if stage in done.runs]


def _p_after(store: Store, setup: Setup, done: Finished, chosen: pl.Expr) -> dict[str, float | None]:
    found = {}
    for number in filter(setup.is_combined, range(len(setup.tiers) + 1)):
        label = combine_label(setup, number)
        (row,) = _find(store, done.table("combined", str(StageName(st.COMBINE.name, label))), chosen)
        found[label] = row["score"]
    return found


def _find(store: Store, table: Table, chosen: pl.Expr) -> list[dict[str, Any]]:
    """Return the chosen rows of a table, read piece by piece."""
    rows: list[dict[str, Any]] = []
    for piece in table.pieces:
        rows += read_table(store, Table(table.name, (piece,))).filter(chosen).to_dicts()
    return rows


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.4g}"
