"""A reranker scores each pair of the pool once, and what is remembered is not asked again."""

import math
from collections.abc import Mapping, Sequence

import polars as pl

from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.mining.rescored import RESCORED
from tasks.rescoring.rescore import rescore
from tests.tasks.judging.parts import frames

CONFIG = JudgeConfig(judge="tiny/1", engine="tiny", protocol="cross_encoder")
PAIRS = [
    ("q1", "d1", "bread is dough"),
    ("q1", "d2", "a brick"),
    ("q1", "copy", "a brick"),
    ("q2", "d1", "bread is dough"),
]
POSITIVES = {"q1": ["Bread is baked."], "q2": ["Yeast rises."]}


class Lengths:
    """Scores a pair by the length of its texts, with digits of noise; a passage with `?` cannot be read."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        self.asked += pairs
        return [math.nan if "?" in text else (len(query) + len(text)) / 100 + 1e-9 for query, text in pairs]


class Memory:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        return {entry: self.rows[judge, entry] for entry in entries if (judge, entry) in self.rows}

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        self.rows |= {(judge, entry): payload for entry, _, payload in rows}

    def flush(self) -> None:
        """Nothing to write."""


def _tables(pairs: Sequence[tuple[str, str, str]] = PAIRS) -> dict[str, pl.DataFrame]:
    tables = frames(pairs, POSITIVES)
    return {"asked": tables.pop("escalated"), **tables}


def test_each_pair_has_a_row_with_the_ranks_and_scores_of_both() -> None:
    engine = Lengths()
    made = rescore(CONFIG, **_tables(), engine=engine, ledger=None)
    assert made["rescored"].schema == pl.Schema(RESCORED.columns)
    found = made["rescored"].select("query_id", "doc_id", "retriever", "rank", "retriever_score", "score").rows()
    assert found == [
        ("q1", "copy", "dense", 1, 0.5, 0.1),
        ("q1", "d1", "dense", 1, 0.5, 0.17),
        ("q1", "d2", "dense", 1, 0.5, 0.1),
        ("q2", "d1", "dense", 1, 0.5, 0.17),
    ]
    assert len(engine.asked) == len(made["calls"]) == made["facts"]["calls"] == 3  # the copy is asked about once


def test_a_pair_that_cannot_be_read_has_no_score() -> None:
    made = rescore(CONFIG, **_tables([*PAIRS, ("q1", "d9", "what?")]), engine=Lengths(), ledger=None)
    assert made["rescored"].filter(pl.col("doc_id") == "d9")["score"].to_list() == [None]
    assert made["facts"]["unparsed"] == 1


def test_remembered_pairs_are_not_asked_again_whether_a_judge_or_the_reranker_asked_first() -> None:
    ledger, engine = Memory(), Lengths()
    tables = _tables(PAIRS[:2])
    judge(CONFIG.model_copy(update={"tier": "reranker", "judge": "tiny/2", "relevant_from": 0.9}),
          escalated=tables.pop("asked"), **tables, engine=Lengths(), ledger=ledger)  # fmt: skip
    more = rescore(CONFIG, **_tables(), engine=engine, ledger=ledger)
    assert (more["facts"]["recalled"], [query for query, _ in engine.asked]) == (2, ["q2?"])
    again = rescore(CONFIG, **_tables(), engine=engine, ledger=ledger)
    assert (again["facts"]["recalled"], again["facts"]["calls"]) == (3, 0)
    assert again["rescored"].equals(more["rescored"])
