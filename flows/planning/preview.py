"""A preview: the whole method on a few queries, and what the rest would cost and find.

A preview is a curation of its own. Its name ends in `-preview`, which no other name does, so it has a history of its
own, is never promoted, and no night is compared with it. Its judges are those of the real curation, so the real one
recalls their answers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from flows.config.curation import PREVIEW, CurationConfig
from flows.config.engines import EngineConfig
from flows.config.prices import Prices, load_prices
from flows.config.schedule import RetentionConfig
from flows.curation.workspace import Workspace
from flows.method.setup import Setup, Tier
from flows.method.tables import Finished
from flows.planning.encoding import scale_up
from flows.planning.plan import Plan, TierPlan, compare_with_budget, earlier_parts, learn, money_of
from flows.stages import DECIDE, ENCODE_PASSAGES, INGEST, MINE, RESCORE
from infra.execution.usage_meter import Usage
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest, read_table
from tasks import schemas
from tasks.clustered import share_of_groups
from tasks.data.subset import SubsetConfig, kept_of
from tasks.statistics import Interval, wilson

_LONGEST = 41  # characters of a curation's name
_DIGEST = 8
_HELD_OUT = 5  # one held-out query for so many training queries
_HOUR = 3600.0
_MANY = 0.5  # share of false pairs from which the thresholds are to be doubted
_ON_AUDIT = "pairs: with escalate.target; the audit of the whole is a smaller share of it, so expect fewer"
_KEPT = RetentionConfig(curations=3, days=7, unfinished_days=7, releases=1)


@dataclass(frozen=True)
class Wanted:
    """What a preview draws.

    queries: training queries; a fifth as many held-out ones are added. passages: of the corpus, beside those that the
    queries name. train: whether models are trained and evaluated too.
    """

    queries: int = 50
    passages: int = 5000
    train: bool = False


@dataclass(frozen=True)
class Preview:
    """What a preview shows of the whole.

    drawn, whole: training queries. passages, corpus: passages read, and those of the source. pairs: candidates that
    were judged. false: share of them that the judges call relevant. queries_with: share of the queries that have one.
    plan: what judging the whole would cost. encode_hours: what encoding it would take; None if it is not known.
    """

    drawn: int
    whole: int
    passages: int
    corpus: int
    pairs: int
    false: Interval
    queries_with: Interval
    plan: Plan
    encode_hours: float | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads."""
        shares = {"false": self.false.rounded(), "queries_with": self.queries_with.rounded()}
        return {**asdict(self), **shares, "plan": self.plan.as_json(), "notes": list(self.notes)}


def preview_name(name: str) -> str:
    """Name the preview of a curation; a long name is cut, and a digest keeps it apart from others.

    >>> preview_name("my-data"), len(preview_name("a" * 41))
    ('my-data-preview', 41)
    """
    if len(name) + len(PREVIEW) <= _LONGEST:
        return name + PREVIEW
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: _LONGEST - len(PREVIEW) - _DIGEST - 1]}-{digest}{PREVIEW}"


