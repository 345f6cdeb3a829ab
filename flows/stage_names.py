"""Names of stages with their labels: which tier judges in one, and about what."""

from flows.guarantee_stages import AUDITED
from flows.stages import (
    AGREE_GOLD,
    CHECKING,
    ENCODE_PASSAGES,
    ENCODE_QUERIES,
    GOLD,
    HELD_OUT,
    JUDGE,
    READ_GOLD,
    READ_SCORES,
    STAGES,
)
from infra.names import StageName


def section_of(name: str) -> str:
    """Return the section of the settings that configures a stage; for a stage that no longer exists, its own name."""
    return next((stage.settings for stage in STAGES if stage.name == name), name)


def judge_stage(tier: str, *, gold: bool = False) -> str:
    """Name the stage in which a tier judges the candidates, or the gold set, with its label.

    >>> judge_stage("llm"), judge_stage("llm", gold=True)
    ('judge-llm', 'judge-gold-llm')
    """
    return str(StageName(JUDGE.name, f"{GOLD}-{tier}" if gold else tier))


def scores_stage(tier: str) -> str:
    """Name the stage in which a tier reads its verdicts from a file."""
    return str(StageName(READ_SCORES.name, tier))


def check_stage(tier: str) -> str:
    """Name the stage in which a tier judges the positives, with its label.

    >>> check_stage("llm")
    'judge-check-llm'
    """
    return str(StageName(JUDGE.name, f"{CHECKING}-{tier}"))


def held_out_stage(tier: str) -> str:
    """Name the stage in which a tier judges what models rank for held-out queries, with its label.

    >>> held_out_stage("llm")
    'judge-heldout-llm'
    """
    return str(StageName(JUDGE.name, f"{HELD_OUT}-{tier}"))


def judge_stages(tier: str) -> tuple[str, str, str, str]:
    """Name the stages in which a tier judges: the candidates, the gold set, the positives, what models rank."""
    return judge_stage(tier), judge_stage(tier, gold=True), check_stage(tier), held_out_stage(tier)


def encode_stages(place: str, *, gold: bool = False) -> tuple[str, str]:
    """Name the stages in which an encoder, named by its place in the settings, encodes passages and queries.

    >>> encode_stages("encoders.gte"), encode_stages("encoder", gold=True)
    (('encode_passages-gte', 'encode_queries-gte'), ('encode_passages-gold', 'encode_queries-gold'))
    """
    label = GOLD if gold else place.partition(".")[2]
    return str(StageName(ENCODE_PASSAGES.name, label)), str(StageName(ENCODE_QUERIES.name, label))


def tier_of(name: str) -> str:
    """Name the tier that judges in a stage (see `judge_stages`): also about an audit sample."""
    label = StageName.parse(name).label.removesuffix(AUDITED)
    return next(
        (label[len(to) :] for to in (f"{GOLD}-", f"{CHECKING}-", f"{HELD_OUT}-") if label.startswith(to)), label
    )


def is_check(name: str) -> bool:
    """Return whether a stage (named with its label) judges positives, not candidates."""
    found = StageName.parse(name)
    return found.stage == JUDGE.name and found.label.partition("-")[0] == CHECKING


def is_of_held_out(name: str) -> bool:
    """Return whether a stage (named with its label) works on what models rank for held-out queries."""
    return StageName.parse(name).label.partition("-")[0] == HELD_OUT


def is_of_gold(name: str) -> bool:
    """Return whether a stage (named with its label) works on the gold set; its cost is not that of the data."""
    found = StageName.parse(name)
    return found.label.partition("-")[0] == GOLD or found.stage in (READ_GOLD.name, AGREE_GOLD.name)
