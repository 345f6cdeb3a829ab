"""Finds the pairs that each tier would judge, from the store as far as it goes, else from the source alone."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import polars as pl

from flows import stages as st
from flows.curation.workspace import Workspace
from flows.method.setup import Setup
from infra.names import StageName
from infra.stages.runner import StageRun
from infra.storage.artifacts import Directory, Table, materialise, read_table
from tasks import schemas
from tasks.data.ingest import IngestError, ingest
from tasks.judging.cascade import AdmitConfig, EscalateConfig, admit, escalate
from tasks.mining.mine import AdoptConfig, adopt

Basis = Literal["finished", "exact", "at most", "estimated", "unknown"]

MOST_QUERIES = 2000  # rows looked at where the pairs are not known yet; the figures are scaled up
_QUERY = ["dataset", "query_id"]
_ROW = ["query_hash", "positives_hash"]
_QUESTION = [*_ROW, "text_hash"]
_EPSILON = 1e-6  # as in tasks.judging.cascade: 0.29 * 100 is below 29


class NotKnown(Exception):
    """The pairs cannot be found yet; the message says why, and when they can."""


@dataclass(frozen=True)
class Texts:
    """The tables that ingest makes of the source."""

    queries: pl.DataFrame
    positives: pl.DataFrame
    passages: pl.DataFrame
    given: pl.DataFrame


@dataclass(frozen=True)
class Asked:
    """The pairs that a tier judges, or at most would judge.

    open: those in unfinished parts. calls_done: calls of the finished parts. scale: how many pairs each one stands for.
    basis: `exact` if the tier before has judged, `at most` if only the candidates are known, `estimated` if they are
    not mined yet either.
    """

    pairs: pl.DataFrame
    open: pl.DataFrame
    basis: Basis
    scale: float = 1.0
    calls_done: int = 0


@dataclass
class Prospects:
    """Finds the pairs of each tier beyond the finished stages. It computes in memory, writes and starts nothing."""

    workspace: Workspace
    setup: Setup
    runs: Mapping[str, StageRun]
    _asked: dict[int, Asked] = field(default_factory=dict)

    @cached_property
    def texts(self) -> Texts:
        """The source as ingest reads it: from the store, else read now.

        Raises:
            NotKnown: there is no source yet, or nothing usable in it.
        """
        if self._is_finished(st.INGEST.name):
            found = {name: self._read(st.INGEST.name, name) for name in Texts.__dataclass_fields__}
            return Texts(**found)
        source = self.setup.source
        if self._is_finished(st.HARVEST.name):
            source = Directory("source", self.runs[st.HARVEST.name].manifests[0].directories["source"])
        if source is None:
            raise NotKnown("known after the first stage has run: nothing is harvested yet")
        folder = materialise(self.workspace.store, source, self.workspace.settings.scratch)
        try:
            made = ingest(self.setup.config.ingest, source=folder)
        except IngestError as error:
            raise NotKnown(str(error)) from error
        parts = {name: frames for name, frames in made.items() if isinstance(frames, list)}
        return Texts(**{name: pl.concat(parts[name]) for name in Texts.__dataclass_fields__})

    def asked(self, place: int) -> Asked:
        """Return the pairs of the tier at a place (from 0).

        Raises:
            NotKnown: there is no source yet.
        """
        if place not in self._asked:
            self._asked[place] = self._exactly(place) or self._at_most(place)
        return self._asked[place]

    def _exactly(self, place: int) -> Asked | None:
        """Return the escalated pairs of the store, or escalate in memory; None if the inputs are not finished."""
        tier = self.setup.tiers[place]
        if self._is_finished(str(StageName(st.ESCALATE.name, tier.name))):
            return self._escalated(tier.name)
        before = st.judge_stage(self.setup.tiers[place - 1].name) if place else st.JUDGE_SIMILARITY.name
        if not self._is_finished(before):
            return None
        parts = escalate(tier.escalate, candidates=self._candidates, verdicts=self._read(before, "verdicts"))
        pairs = pl.concat(parts["escalated"])
        return Asked(pairs, pairs, "exact")

    def _escalated(self, tier: str) -> Asked:
        (manifest,) = self.runs[str(StageName(st.ESCALATE.name, tier))].manifests
        pieces = manifest.tables["escalated"]
        pairs = read_table(self.workspace.store, Table("escalated", pieces), schemas.CANDIDATES)
        judged = self.runs.get(st.judge_stage(tier))
        if judged is None:
            return Asked(pairs, pairs, "exact")
        calls = sum(int(m.stats["rows"]["calls"]) for m in judged.manifests)
        if not judged.unfinished:
            return Asked(pairs, pairs.clear(), "finished", calls_done=calls)
        left = tuple(piece for piece in pieces if piece.index in judged.unfinished)
        unread = read_table(self.workspace.store, Table("escalated", left), schemas.CANDIDATES)
        return Asked(pairs, unread, "exact", calls_done=calls)

    def _at_most(self, place: int) -> Asked:
        """Return the most pairs that a tier can get, by its budget and by the pairs of the tier before."""
        before = self.asked(place - 1) if place else self._pool
        known = before.basis in ("exact", "finished")
        everything = self._candidates if known else self._pool.pairs
        pairs = bound(self.setup.tiers[place].escalate, everything, before.pairs, before.scale)
        return Asked(pairs, pairs, "at most" if known else before.basis, before.scale)

    @cached_property
    def _candidates(self) -> pl.DataFrame:
        """All candidates that are judged, from the store; they are there once similarity has judged them."""
        if self._is_finished(st.ADMIT.name):
            return self._read(st.ADMIT.name, "admitted")
        found = [self._read(name, "candidates") for name in (st.ADOPT.name, st.MINE.name) if name in self.runs]
        return self._admit(pl.concat([schemas.CANDIDATES.empty(), *found]))

    @cached_property
    def _pool(self) -> Asked:
        """All candidates before judging: given, mined, or drawn at random in the number that would be mined."""
        texts = self.texts
        train = texts.queries.filter(pl.col("split") == "train")
        queries = train.sort("text_hash", *_QUERY).head(MOST_QUERIES)
        given = texts.given.join(queries, on=_QUERY, how="semi")
        bare = queries.join(given, on=_QUERY, how="anti")
        found: list[pl.DataFrame] = []
        basis: Basis = "at most"
        if not bare.is_empty() and self._is_finished(st.MINE.name):
            found.append(self._read(st.MINE.name, "candidates").join(queries, on=_QUERY, how="semi"))
        elif not bare.is_empty():
            given, basis = pl.concat([given, self._draw(bare)]), "estimated"
        found.append(adopt(AdoptConfig(), given=given, queries=queries, positives=texts.positives)["candidates"])
        pairs = self._admit(pl.concat(found))
        return Asked(pairs, pairs, basis, train.height / max(1, queries.height))

    def _draw(self, queries: pl.DataFrame) -> pl.DataFrame:
        """Draw for each query as many passages of its dataset as mining would find, without its positives."""
        mine, texts = self.setup.config.mine, self.texts
        wanted = mine.range_max - mine.range_min
        corpus = (
            texts.passages.select("dataset", "doc_id", "text_hash").sort("dataset", "doc_id").with_row_index("place")
        )
        spans = corpus.group_by("dataset").agg(first=pl.col("place").min(), size=pl.len())
        labelled = texts.positives.group_by(_QUERY).agg(labelled=pl.len())
        rows = queries.join(labelled, on=_QUERY).join(spans, on="dataset")
        drawn = [
            (*ids, first + place)
            for *ids, seed, positives, first, size in rows.select(
                *_QUERY, "text_hash", "labelled", "first", "size"
            ).iter_rows()
            for place in random.Random(seed).sample(range(size), min(size, wanted + positives))
        ]
        places = pl.DataFrame(drawn, schema=dict.fromkeys(_QUERY, pl.String) | {"place": pl.UInt32}, orient="row")
        found = places.join(corpus.drop("dataset"), on="place", maintain_order="left")
        found = found.join(texts.positives, on=[*_QUERY, "text_hash"], how="anti", maintain_order="left")
        rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
        ranked = found.with_columns(rank=rank, score=pl.lit(None, dtype=pl.Float64)).filter(pl.col("rank") <= wanted)
        return ranked.select(*schemas.GIVEN.columns)

    def _admit(self, candidates: pl.DataFrame) -> pl.DataFrame:
        skip = tuple(sorted(name for name, policy in self.setup.config.policies.items() if policy.skip))
        return admit(AdmitConfig(skip=skip), candidates=candidates)["admitted"]

    def _is_finished(self, name: str) -> bool:
        return name in self.runs and not self.runs[name].unfinished

    def _read(self, name: str, output: str) -> pl.DataFrame:
        """Read one output of all parts of a stage."""
        run = self.runs[name]
        stage = next(stage for stage in st.STAGES if stage.name == StageName.parse(name).stage)
        pieces = tuple(piece for manifest in run.manifests for piece in manifest.tables[output])
        return read_table(self.workspace.store, Table(output, pieces), stage.outputs[output])


def bound(config: EscalateConfig, everything: pl.DataFrame, before: pl.DataFrame, scale: float) -> pl.DataFrame:
    """Return as many pairs of the tier before as the budget allows, spread over all rows.

    Spread like this they need the most calls, because a call may hold several passages of one row.
    """
    asked = everything.join(before, on=_ROW, how="semi") if config.unit == "row" else before
    questions = asked.select(_QUESTION).unique()
    budget = math.floor(config.max_share * everything.select(_QUESTION).n_unique() + _EPSILON)
    if config.max_pairs is not None:
        budget = min(budget, math.floor(config.max_pairs / scale))
    if config.unit == "row":
        rows = questions.group_by(_ROW).len().sort(_ROW).filter(pl.col("len").cum_sum() <= budget)
        return asked.join(rows, on=_ROW, how="semi")
    turn = pl.col("text_hash").rank("ordinal").over(_ROW)
    chosen = questions.with_columns(turn=turn).sort("turn", *_ROW).head(budget)
    return asked.join(chosen, on=_QUESTION, how="semi")
