"""How many pairs may be without a verdict."""

import polars as pl
import pytest

from tasks.verdicts.complete import CompleteConfig, IncompleteError, check_complete, complete
from tasks.verdicts.decide import DecideConfig, decide
from tests.tasks.verdicts.judged import FOUR, Judged, said_by_people, verdicts


@pytest.mark.parametrize("mode", ["fusion", "last"])
def test_what_people_called_irrelevant_is_not_relevant_whatever_the_judges_say(mode: str) -> None:
    config = DecideConfig.model_validate({"mode": mode})
    llm: list[Judged] = [("q1", "high", "relevant", 0.99)]
    made = decide(
        config,
        candidates=said_by_people(FOUR, "high", "broken"),
        verdicts=verdicts(FOUR),
        llm_verdicts=verdicts(llm, "llm"),
    )["decisions"]
    known = made.filter(pl.col("doc_id").is_in(["high", "broken"])).select("state", "score", "judge").unique()
    assert known.rows() == [("not_relevant", 0.0, "human:source")]
    assert made.filter(doc_id="middle")["judge"].to_list() == ["similarity-judge"]
    complete(CompleteConfig(max_unparsed=0.0), decisions=made)


def test_paper_7_1_too_many_unparsed_pairs_stop_the_work_and_say_what_to_do() -> None:
    rows: list[Judged] = [("q", str(n), "unparsed" if n < 12 else "relevant", 0.9) for n in range(40)]
    with pytest.raises(
        IncompleteError, match=r"judgments: 12 of 40 pairs unparsed \(30% > max_unparsed=5%\); read raw"
    ):
        complete(CompleteConfig(), decisions=verdicts(rows))
    passed = complete(CompleteConfig(max_unparsed=0.3), decisions=verdicts(rows))["completeness"]
    assert passed.to_dicts() == [{"pairs": 40, "unparsed": 12}]
    check_complete(verdicts(rows), 0.3)
    check_complete(verdicts([]), 0.0)


def test_a_judge_that_answers_nothing_fails_completeness_however_little_it_was_asked() -> None:
    asked = [("q1", f"asked{n}", "unparsed", None) for n in range(30)]
    rest = [("q1", f"rest{n}", "not_relevant", 0.1) for n in range(970)]
    frame = verdicts([*asked, *rest]).with_columns(
        call_id=pl.when(pl.col("doc_id").str.starts_with("asked")).then(pl.lit("call"))
    )
    with pytest.raises(IncompleteError, match=r"30 of 30 pairs unparsed \(100% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), decisions=frame)
    assert complete(CompleteConfig(max_unparsed_of_asked=1.0), decisions=frame)["completeness"].height == 1


def test_twenty_pairs_are_enough_to_hold_a_judge_to_its_own_share() -> None:
    def frame(asked: int) -> pl.DataFrame:
        rows: list[Judged] = [("q", f"{n}", "unparsed" if n < 5 else "relevant", 0.9) for n in range(500)]
        call = pl.when(pl.col("doc_id").cast(pl.Int64) < asked).then(pl.lit("call"))
        return verdicts(rows).with_columns(call_id=call)

    with pytest.raises(IncompleteError, match=r"5 of 20 pairs unparsed \(25% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), decisions=frame(20))
    complete(CompleteConfig(), decisions=frame(19))
    complete(CompleteConfig(), decisions=frame(25))
