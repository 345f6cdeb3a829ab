"""Judges the candidates: by similarity, then by each tier what the tier before left open; then decides on each pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from flows import stages as st
from flows.guarantee_stages import AUDITED
from flows.method.fetching import fetch_passages, fetch_texts
from flows.method.human_labels import without
from flows.method.setup import Setup, Tier
from flows.method.tables import Checked, Fetched, Ingested, Pool, Vectors, Verdicts, empty_table, only_parts, union
from infra.stages.runner import Runner
from infra.stages.stage import Stage
from infra.storage.artifacts import Table
from tasks import schemas
from tasks.calibrating.combine import CombineStageConfig
from tasks.quality.imported import ImportedConfig
from tasks.quality.scores import SplitConfig
from tasks.verdicts.allot import AllotConfig
from tasks.verdicts.checks import CheckConfig
from tasks.verdicts.escalate import AdmitConfig, EscalateConfig
from tasks.verdicts.features import SIMILARITY

_ALONE = ("yes_no", "graded", "cross_encoder")  # protocols that judge a passage also without a known positive


def judge(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, pool: Pool) -> Verdicts:
    """Judge the candidates: by similarity, then by each tier what the one before left open; then decide on each."""
    c, candidates = setup.config, pool.candidates
    fetched = fetch_passages(run, data, vectors, candidates)  # also of those that are not judged: exports hold them
    if setup.skipped:
        candidates = run(st.ADMIT, AdmitConfig(skip=setup.skipped), candidates=candidates)["admitted"]
    decided = decide_pairs(run, setup, data, fetched, candidates, vectors.queries)
    similarity, asked = decided.similarity, decided.asked
    guarantee: Table | None = None
    if asked.thresholds is not None:
        found = run(st.COUNT_FOUND, setup.guaranteed, candidates=candidates, llm_verdicts=asked.verdicts)["found"]
        guarantee = run(st.GUARANTEE, setup.guaranteed, thresholds=asked.thresholds, found=found)["guarantee"]
    _note_unreached_price(run, setup)
    agree = c.agree.model_copy(update={"tiers": setup.judges})
    compared = run(
        st.COMPARE_KNOWN,
        agree,
        candidates=candidates,
        similarity=similarity,
        llm_verdicts=asked.verdicts,
        decisions=decided.decisions,
        known=data.known,
    )
    agreement = run(st.AGREE, agree, **compared)["agreement"]
    said = (candidates, similarity, asked.verdicts, asked.calls)
    return Verdicts(*said, decided.decisions, agreement, decided.features, fetched.texts, guarantee=guarantee)


@dataclass(frozen=True)
class Asked:
    """What the tiers after similarity said: their verdicts, their calls, and P(relevant) after all of them.

    combined: VERDICTS of all candidates; None without a calibration.
    settled, thresholds: of the last tier's guarantee; None where it has none.
    """

    verdicts: Table
    calls: Table
    combined: Table | None
    settled: Table | None = None
    thresholds: Table | None = None


@dataclass(frozen=True)
class Decided:
    """What all judges said of some pairs, and what was decided."""

    similarity: Table
    features: Table
    asked: Asked
    decisions: Table


def decide_pairs(
    run: Runner, setup: Setup, data: Ingested, fetched: Fetched, candidates: Table, query_vectors: Table
) -> Decided:
    """Judge pairs by similarity, ask the tiers about what is open, and decide on each pair.

    data: the queries and positives of the pairs. fetched: their passages, by query part.
    """
    made = run(
        st.JUDGE_SIMILARITY,
        setup.config.similarity,
        key={"encoder": setup.encoder_key},
        candidates=candidates,
        query_embeddings=query_vectors,
        passage_embeddings=fetched.vectors,
        positives=data.positives,
        queries=data.queries,
        passages=fetched.texts,
    )
    similarity, features = made["verdicts"], made["features"]
    asked = ask_tiers(run, setup, data, fetched.texts, candidates, (similarity, features))
    p = asked.combined if setup.decided_by is not None else None  # a calibration that only ranks has one too
    optional = {"combined": p, "settled": asked.settled}
    extra: dict[str, Any] = {name: table for name, table in optional.items() if table is not None}
    decisions = run(
        without(st.DECIDE, *(name for name in optional if name not in extra)),
        setup.decide,
        candidates=candidates,
        verdicts=similarity,
        llm_verdicts=asked.verdicts,
        **extra,
    )["decisions"]
    return Decided(similarity, features, asked, decisions)


def ask_tiers(
    run: Runner, setup: Setup, data: Ingested, texts: Table, candidates: Table, first: tuple[Table, Table]
) -> Asked:
    """Judge with each tier what the tiers before left open.

    Pairs that a table of imported verdicts holds are not asked about. With a calibration, P(relevant) after the tiers
    so far says what is open; without one, the scores and states of the tier before do.

    texts: the passages, by query part. first: the verdicts of similarity, and its features.
    """
    before, features = first
    # In every part, so that a part that was asked about nothing has a table too.
    answers = [empty_table(run, "verdicts", schemas.VERDICTS, candidates.indexes)]
    if setup.imported is not None:
        rows = _cut_rows(run, st.SPLIT_IMPORTED, ImportedConfig(), "", data, {"source": setup.imported})
        made = run(st.IMPORTED, ImportedConfig(), candidates=candidates, rows=rows)
        answers.append(made["verdicts"])
        candidates = made["left"]
    calls = [empty_table(run, "calls", schemas.CALLS, candidates.indexes)]
    combined = combine(run, setup, features, union("verdicts", *answers), 0)
    settled: dict[str, Table] = {}
    for number, wanted in enumerate(setup.tiers, start=1):
        how, scored, tier = setup.escalate(number - 1), combined or before, with_rows(run, wanted, data)
        tables: dict[str, Any] = {"candidates": candidates, "verdicts": scored}
        if how.target is None:
            asked = [
                ask_tier(run, tier, data, texts, escalate(run, tier.name, how, data.generations.query_parts, tables))
            ]
        else:
            asked, settled = ask_between_thresholds(run, tier, how, (data, texts), tables)
        before = union("verdicts", *(said for said, _ in asked))
        answers.append(before)
        calls += [made for _, made in asked]
        combined = combine(run, setup, features, union("verdicts", *answers), number)
    return Asked(union("verdicts", *answers), union("calls", *calls), combined, **settled)


def escalate(
    run: Runner, tier: str, how: EscalateConfig, generations: Sequence[range], tables: dict[str, Any]
) -> Table:
    """Pick what a tier is asked about; each pair stays in its query part.

    Budgets hold for each generation of queries: what growth brings leaves the choice in the older parts as it was.

    generations: the query parts of each generation. tables: the candidates, and the verdicts of the tier before.
    """
    if how.max_share == 1 and how.max_pairs is None:
        escalated: Table = run(without(st.ESCALATE, "allotment"), how, label=tier, **tables)["escalated"]
        return escalated
    unlimited = how.model_copy(update={"max_share": 1.0, "max_pairs": None})
    counted = run(st.COUNT_OPEN, unlimited, label=tier, **tables)["counted"]
    budgets = AllotConfig(unit=how.unit, max_share=how.max_share, max_pairs=how.max_pairs)
    allotted = list[Table]()
    for number, parts in enumerate(generations):
        some = only_parts(counted, frozenset(parts))
        if some.indexes:
            label = f"{tier}-g{number}" if number else tier
            allotted.append(run(st.ALLOT, budgets, label=label, counted=some)["allotment"])
    made = run(st.ESCALATE, how, label=tier, **tables, allotment=union("allotment", *allotted))
    chosen: Table = made["escalated"]
    return chosen


def ask_between_thresholds(
    run: Runner, tier: Tier, how: EscalateConfig, source: tuple[Ingested, Table], tables: dict[str, Any]
) -> tuple[list[tuple[Table, Table]], dict[str, Table]]:
    """Ask a tier with a guarantee: first about an audit sample, then about what lies between the thresholds it allows.

    source: the data, and the passages by query part. tables: the candidates, and the verdicts whose scores the
    thresholds are about.

    Returns:
        What was said of the sample and of the others; the tables `settled` and `thresholds`.
    """
    label = tier.name
    scores = run(st.SCORE_POOL, how, label=label, **tables)["scores"]
    draw = run(st.DRAW_AUDIT, how, label=label, scores=scores)["draw"]
    drawn = run(st.AUDIT, how, label=label, **tables, draw=draw)
    sample = ask_tier(run, tier, *source, drawn["escalated"], label + AUDITED)
    audit = drawn["audit"]
    answered = run(st.READ_AUDIT, how, label=label, **tables, audit=audit, audited=sample[0])["answered"]
    thresholds = run(st.SET_THRESHOLDS, how, label=label, answered=answered)["thresholds"]
    made = run(st.SETTLE, how, label=label, **tables, audit=audit, thresholds=thresholds)
    rest = ask_tier(run, tier, *source, made["escalated"])
    return [sample, rest], {"settled": made["settled"], "thresholds": thresholds}


def with_rows(run: Runner, tier: Tier, data: Ingested) -> Tier:
    """Cut the file of a tier into the rows of each query part; a tier that is asked stays as it is.

    The rows of each generation of queries are cut apart, so that growth leaves what was cut before as it is. The newest
    one counts the rows of queries that no generation holds.
    """
    if tier.scores is None:
        return tier
    given = {"source": tier.scores, "copies": data.copies}
    rows = _cut_rows(run, st.SPLIT_SCORES, SplitConfig(), tier.name, data, given)
    for facts in (manifest.stats.get("facts", {}) for manifest in run.runs[-1].manifests):
        if facts.get("unknown_queries"):
            run.on_note(
                f"tier {tier.name}: {facts['unknown_queries']:,} of {facts['rows']:,} rows of its file are about "
                f"queries that the data does not hold ({facts['unknown_query']})"
            )
    return replace(tier, rows=rows)


def _cut_rows(
    run: Runner, stage: Stage, config: BaseModel, label: str, data: Ingested, given: Mapping[str, Any]
) -> Table:
    """Cut a file into the rows of each query part, for each generation of queries apart.

    Where an earlier version has cut it for all of them together, that is taken. given: what is read besides queries.
    """
    alone = without(stage, "earlier")
    whole: dict[str, Any] = {**given, "queries": data.queries}
    held = enumerate(data.queries.indexes & frozenset(parts) for parts in data.generations.query_parts)
    generations = {number: own for number, own in held if own}
    waits = any(each.incomplete for each in whole.values())
    if len(generations) <= 1 or waits or run.find(alone, config, **whole) is not None:
        generations = {0: data.queries.indexes}
    made, earlier = list[Table](), frozenset[int]()
    for number, own in generations.items():
        inputs: dict[str, Any] = {**given, "queries": only_parts(data.queries, own)}
        if earlier and "earlier" in stage.inputs:
            inputs["earlier"] = only_parts(data.queries, earlier)
        how = stage if "earlier" in inputs else alone
        name = "-".join(filter(None, (label, f"g{number}" if number else "")))
        made.append(run(how, config, label=name, **inputs)["rows"])
        earlier |= own
    return union("rows", *made)


def ask_tier(
    run: Runner, tier: Tier, data: Ingested, texts: Table, escalated: Table, label: str = ""
) -> tuple[Table, Table]:
    """Ask a tier about pairs, or look them up in its file; returns the verdicts and the calls.

    texts: the passages, by query part. label: of the stage; by default the tier's name.
    """
    if tier.rows is not None:
        made = run(st.READ_SCORES, tier.reading, label=label or tier.name, escalated=escalated, rows=tier.rows)
        _note_absent(run, tier)
        return made["verdicts"], empty_table(run, "calls", schemas.CALLS)
    made = run(
        st.JUDGE,
        tier.judge,
        label=label or tier.name,
        key=tier.shown,
        engine=tier.engine,
        escalated=escalated,
        queries=data.queries,
        passages=texts,
        positives=data.positives,
    )
    return made["verdicts"], made["calls"]


def check_labels(run: Runner, setup: Setup, data: Ingested, decisions: Table) -> Checked | None:
    """Put positives to a judge, and name those and the queries that it doubts; None where the settings check nothing.

    The labels stay as they are: no treatment reads what this returns.
    """
    c = setup.config.check
    if not (c.positives or c.queries):
        return None
    empty = {"asked": schemas.CANDIDATES, "checked": schemas.CHECKED, "verdicts": schemas.VERDICTS}
    asked, checked, verdicts = (empty_table(run, name, of, decisions.indexes) for name, of in empty.items())
    if c.positives:
        tier = checking_tier(setup)
        put = run(st.PUT_POSITIVES, check_of(setup), queries=data.queries, positives=data.positives)
        asked, checked = put["asked"], put["checked"]
        texts = fetch_texts(run, data, asked, put["positives"], "asked")
        verdicts = run(
            st.JUDGE,
            tier.judge,
            label=f"{st.CHECKING}-{tier.name}",
            key=tier.shown,
            engine=tier.engine,
            escalated=asked,
            queries=put["queries"],
            passages=texts,
            positives=put["positives"],
        )["verdicts"]
    return Checked(**run(st.CHECK, c, checked=checked, verdicts=verdicts, asked=asked, decisions=decisions))


def checking_tier(setup: Setup) -> Tier:
    """Return the tier that positives are put to: the one that is named, else the last one with an engine."""
    asked = [tier for tier in setup.tiers if tier.scores is None]
    return next((tier for tier in asked if tier.name == setup.config.check.tier), asked[-1])


def check_of(setup: Setup) -> CheckConfig:
    """Return the settings of the check; whether queries with one positive are asked about depends on the prompt."""
    return setup.config.check.model_copy(update={"alone": checking_tier(setup).judge.protocol in _ALONE})


def _note_absent(run: Runner, tier: Tier) -> None:
    """Report the pairs that a file with verdicts lacks."""
    facts = [manifest.stats.get("facts", {}) for manifest in run.runs[-1].manifests]
    pairs, absent = (sum(int(fact[name]) for fact in facts) for name in ("pairs", "unparsed"))
    named = next((fact["not_in_file"] for fact in facts if "not_in_file" in fact), "")
    if absent:
        run.on_note(f"tier {tier.name}: its file lacks {absent:,} of {pairs:,} pairs, which stay unparsed ({named})")


def combine(run: Runner, setup: Setup, features: Table, verdicts: Table, number: int, gold: str = "") -> Table | None:
    """Compute P(relevant) of all candidates after the first `number` tiers; None where it is not computed.

    gold: begins the label of the stage where the gold set is judged.
    """
    if setup.calibration is None or not setup.is_combined(number):
        return None
    asked = setup.judges[: len(setup.judges) - len(setup.tiers) + number]
    band = _open_band(setup, number)
    config = CombineStageConfig(tiers=asked, lower=band[0], upper=band[1])
    label = combine_label(setup, number)
    made: Table = run(
        st.COMBINE,
        config,
        label=f"{gold}-{label}" if gold else label,
        features=features,
        llm_verdicts=verdicts,
        calibration=setup.calibration.directory,
    )["combined"]
    return made


def combine_label(setup: Setup, number: int) -> str:
    """Name the tier after which P(relevant) is computed: the `number`-th, or similarity."""
    return setup.tiers[number - 1].name if number else SIMILARITY


def _open_band(setup: Setup, number: int) -> tuple[float | None, float | None]:
    """Return the P(relevant) between which the next tier is asked: its own band, else what a precision leaves open.

    A threshold for a precision is right on average over all pairs above it, after all judges. A pair just above it is
    less sure than that. So a pair is settled before the last judge only where its own P is at least the precision.
    Without a band and without a precision all pairs are open, in the order of P, within the tier's budget: the
    threshold for a recall or the largest F1 leaves nothing unsure, and the judges would be asked about nothing.
    """
    if number >= len(setup.tiers):
        return None, None
    tier, precision = setup.tiers[number].escalate, setup.config.decide.precision
    if tier.lower is not None or precision is None:
        return tier.lower, tier.upper
    return setup.decide.not_relevant_below, max(setup.decide.relevant_from, precision)


def _note_unreached_price(run: Runner, setup: Setup) -> None:
    """Report a price of decisions that no threshold of the calibration reaches."""
    if setup.decided_by is None or not setup.config.decide.price:
        return
    ((name, value),) = setup.config.decide.price.items()
    if setup.decided_by.calibration.threshold_for(**setup.config.decide.price) is None:
        run.on_note(f"decide.{name}: no threshold of the calibration reaches {value}; nothing is called relevant")
