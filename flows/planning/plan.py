"""Estimates what judging tiers, a reranker of the pool, and endpoints that encode would cost: calls, hours, money.

`flows.planning.expected_pairs` finds the pairs, `flows.planning.expected_calls` the calls that would be sent. The
model's own tokenizer counts their tokens. Speed and length of answers come from parts that the engine has judged.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from flows.config.curation import BudgetConfig, CurationConfig
from flows.config.engines import EngineConfig
from flows.config.prices import Prices, load_prices
from flows.curation.prepare import check_gold
from flows.curation.workspace import Workspace
from flows.method.judging import check_of, checking_tier
from flows.method.setup import Setup, Tier
from flows.planning.encoding import EncoderPlan, plan_encoders
from flows.planning.expected_calls import Census, take_census
from flows.planning.expected_pairs import MOST_QUERIES, Asked, Basis, NotKnown, Prospects
from flows.planning.token_counts import TokenCounter, counter_of
from flows.stages import CHECKING, JUDGE, RESCORE
from infra.execution.usage_meter import Usage
from infra.ledger.ledger import Ledger
from infra.stages import part_keys
from infra.stages.found_parts import read_manifests
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest, newest_attempts
from infra.storage.store import Store
from tasks.judging.calls import Call
from tasks.judging.config import JudgeConfig
from tasks.verdicts.checks import ask_about

_MOST_READ = 500  # earlier parts whose speed is read
_HOUR = 3600.0
_WHOLE = 100  # amounts from here on are shown without decimals
# Settings that decide how long a judge's answers are.
_DECIDES_LENGTH = ("judge", "protocol", "per_call", "reasoning", "max_output_tokens")


@dataclass(frozen=True)
class TierPlan:
    """What one tier would be asked, and its cost; None where it is not known.

    basis: `exact`: the pairs are known; `at most`: the tier before has not judged yet; `estimated`: there are no
    candidates yet either. known: calls whose answers the ledger or finished parts hold. Tokens, hours and money are
    those of the other calls. hours: working time of all engines together.
    """

    tier: str
    basis: Basis
    pairs: int | None = None
    calls: int | None = None
    known: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    hours: float | None = None
    money: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The plans of all tiers in their order, how far the budget reaches, and the plans of encoders that are paid."""

    tiers: tuple[TierPlan, ...]
    currency: str
    budget: tuple[str, ...]
    encoders: tuple[EncoderPlan, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads."""
        return asdict(self)


@dataclass(frozen=True)
class Experience:
    """What earlier parts with the same engine show: its speed, and how many tokens such a judge writes per call."""

    parts: int = 0
    tokens_per_second: float | None = None
    calls_per_second: float | None = None
    written: float | None = None

    def hours(self, calls: int, tokens: int) -> float | None:
        """Return how many hours the engine would work; None if its speed is unknown. A cross-encoder has no tokens."""
        amount, speed = (tokens, self.tokens_per_second) if tokens else (calls, self.calls_per_second)
        return amount / speed / _HOUR if speed else None


def plan_tiers(workspace: Workspace, setup: Setup, runs: Sequence[StageRun]) -> Plan:
    """Plan every tier, and every encoder that is an endpoint.

    runs: the stages as a look at the manifests found them, up to the first unfinished one.
    """
    config, prices = setup.config, load_prices(setup.config)
    prospects = Prospects(workspace, setup, {run.name: run for run in runs})
    planner = _Planner(config, prices, prospects)
    tiers = tuple(planner.plan(place) for place in range(len(setup.tiers)))
    if setup.rescorer is not None and config.rescore is not None:
        tiers = (planner.plan_rescoring(setup.rescorer, config.rescore.engine), *tiers)
    if config.check.positives:
        tiers = (*tiers, planner.plan_check())
    encoders = plan_encoders(prospects, prices)
    return Plan(tiers, prices.currency, tuple(compare_with_budget(config.budget, [*encoders, *tiers])), encoders)


def compare_with_budget(budget: BudgetConfig, tiers: Sequence[TierPlan | EncoderPlan]) -> Iterator[str]:
    """Yield a line per limit: whether a run reaches it, and after which share of the work; none if nothing is spent.

    >>> tier = TierPlan("llm", "exact", prompt_tokens=900, output_tokens=100)
    >>> list(compare_with_budget(BudgetConfig(tokens=400), [tier]))
    ['budget.tokens: 400 are used up after about 40% of 1,000; the run would stop there and can be continued']
    """
    bound = "at most " if any(tier.basis in ("at most", "estimated") for tier in tiers) else ""
    for name, limit in budget.model_dump(exclude_none=True).items():
        spent = [_spent(tier, name) for tier in tiers]
        total = math.fsum(amount for amount in spent if amount is not None)
        if total > limit:
            share = f"about {limit / total:.0%} of {bound}{show_amount(total)}"
            used = f"{show_amount(limit)} are used up after {share}"
            yield f"budget.{name}: {used}; the run would stop there and can be continued"
        elif None in spent:
            unknown = next(tier for tier, amount in zip(tiers, spent, strict=True) if amount is None)
            whose = "a tier's" if isinstance(unknown, TierPlan) else "an encoder's"
            yield f"budget.{name}: {show_amount(limit)} cannot be compared while {whose} {name} are unknown"
        elif total:
            yield f"budget.{name}: {show_amount(limit)} are enough for {bound}{show_amount(total)}"


def _spent(tier: TierPlan | EncoderPlan, name: str) -> float | None:
    if name != "tokens":
        return tier.hours if name == "hours" else tier.money
    return None if tier.prompt_tokens is None else float(tier.prompt_tokens + (tier.output_tokens or 0))


def show_amount(amount: float) -> str:
    """Format an amount with a sensible number of digits.

    >>> show_amount(12345.6), show_amount(0.01234)
    ('12,346', '0.0123')
    """
    return f"{amount:,.0f}" if amount >= _WHOLE else f"{amount:.3g}"


@dataclass
class _Planner:
    config: CurationConfig
    prices: Prices
    prospects: Prospects

    def plan(self, place: int) -> TierPlan:
        """Plan the tier at a place."""
        tier = self.prospects.setup.tiers[place]
        try:
            asked = self.prospects.asked(place)
            if tier.scores is not None:
                return _of_file(tier, asked, tuple(self._on_pairs(tier, asked)))
            notes = (*self._on_pairs(tier, asked), *self._on_gold(tier), *self._on_held_out(place))
            return self._plan_asked(tier, self.config.tiers[place].engine, asked, notes)
        except NotKnown as reason:
            return TierPlan(tier.name, "unknown", notes=(str(reason),))

    def plan_rescoring(self, reranker: Tier, engine: EngineConfig) -> TierPlan:
        """Plan the reranker that scores the pool, and the positives, before negatives are picked."""
        try:
            asked = self.prospects.rescored
            depth = self.prospects.setup.rescored_depth
            assumed = f"pairs: assumed: {depth} for each query to be mined, drawn at random, and its positives"
            notes = (assumed, *_on_scale(asked)) if asked.basis == "estimated" else ()
            return self._plan_asked(reranker, engine, asked, notes)
        except NotKnown as reason:
            return TierPlan(reranker.name, "unknown", notes=(str(reason),))

    def _plan_asked(self, tier: Tier, engine: EngineConfig, asked: Asked, notes: tuple[str, ...]) -> TierPlan:
        """Count the calls about some pairs, and weigh those that are not known."""
        ledger = Ledger(self.prospects.workspace.store)
        census = Census() if asked.open.is_empty() else take_census(tier.judge, asked, self.prospects.texts, ledger)
        plan = TierPlan(
            tier=tier.name,
            basis=asked.basis,
            pairs=round(asked.pairs.height * asked.scale),
            calls=asked.calls_done + round((census.calls + census.known) * asked.scale),
            known=asked.calls_done + round(census.known * asked.scale),
            notes=notes,
        )
        if not census.calls:
            return replace(plan, prompt_tokens=0, output_tokens=0, hours=0.0, money=0.0)
        return self._weigh(plan, (tier, engine), census, asked.scale)

    def plan_check(self) -> TierPlan:
        """Plan the check of the positives (`check.positives`), which a tier is asked about besides its pairs."""
        setup, prospects = self.prospects.setup, self.prospects
        tier = checking_tier(setup)
        place, name = setup.tiers.index(tier), f"{CHECKING}-{tier.name}"
        try:
            texts = prospects.texts
            put = ask_about(check_of(setup), queries=texts.queries, positives=texts.positives)
            asked = put.asked
            shown = replace(texts, queries=put.queries, positives=put.positives)
            ledger = Ledger(prospects.workspace.store)
            census = take_census(tier.judge, Asked(asked, asked, "exact"), shown, ledger)
        except NotKnown as reason:
            return TierPlan(name, "unknown", notes=(str(reason),))
        plan = TierPlan(name, "exact", asked.height, census.calls + census.known, census.known)
        if not census.calls:
            return replace(plan, prompt_tokens=0, output_tokens=0, hours=0.0, money=0.0)
        return self._weigh(plan, (tier, self.config.tiers[place].engine), census, 1.0)

    def _weigh(self, plan: TierPlan, asked: tuple[Tier, EngineConfig], census: Census, scale: float) -> TierPlan:
        """Add tokens, hours and money, with notes on how each was found. asked: a tier, and its engine's settings."""
        tier, engine = asked
        experience = learn(tier, self._earlier)
        counter = counter_of(engine, self.prospects.workspace.settings.cache)
        counts = [counter.count(call.chat) for call in census.sample]
        written, how = _written(tier.judge, census, counter, experience)
        calls = round(census.calls * scale)
        prompt, output = round(census.scale_up(counts) * scale), round(written * calls)
        hours = experience.hours(calls, prompt + output)
        money, unpriced = money_of(self.config, self.prices, engine, Usage(calls, prompt, 0, output), hours)
        speed = f"hours: as measured over {experience.parts} earlier part(s) with this engine"
        notes = (
            *_on_asking(tier.judge),
            counter.guess,
            "" if counter.guess else _on_length(engine, counts, census.sample),
            how,
            "hours: unknown until a first part has run" if hours is None else speed,
            unpriced,
        )
        return replace(
            plan,
            prompt_tokens=prompt,
            output_tokens=output,
            hours=hours,
            money=money,
            notes=(*plan.notes, *filter(None, notes)),
        )

    def _on_gold(self, tier: Tier) -> Iterator[str]:
        gold = self.prospects.setup.gold
        if gold is None:
            return
        store = self.prospects.workspace.store
        pairs = sum(check_gold(store.get_object(key), self.config) for key in gold.directory.files.values())
        often = (
            "once, because its weights are pinned" if tier.is_pinned else "every night, because its model may change"
        )
        yield f"gold: not counted above, {pairs:,} pairs; they are judged {often}"

    def _on_held_out(self, place: int) -> Iterator[str]:
        """Say how many pairs of held-out queries the tier may get, which nobody knows before models are trained."""
        c = self.config
        if c.evaluate.pool is None or (c.train is None and c.train_reranker is None):
            return
        queries = self.prospects.texts.queries.filter(split=c.evaluate.split).height
        models = 1 + (len(c.train_on) if c.train is not None else 0)  # rerankers rank what the untrained one finds
        most = queries * c.evaluate.pool.depth * models
        limit = c.tiers[place].escalate.max_pairs
        yield (
            f"evaluate.pool: not counted above, at most {most if limit is None else min(most, limit):,} pairs "
            f"({queries:,} {c.evaluate.split} queries, the first {c.evaluate.pool.depth} of {models} models); they are "
            "known once the models are trained"
        )

    def _on_pairs(self, tier: Tier, asked: Asked) -> Iterator[str]:
        mine = self.config.mine
        if asked.basis == "at most" and tier.escalate.target is not None:
            yield "pairs: at most; the audit sample of escalate.target will show which need not be asked about"
        elif asked.basis == "at most":
            yield "pairs: at most; the tier before has not judged yet, and may leave fewer open"
        if asked.basis == "estimated":
            each = mine.range_max - mine.range_min
            yield f"pairs: at most, and assumed: {each} for each query to be mined, with passages drawn at random"
        yield from _on_scale(asked)

    @cached_property
    def _earlier(self) -> list[Manifest]:
        return earlier_parts(self.prospects.workspace.store)


def _on_scale(asked: Asked) -> Iterator[str]:
    if asked.scale > 1:
        yield f"all figures: scaled up from {MOST_QUERIES:,} queries"


def _of_file(tier: Tier, asked: Asked, notes: tuple[str, ...]) -> TierPlan:
    """Plan a tier that reads its verdicts from a file: nothing is asked, nothing is spent."""
    return TierPlan(
        tier=tier.name,
        basis=asked.basis,
        pairs=round(asked.pairs.height * asked.scale),
        calls=0,
        known=0,
        prompt_tokens=0,
        output_tokens=0,
        hours=0.0,
        money=0.0,
        notes=(f"verdicts from a file ({tier.judge.judge}); pairs that it lacks stay unparsed", *notes),
    )


def earlier_parts(store: Store) -> list[Manifest]:
    """Read finished parts of the store that asked a judge, of any tier, or a reranker."""
    earlier: list[Manifest] = []
    for stage in (JUDGE.name, RESCORE.name):
        found = sorted(newest_attempts(store, stage).items())[:_MOST_READ]
        earlier += read_manifests(store, stage, found)
    return earlier


def money_of(
    config: CurationConfig, prices: Prices, engine: EngineConfig, usage: Usage, hours: float | None
) -> tuple[float | None, str]:
    """Return what calls and tokens, or hours, would cost; None and the reason where it is not known."""
    price = prices.of(engine)
    if price is None:
        return None, f"money: no price for {engine.model} in {config.prices or 'flows/config/prices.yaml'}"
    if price.hour and hours is None:
        return None, "money: unknown, as the hours are"
    return price.of(replace(usage, seconds=(hours or 0.0) * _HOUR)), ""


def learn(tier: Tier, earlier: Sequence[Manifest]) -> Experience:
    """Sum up the speed and the answers of earlier parts with this tier's engine."""
    engine, config = _without_software(part_keys.semantic(tier.engine)), part_keys.semantic(tier.judge)
    same = [m for m in earlier if _without_software(m.ingredients.get("engine", {})) == engine]
    facts = [m.stats.get("facts", {}) for m in same]
    alike = [m for m in earlier if all(m.ingredients["config"].get(n) == config[n] for n in _DECIDES_LENGTH)]
    wrote = [m.stats.get("facts", {}) for m in alike]
    timed = [fact for fact in facts if fact.get("engine_seconds")]
    seconds, calls = (math.fsum(fact[name] for fact in timed) for name in ("engine_seconds", "calls"))
    tokens = sum(fact["prompt_tokens"] + fact["output_tokens"] for fact in timed)
    answered = sum(fact.get("calls", 0) for fact in wrote)
    return Experience(
        parts=len(timed),
        tokens_per_second=tokens / seconds if seconds and tokens else None,
        calls_per_second=calls / seconds if seconds and calls else None,
        written=sum(fact.get("output_tokens", 0) for fact in wrote) / answered if answered else None,
    )


def _without_software(engine: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the versions that a key may cover: another release is about as fast."""
    return {name: value for name, value in engine.items() if name != "software"}


def _written(config: JudgeConfig, census: Census, counter: TokenCounter, experience: Experience) -> tuple[float, str]:
    """Return how many tokens a call's answer has, and a note on how that was found."""
    if config.protocol in ("yes_no", "graded"):
        return 1.0, ""
    if config.protocol == "cross_encoder":
        return 0.0, ""
    if experience.written is not None:
        return experience.written, f"output tokens: {experience.written:.1f} a call, as in earlier calls of this judge"
    most = config.max_output_tokens
    if config.reasoning or config.protocol == "snippet":
        return float(most), f"output tokens: at most, max_output_tokens={most} a call; none was measured yet"
    lengths = [min(most, counter.count_answer(_verdicts(call))) for call in census.sample]
    return math.fsum(lengths) / len(lengths), "output tokens: a verdict for each passage and no more"


def _verdicts(call: Call) -> str:
    """Write the shortest answer that has the form asked for."""
    return json.dumps({"verdicts": dict.fromkeys(call.ids, "better")})


def _on_asking(config: JudgeConfig) -> Iterator[str]:
    if config.max_attempts > 1:
        yield f"calls: unreadable answers are asked for again, {config.max_attempts} times at most; not counted here"
    if config.votes > 1:
        yield f"calls: all {config.votes} votes are counted; an early majority needs fewer"


def _on_length(engine: EngineConfig, counts: Sequence[int], sample: Sequence[Call]) -> str:
    limit = getattr(engine, "max_model_len", None)
    if limit is None:
        return ""
    over = sum(count > limit - call.max_tokens for count, call in zip(counts, sample, strict=True))
    said = f"prompts: {over} of a sample of {len(sample)} exceed max_model_len={limit}: asked in smaller pieces"
    return said if over else ""
