"""A tier with a guarantee in the whole method: the audit first, then what lies between the thresholds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.guarantee_stages import AUDIT, SETTLE, audited
from flows.method.curate import curate_method
from flows.method.tables import Finished
from infra.execution.usage_meter import BudgetReached
from infra.names import StageName
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tasks.verdicts.guarantee.settle import TIER
from tasks.verdicts.pairs import PAIR
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.fakes import FakeAnswer, InProcess, OverlapLLM

TARGET = {"recall": 0.5, "precision": 0.5, "confidence": 0.5, "audit": 16}
ORACLE = {"name": "llm", "escalate": {"target": TARGET}, "judge": {"max_attempts": 1}}


def table(run: Runner, name: str, *stages: str) -> pl.DataFrame:
    return read_table(run.store, Finished({done.name: done for done in run.runs}).table(name, *stages))


def test_the_stages_of_an_audit_are_named_after_the_tier_and_judge() -> None:
    assert audited(str(StageName("judge", "llm"))) == "judge-llm-audit"
    assert (AUDIT.arity, AUDIT.every, SETTLE.arity, SETTLE.every) == ("map", ("draw",), "map", ("thresholds",))


def test_each_pair_is_asked_once_or_settled_and_the_decisions_say_so(tmp_path: Path) -> None:
    _, run, executor = run_method(tmp_path, write_source(tmp_path / "source"), tiers=[ORACLE])
    sample, rest = table(run, "verdicts", "judge-llm-audit"), table(run, "verdicts", "judge-llm")
    settled = table(run, "settled", "settle-llm")
    decisions = table(run, "decisions", "decide")
    assert sample.height == 16
    assert sample.join(rest, on=PAIR).is_empty()
    assert sample.height + rest.height + settled.height == decisions.height
    assert settled.height > 0
    assert len(executor.llm.asked) == len(set(executor.llm.asked)) == sample.height + rest.height
    both = decisions.join(pl.concat([sample, rest, settled]), on=PAIR, suffix="_said")
    assert both.filter(pl.col("state") != pl.col("state_said")).is_empty()
    by_thresholds = both.filter(pl.col("tier_said") == TIER)
    assert set(by_thresholds["judge"]) <= {"guarantee:accepted", "guarantee:rejected"}
    (row,) = table(run, "guarantee", "guarantee").iter_rows(named=True)
    assert row["asked"] == sample.height + rest.height
    assert row["accepted"] + row["rejected"] == settled.height
    assert min(row["recall_bound"], row["precision_bound"]) >= 0.5


class BreaksOff(OverlapLLM):
    """Answers so many questions, then its budget is used up."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.left = answers

    def answer(self, requests: Sequence[Any]) -> Sequence[FakeAnswer]:
        if len(requests) > self.left:
            raise BudgetReached("used up")
        self.left -= len(requests)
        return super().answer(requests)


@pytest.mark.parametrize("answers", [10, 16, 20], ids=["in the audit", "after the audit", "between the thresholds"])
def test_answers_of_an_audit_are_not_paid_for_twice_after_a_run_broke_off(tmp_path: Path, answers: int) -> None:
    source, judge = write_source(tmp_path / "source"), BreaksOff(answers)
    store = Store.open(str(tmp_path / "store"))

    def attempt() -> None:
        executor = InProcess(store, tmp_path / "scratch")
        executor._engines["judge"] = judge
        curate_method(Runner(store, executor), make_setup(store, source, tiers=[ORACLE]))

    attempt()
    assert 0 < len(judge.asked) <= answers
    judge.left = 10**6
    attempt()
    assert len(judge.asked) == len(set(judge.asked))
    before = len(judge.asked)
    attempt()
    assert len(judge.asked) == before


def test_a_target_that_no_threshold_keeps_passes_everything_on(tmp_path: Path) -> None:
    strict = {**ORACLE, "escalate": {"target": {"recall": 1.0, "precision": 1.0}}}
    _, run, executor = run_method(tmp_path, write_source(tmp_path / "source"), tiers=[strict])
    (row,) = table(run, "guarantee", "guarantee").iter_rows(named=True)
    assert (row["accept"], row["reject"], row["asked"]) == (None, None, row["questions"])
    assert (row["recall_bound"], row["precision_bound"]) == (1.0, 1.0)
    assert len(executor.llm.asked) == row["questions"]
    assert table(run, "settled", "settle-llm").is_empty()


def test_a_tier_that_is_not_the_last_cannot_guarantee_anything(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(Exception, match=r"only the last can have escalate\.target"):
        make_setup(store, write_source(tmp_path / "source"), tiers=[ORACLE, {"name": "later"}])
