"""Finds the pairs that each tier would judge, from the store as far as it goes, else from the source alone."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, cast

import polars as pl

from flows import stages as st
from flows.curation.workspace import Workspace
from flows.method.judging import combine_label
from flows.method.setup import Setup
from flows.method.tables import Generations, only_parts
from flows.planning.passage_texts import PassageTexts
from infra.names import StageName
from infra.stages.runner import StageRun
from infra.storage.artifacts import Directory, Manifest, Table, materialise, read_table
from tasks import schemas
from tasks.data.ingest import IngestError, ingest
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.rescored import put_pairs
from tasks.verdicts.escalate import AdmitConfig, EscalateConfig, admit, escalate, fitting, leave_out_known

_Frames = Callable[[], Iterator[pl.DataFrame]]
Basis = Literal["finished", "exact", "at most", "estimated", "unknown"]

MOST_QUERIES = 2000  # rows looked at where the pairs are not known yet; the figures are scaled up
_TEXTS = ("queries", "passages")
_QUERY = ["dataset", "query_id"]
_ROW = ["query_hash", "positives_hash"]
_QUESTION = [*_ROW, "text_hash"]
_EPSILON = 1e-6  # as in tasks.verdicts.escalate: 0.29 * 100 is below 29


class NotKnown(Exception):
    """The pairs cannot be found yet; the message says why, and when they can."""


@dataclass(frozen=True)
class Texts:
    """What ingest makes of the source. `given`: only of the queries that are looked at."""

    queries: pl.DataFrame
    positives: pl.DataFrame
    given: pl.DataFrame
    passages: PassageTexts


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
            names = ("queries", "positives", "given", "passages")
            return _texts(**{name: partial(self._pieces, st.INGEST.name, name) for name in names})
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
        queries, positives, given = (partial(iter, made[name]) for name in ("queries", "positives", "given"))
        return _texts(queries, positives, given, PassageTexts.keep(made["passages"]).frames)

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
        if tier.escalate.target is not None:
            return self._guaranteed(place)
        escalated = str(StageName(st.ESCALATE.name, tier.name))
        if self._is_finished(escalated):
            return self._put(escalated, tier.stage)
        before, output = self._read_before(place)
        if not self._is_finished(before):
            return None
        how, scored = self.setup.escalate(place), self._read(before, output)
        found = (escalate(how, candidates=some, verdicts=scored) for some in self._by_generation(self._candidates))
        pairs = pl.concat(each["escalated"] for each in found)
        return Asked(pairs, pairs, "exact")

    def _by_generation(self, candidates: pl.DataFrame) -> list[pl.DataFrame]:
        """Return the candidates of each generation of queries: a tier's budgets hold for each."""
        (made,) = self.runs[st.INGEST.name].manifests
        generations = Generations.of(made.stats.get("facts", {}), *(_table(made, name) for name in _TEXTS))
        if len(generations.queries) == 1:
            return [candidates]
        queries = _table(made, "queries")
        return [
            candidates.join(self._hashes(only_parts(queries, frozenset(parts))), on="query_hash", how="semi")
            for parts in generations.query_parts
        ]

    def _hashes(self, queries: Table) -> pl.DataFrame:
        return read_table(self.workspace.store, queries, schemas.QUERIES).select(query_hash="text_hash")

    def _read_before(self, place: int) -> tuple[str, str]:
        """Name the stage and its output that say what is open for the tier at a place."""
        if self.setup.is_combined(place):
            return str(StageName(st.COMBINE.name, combine_label(self.setup, place))), "combined"
        return self.setup.tiers[place - 1].stage if place else st.JUDGE_SIMILARITY.name, "verdicts"

    def _guaranteed(self, place: int) -> Asked | None:
        """Return the audit sample and what is passed on; before the thresholds are known, all that the audit leaves."""
        tier = self.setup.tiers[place]
        parts: list[Asked] = []
        audit, settled = (str(StageName(stage.name, tier.name)) for stage in (st.AUDIT, st.SETTLE))
        if self._is_finished(audit):
            parts.append(self._put(audit, tier.stages[0]))
        if self._is_finished(settled):
            parts.append(self._put(settled, tier.stage))
        else:
            before, output = self._read_before(place)
            if not self._is_finished(before):
                return None
            judged = self._candidates.join(self._read(before, output), on=[*_QUERY, "doc_id"], how="semi")
            drawn = pl.concat([schemas.CANDIDATES.empty(), *(part.pairs for part in parts)])
            rest = judged.join(drawn, on=_QUESTION, how="anti")
            parts.append(Asked(rest, rest, "at most"))
        bases: set[Basis] = {part.basis for part in parts}
        return Asked(
            pairs=pl.concat(part.pairs for part in parts),
            open=pl.concat(part.open for part in parts),
            basis=next(basis for basis in ("at most", "exact", "finished") if basis in bases),
            calls_done=sum(part.calls_done for part in parts),
        )

    def _put(self, maker: str, judge: str, output: str = "escalated") -> Asked:
        """Return the pairs that one stage picked. judge: the stage that asks about them; both with their labels."""
        made = self.runs[maker].finished
        pairs = self._read_parts(made, output)
        judged = self.runs.get(judge)
        if judged is None:
            return Asked(pairs, pairs, "exact")
        calls = sum(int(m.stats["rows"].get("calls", 0)) for m in judged.manifests)
        if not judged.unfinished:
            return Asked(pairs, pairs.clear(), "finished", calls_done=calls)
        # The parts of both stages are those of the queries.
        left = {number: manifest for number, manifest in made.items() if number in judged.unfinished}
        return Asked(pairs, self._read_parts(left, output), "exact", calls_done=calls)

    def _read_parts(self, made: Mapping[int, Manifest], output: str) -> pl.DataFrame:
        """Read what some parts of a stage picked to be asked about."""
        pieces = tuple(piece for manifest in made.values() for piece in manifest.tables[output])
        return read_table(self.workspace.store, Table(output, pieces), schemas.CANDIDATES)

    @cached_property
    def rescored(self) -> Asked:
        """The pairs that the reranker scores: the pool of each query that is mined, and its positives.

        Raises:
            NotKnown: there is no source yet.
        """
        if self._is_finished(st.CHOOSE_POOL.name):
            return self._put(st.CHOOSE_POOL.name, st.RESCORE.name, "asked")
        texts, queries = self.texts, _looked_at(self.texts.queries)
        bare = queries.join(texts.given, on=_QUERY, how="anti")
        if bare.is_empty():
            return Asked(schemas.CANDIDATES.empty(), schemas.CANDIDATES.empty(), "exact")
        drawn, said = self._draw(bare, self.setup.rescored_depth), schemas.IRRELEVANT.empty()
        made = adopt(AdoptConfig(), given=drawn, queries=bare, positives=texts.positives, irrelevant=said)
        hashes = made["candidates"].select(*_QUERY, *_ROW).unique()
        positives = texts.positives.join(hashes, on=_QUERY).with_columns(score=pl.lit(None, pl.Float64))
        pairs = put_pairs(made["candidates"], positives)
        train = texts.queries.filter(pl.col("split") == "train")
        return Asked(pairs, pairs, "estimated", train.height / queries.height)

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
        if self._is_finished(st.IMPORTED.name):
            return self._read(st.IMPORTED.name, "left")
        if self._is_finished(st.ADMIT.name):
            return leave_out_known(self._read(st.ADMIT.name, "admitted"))
        found = [self._read(name, "candidates") for name in (st.ADOPT.name, st.MINE.name) if name in self.runs]
        return self._admit(pl.concat([schemas.CANDIDATES.empty(), *found]))

    @cached_property
    def _pool(self) -> Asked:
        """All candidates before judging: given, mined, or drawn at random in the number that would be mined."""
        texts, queries = self.texts, _looked_at(self.texts.queries)
        given = texts.given
        bare = queries.join(given, on=_QUERY, how="anti")
        found: list[pl.DataFrame] = []
        basis: Basis = "at most"
        if not bare.is_empty() and self._is_finished(st.MINE.name):
            found.append(self._read(st.MINE.name, "candidates").join(queries, on=_QUERY, how="semi"))
        elif not bare.is_empty():
            mine = self.setup.config.mine
            given = pl.concat([given, self._draw(bare, mine.range_max - mine.range_min)])
            basis = "estimated"
        said = schemas.IRRELEVANT.empty()
        made = adopt(AdoptConfig(), given=given, queries=queries, positives=texts.positives, irrelevant=said)
        found.append(made["candidates"])
        pairs = self._admit(pl.concat(found))
        train = texts.queries.filter(pl.col("split") == "train")
        return Asked(pairs, pairs, basis, train.height / max(1, queries.height))

    def _draw(self, queries: pl.DataFrame, wanted: int) -> pl.DataFrame:
        """Draw for each query so many passages of its dataset, as mining would find, without its positives."""
        texts = self.texts
        corpus = texts.passages.ids.sort("dataset", "doc_id").with_row_index("place")
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
        copies = {
            "shown_hash": pl.col("text_hash"),
            "guard_hash": pl.col("text_hash"),
        }  # not looked for among drawn ones
        score = pl.lit(None, dtype=pl.Float64)
        ranked = found.with_columns(rank=rank, score=score, **copies).filter(pl.col("rank") <= wanted)
        return ranked.select(*schemas.GIVEN.columns)

    def _admit(self, candidates: pl.DataFrame) -> pl.DataFrame:
        skip = tuple(sorted(name for name, policy in self.setup.config.policies.items() if policy.skip))
        return leave_out_known(admit(AdmitConfig(skip=skip), candidates=candidates)["admitted"])

    def _is_finished(self, name: str) -> bool:
        return name in self.runs and not self.runs[name].unfinished

    def _read(self, name: str, output: str) -> pl.DataFrame:
        """Read one output of all parts of a stage."""
        return pl.concat([_outputs_of(name)[output].empty(), *self._pieces(name, output)])

    def _pieces(self, name: str, output: str) -> Iterator[pl.DataFrame]:
        """Read the pieces of one output of all parts of a stage, one by one."""
        pieces = (piece for manifest in self.runs[name].manifests for piece in manifest.tables[output])
        return (read_table(self.workspace.store, Table(output, (piece,))) for piece in pieces)


