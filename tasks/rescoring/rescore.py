"""Score the pool of mined candidates, and the positives of their queries, with a reranker.

The reranker is asked as a judge of the protocol `cross_encoder` is (`tasks.judging`): each distinct text once, a long
passage in windows of which the best counts, and no pair twice that the ledger remembers. A judge with the same engine
and the same lengths shares these answers.
"""

from typing import Any

import polars as pl

from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.mining.rescored import RESCORED
from tasks.protocols import CrossEncoder, Ledger

_PAIR = ["dataset", "query_id", "doc_id"]
# The last bits of a model's score depend on the pairs in the same batch, so on the parts. Without them, texts that are
# the same to the model nearly always have equal scores, and the retriever's order decides between them.
_DIGITS = 5


def rescore(  # noqa: PLR0913 - tables by name
    config: JudgeConfig,
    *,
    asked: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    engine: CrossEncoder,
    ledger: Ledger | None,
) -> dict[str, Any]:
    """Score each pair once.

    Args:
        config: how the reranker is asked; thresholds have no effect.
        asked: CANDIDATES, the positives among them (`tasks.mining.mine.choose_pool`).
        queries: of the same part.
        passages: at least those of the pairs.
        positives: of the same part.
        engine: the reranker.
        ledger: the scores that are remembered.

    Returns:
        `rescored`: RESCORED. The score is P(relevant), rounded to 5 significant digits. `calls`, `facts`: as
        `tasks.judging.judge.judge`.

    Raises:
        ValueError, EngineUnavailable, UnreadableAnswers: as `tasks.judging.judge.judge`.
    """
    tables = {"queries": queries, "passages": passages, "positives": positives}
    made = judge(config, escalated=asked, engine=engine, ledger=ledger, **tables)
    scores = made["verdicts"].select(*_PAIR, score=pl.col("score").fill_nan(None).round_sig_figs(_DIGITS))
    found = asked.rename({"score": "retriever_score"}).join(scores, on=_PAIR)
    rescored = found.select(*RESCORED.columns).sort(RESCORED.key)
    return {"rescored": rescored, "calls": made["calls"], "facts": made["facts"]}