def preview_config(config: CurationConfig, wanted: Wanted) -> CurationConfig:
    """Return the settings of a preview: those of the curation, on a few of its queries, and without what comes after.

    Nobody is waited for, nothing is scheduled, promoted or notified.
    """
    real = config.ingest.subset
    named = {} if real is None or real.rows is None else real.by_dataset
    share = 1.0 if real is None or real.rows is None else min(1.0, wanted.queries / real.rows)
    subset = SubsetConfig(
        rows=wanted.queries,
        by_dataset={name: part for name, size in named.items() if (part := int(size * share))},
        seed=SubsetConfig().seed if real is None else real.seed,
        held_out=-(-wanted.queries // _HELD_OUT),
        passages=wanted.passages,
    )
    changes: dict[str, Any] = {
        "name": preview_name(config.name),
        "ingest": config.ingest.model_copy(update={"subset": subset, "query_parts": None, "passage_parts": None}),
        "sample": config.sample.model_copy(update={"wait_for": 0.0}),
        "nightly": None,
        "promote": None,
        "notify": None,
        "retention": _KEPT,
    }
    return config.model_copy(update=changes if wanted.train else {**changes, "train": None, "train_reranker": None})


def look_ahead(workspace: Workspace, config: CurationConfig, setup: Setup, runs: Sequence[StageRun]) -> Preview:
    """Scale the figures of a finished preview up to the whole.

    Args:
        workspace: where the preview was made.
        config: the settings of the whole.
        setup: the preview's setup.
        runs: the preview's stages.
    """
    stages = {run.name: run for run in runs}
    (read,) = stages[INGEST.name].manifests
    facts = read.stats["facts"]
    drawn = kept_of(setup.config.ingest.subset, facts["train"])
    whole = kept_of(config.ingest.subset, facts["train"])
    decisions = read_table(
        workspace.store, Finished(stages).table("decisions", DECIDE.name), schemas.VERDICTS
    ).with_columns(found=pl.col("state") == "relevant")
    queries = decisions.group_by("dataset", "query_id").agg(pl.len(), pl.col("found").sum()).sort("dataset", "query_id")
    some = queries.filter(pl.col("found") > 0).height
    share = Interval(some / queries.height, *wilson(some, queries.height)) if queries.height else Interval(*[None] * 3)
    passages, corpus = int(read.stats["rows"]["passages"]), int(facts["passages"])
    mined = MINE.name in stages
    scale, same_pairs = whole / max(1, drawn), not mined or passages == corpus
    prices, encoded = load_prices(config), corpus if mined or whole > drawn else passages
    tiers = _Scaled(workspace, config, prices, stages, scale, same_pairs).tiers(setup)
    encoders = scale_up(setup, prices, stages, {"passage": encoded, "query": whole})
    size = f"scaled up from {drawn:,} queries" if drawn < whole else "those of all training queries"
    recalled = ["the whole recalls the answers of the preview"] if same_pairs and tiers else []
    return Preview(
        drawn=drawn,
        whole=whole,
        passages=passages,
        corpus=corpus,
        pairs=decisions.height,
        false=share_of_groups(queries["found"].to_list(), queries["len"].to_list()),
        queries_with=share,
        plan=Plan(tiers, prices.currency, tuple(compare_with_budget(config.budget, [*encoders, *tiers])), encoders),
        encode_hours=_encoding(stages, encoded),
        notes=(f"all figures: {size}", *_on_corpus(passages, corpus, mined=mined), *recalled, *_doubt(queries)),
    )


def _encoding(stages: Mapping[str, StageRun], passages: int) -> float | None:
    done = stages[ENCODE_PASSAGES.name]
    return done.seconds / done.rows * passages / _HOUR if done.rows else None


def _on_corpus(passages: int, corpus: int, *, mined: bool) -> Iterator[str]:
    if not mined:
        yield "the candidates are the rows' own negatives"
    elif passages < corpus:
        yield (
            f"mined in {passages:,} of {corpus:,} passages: negatives from a cut corpus are easier than those of the "
            "whole, so expect other negatives there, and more false ones; `--passages` takes more"
        )


def _doubt(queries: pl.DataFrame) -> list[str]:
    """Warn where most pairs are judged false: thresholds that do not fit the data do that."""
    if not queries.height or int(queries["found"].sum()) <= _MANY * int(queries["len"].sum()):
        return []
    return [
        "more than half of the pairs are judged false: read some in the report, and fit the thresholds of the judges "
        "on labelled pairs of your own before the whole is paid for (docs/judging.md)"
    ]


@dataclass(frozen=True)
class _Scaled:
    """Scales what each tier was asked in the preview.

    same_pairs: whether the pairs of the preview are pairs of the whole.
    """

    workspace: Workspace
    config: CurationConfig
    prices: Prices
    stages: Mapping[str, StageRun]
    scale: float
    same_pairs: bool

    def tiers(self, setup: Setup) -> tuple[TierPlan, ...]:
        earlier = earlier_parts(self.workspace.store) if setup.asked else []
        tiers = tuple(self._tier(place, tier, earlier) for place, tier in enumerate(setup.tiers))
        wanted = self.config.rescore
        if setup.rescorer is None or wanted is None or RESCORE.name not in self.stages:
            return tiers
        return (self._reranker(setup.rescorer, wanted.engine, earlier), *tiers)

    def _reranker(self, reranker: Tier, engine: EngineConfig, earlier: Sequence[Manifest]) -> TierPlan:
        """Scale what the reranker of the pool was asked; it counts no tokens."""
        rows = [manifest.stats["rows"] for manifest in self.stages[RESCORE.name].manifests]
        asked, calls = (sum(int(row[name]) for row in rows) for name in ("rescored", "calls"))
        count, known = round(calls * self.scale), calls if self.same_pairs else 0
        hours = learn(reranker, earlier).hours(count - known, 0) if count > known else 0.0
        money, unpriced = money_of(self.config, self.prices, engine, Usage(max(0, count - known)), hours)
        notes = (unpriced,) if unpriced else ()
        pairs = round(asked * self.scale)
        return TierPlan(reranker.name, "estimated", pairs, count, known, 0, 0, hours, money, notes)

    def _tier(self, place: int, tier: Tier, earlier: Sequence[Manifest]) -> TierPlan:
        """Scale one tier. Answers that the whole will recall are not paid again."""
        judged, engine = [self.stages[name] for name in tier.stages], self.config.tiers[place].engine
        asked = sum(int(m.stats["rows"]["verdicts"]) for run in judged for m in run.manifests)
        if tier.scores is not None:
            said = (f"verdicts from a file ({tier.judge.judge})",)
            return TierPlan(tier.name, "estimated", round(asked * self.scale), 0, 0, 0, 0, 0.0, 0.0, said)
        calls = read_table(self.workspace.store, Finished(self.stages).table("calls", *tier.stages), schemas.CALLS)
        most = self.config.tiers[place].escalate.max_pairs
        open_pairs = round(asked * self.scale)
        pairs = open_pairs if most is None else min(most, open_pairs)
        scale = pairs / asked if asked else 0.0
        count = round(calls.height * scale)
        known = round(calls.height * pairs / open_pairs) if self.same_pairs and open_pairs else 0
        asked_anew = (count - known) / max(1, calls.height)
        sums = (int(calls[column].sum()) for column in ("prompt_tokens", "output_tokens"))
        prompt, output = (round(total * asked_anew) for total in sums)
        hours = learn(tier, earlier).hours(count - known, prompt + output) if count > known else 0.0
        money, unpriced = money_of(self.config, self.prices, engine, Usage(count - known, prompt, 0, output), hours)
        limited = f"pairs: at most escalate.max_pairs={most:,}" if most is not None and pairs == most else ""
        audit = "" if tier.escalate.target is None else _ON_AUDIT
        notes = tuple(filter(None, (limited, audit, unpriced)))
        return TierPlan(tier.name, "estimated", pairs, count, known, prompt, output, hours, money, notes)
