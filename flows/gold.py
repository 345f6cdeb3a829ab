"""The gold set inside the method: judged like everything else, every night, and compared with its fixed labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from flows import stages as st
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.judging.config import JudgeConfig
from tasks.quality.gold_set import GoldConfig

if TYPE_CHECKING:
    from flows.method import Setup, Tier

Data = dict[str, Any]
LABEL = "gold"


class GoldSource(BaseModel):
    """The fixed set of labelled pairs that is judged every night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="JSON lines: query, positives, passage, label")


@dataclass(frozen=True)
class Gold:
    """The gold set of one curation, as kept in the store, and the night it is judged in (YYYY-MM-DD)."""

    directory: Directory
    night: str


def judge_gold(run: Runner, setup: "Setup", gold: Gold) -> Data:
    """Ask every tier about every pair of the gold set, with the curation's own prompts, engines and thresholds.

    Weights that are pinned by their digest give the same answers every night: they are asked once and remembered.

    Returns:
        `agreement` and `verdicts`, as `tasks.quality.gold_set.agree_gold` makes them.
    """
    c, names = setup.config, tuple(tier.name for tier in setup.tiers)
    config = GoldConfig(dataset=c.ingest.dataset, tiers=names)
    data = run(st.READ_GOLD, config, source=gold.directory)
    texts = {name: data[name] for name in ("queries", "passages", "positives")}
    passages = run(st.ENCODE_PASSAGES, c.encode, label=LABEL, engine=setup.encoder, passages=data["passages"])
    queries = run(st.ENCODE_QUERIES, c.encode, label=LABEL, engine=setup.encoder, queries=data["queries"])
    similarity = run(
        st.JUDGE_SIMILARITY,
        c.similarity,
        label=LABEL,
        key={"encoder": setup.encoder_key},
        candidates=data["candidates"],
        query_embeddings=queries["embeddings"],
        passage_embeddings=passages["embeddings"],
        positives=data["positives"],
    )["verdicts"]
    answers = [
        run(
            st.JUDGE,
            ask_again(tier, gold.night),
            label=f"{LABEL}-{tier.name}",
            key=tier.shown,
            engine=tier.engine,
            escalated=data["candidates"],
            **texts,
        )["verdicts"]
        for tier in setup.tiers
    ]
    llm_verdicts = _join(answers) if answers else run.keep_table("verdicts", _NOTHING.empty(), _NOTHING)
    decide = c.decide.model_copy(update={"tiers": names})
    decisions = run(
        st.DECIDE,
        decide,
        label=LABEL,
        candidates=data["candidates"],
        verdicts=similarity,
        llm_verdicts=llm_verdicts,
    )["decisions"]
    made: Data = run(
        st.AGREE_GOLD,
        config,
        gold=data["gold"],
        similarity=similarity,
        llm_verdicts=llm_verdicts,
        decisions=decisions,
    )
    return made


def is_pinned(tier: "Tier") -> bool:
    """Tell whether a tier's model is known by its weights; an endpoint's can change behind its name."""
    return bool(getattr(tier.engine, "digest", ""))


def ask_again(tier: "Tier", night: str) -> JudgeConfig:
    """Configure a tier for the gold set of one night: an endpoint's name for its answers includes the night.

    So they are in nobody's ledger and under no key of another night, and the endpoint is really asked.
    """
    if is_pinned(tier):
        return tier.judge
    return tier.judge.model_copy(update={"engine": f"{tier.judge.asked}@{night}"})


def is_of_gold(stage: str) -> bool:
    """Tell whether a stage, with its label, is about the gold set; it is no cost of the data's."""
    return LABEL in stage.split("-")[1:2] or stage in (st.READ_GOLD.name, st.AGREE_GOLD.name)


_NOTHING = schemas.VERDICTS


def _join(tables: list[Table]) -> Table:
    pieces = tuple(piece for table in tables for piece in table.pieces)
    return Table("verdicts", pieces, frozenset[int]().union(*(table.missing for table in tables)))