def _table(manifest: Manifest, name: str) -> Table:
    return Table(name, manifest.tables[name])


def _outputs_of(name: str) -> Mapping[str, schemas.Schema]:
    outputs = next(stage for stage in st.STAGES if stage.name == StageName.parse(name).stage).outputs
    return cast(Mapping[str, schemas.Schema], outputs)


def _texts(queries: _Frames, positives: _Frames, given: _Frames, passages: _Frames) -> Texts:
    """Read what a plan needs of the outputs of ingest, in their order."""
    asked = pl.concat(queries())
    labelled, looked_at = pl.concat(positives()), _looked_at(asked)
    found = pl.concat(frame.join(looked_at, on=_QUERY, how="semi") for frame in given())
    return Texts(asked, labelled, found, PassageTexts(passages))


def _looked_at(queries: pl.DataFrame) -> pl.DataFrame:
    """Return the training queries that stand for all."""
    return queries.filter(pl.col("split") == "train").sort("text_hash", *_QUERY).head(MOST_QUERIES)


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
        rows = questions.group_by(_ROW).len().sort(_ROW)
        return asked.join(rows.filter(fitting(rows["len"], budget)), on=_ROW, how="semi")
    turn = pl.col("text_hash").rank("ordinal").over(_ROW)
    most = math.inf if config.per_query is None else config.per_query.most
    chosen = questions.with_columns(turn=turn).filter(turn <= most).sort("turn", *_ROW).head(budget)
    return asked.join(chosen, on=_QUESTION, how="semi")
