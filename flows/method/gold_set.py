"""Judges the gold set every night with the curation's own judges, and compares the verdicts with its fixed labels."""

from typing import Any

from flows import stages as st
from flows.method.human_labels import without
from flows.method.judging import combine
from flows.method.retrieving import encode_config
from flows.method.setup import Gold, Setup, Tier
from flows.method.tables import empty_table, union
from infra.stages.runner import Runner
from infra.storage.artifacts import Table
from tasks import schemas
from tasks.judging.config import JudgeConfig
from tasks.quality.gold_set import GoldConfig


def judge_gold(run: Runner, setup: Setup, gold: Gold) -> dict[str, Table]:
    """Judge every pair of the gold set with every tier, with the curation's own prompts, engines and thresholds.

    A model whose weights are known by digest gives the same answers every night, so it is asked once only.

    Returns:
        `agreement` and `verdicts`, as `tasks.quality.gold_set.agree_gold` makes them.
    """
    c = setup.config
    asked = [tier for tier in setup.tiers if tier.scores is None]  # a file has no verdicts on the gold set's pairs
    names = tuple(tier.name for tier in asked)
    config = GoldConfig(dataset=c.ingest.dataset, tiers=names)
    data = run(st.READ_GOLD, config, source=gold.directory)
    similarity, features = _similarity(run, setup, data)
    answers = [
        run(
            st.JUDGE,
            ask_again(tier, gold.night),
            label=f"{st.GOLD}-{tier.name}",
            key=tier.shown,
            engine=tier.engine,
            escalated=data["candidates"],
            queries=data["queries"],
            passages=data["passages"],
            positives=data["positives"],
        )["verdicts"]
        for tier in asked
    ]
    llm_verdicts = union("verdicts", *answers) if answers else empty_table(run, "verdicts", schemas.VERDICTS)
    p = combine(run, setup, features, llm_verdicts, len(setup.tiers), gold=st.GOLD)
    extra: dict[str, Any] = {} if p is None or setup.decided_by is None else {"combined": p}
    if asked and asked[-1].escalate.target is not None:  # its own verdicts decide, as on the data
        extra["settled"] = empty_table(run, "settled", schemas.VERDICTS)
    decisions = run(
        without(st.DECIDE, *({"combined", "settled"} - extra.keys())),
        setup.decide.model_copy(update={"tiers": names, "lower": None, "upper": None}),
        label=st.GOLD,
        candidates=data["candidates"],
        verdicts=similarity,
        llm_verdicts=llm_verdicts,
        **extra,
    )["decisions"]
    made: dict[str, Table] = run(
        st.AGREE_GOLD,
        config,
        gold=data["gold"],
        similarity=similarity,
        llm_verdicts=llm_verdicts,
        decisions=decisions,
    )
    return made


def _similarity(run: Runner, setup: Setup, data: dict[str, Any]) -> tuple[Table, Table]:
    """Judge the gold set by similarity; returns the verdicts and the features."""
    c, engine = setup.config, setup.encoder
    passages = run(st.ENCODE_PASSAGES, encode_config(engine), label=st.GOLD, engine=engine, passages=data["passages"])
    queries = run(st.ENCODE_QUERIES, encode_config(engine), label=st.GOLD, engine=engine, queries=data["queries"])
    made = run(
        st.JUDGE_SIMILARITY,
        c.similarity,
        label=st.GOLD,
        key={"encoder": setup.encoder_key},
        candidates=data["candidates"],
        query_embeddings=queries["embeddings"],
        passage_embeddings=passages["embeddings"],
        positives=data["positives"],
        queries=data["queries"],
        passages=data["passages"],
    )
    return made["verdicts"], made["features"]


def ask_again(tier: Tier, night: str) -> JudgeConfig:
    """Return a tier's settings for the gold set of one night.

    For an endpoint the night becomes part of the name under which its answers are remembered. No answer of another
    night has that name, so the endpoint is asked again.
    """
    if tier.is_pinned:
        return tier.judge
    return tier.judge.model_copy(update={"engine": f"{tier.judge.asked}@{night}"})
