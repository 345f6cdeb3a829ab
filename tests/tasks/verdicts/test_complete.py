"""How many pairs may be without a verdict."""

import polars as pl
import pytest

from tasks.summaries import TALLY
from tasks.verdicts.complete import CompleteConfig, IncompleteError, TallyConfig, complete, tally
from tasks.verdicts.decide import DecideConfig, decide
from tests.tasks.verdicts.judged import FOUR, Judged, said_by_people, verdicts


def counted(*parts: pl.DataFrame) -> pl.DataFrame:
    tables = [tally(TallyConfig(), decisions=decisions)["tally"] for decisions in parts]
    assert all(dict(table.schema) == TALLY.columns for table in tables)
    return pl.concat(tables)


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
    complete(CompleteConfig(max_unparsed=0.0), tally=counted(made))


def test_paper_7_1_too_many_unparsed_pairs_stop_the_work_and_say_what_to_do() -> None:
    rows: list[Judged] = [("q", str(n), "unparsed" if n < 12 else "relevant", 0.9) for n in range(40)]
    with pytest.raises(
        IncompleteError, match=r"judgments: 12 of 40 pairs unparsed \(30% > max_unparsed=5%\); read raw"
    ):
        complete(CompleteConfig(), tally=counted(verdicts(rows)))
    passed = complete(CompleteConfig(max_unparsed=0.3), tally=counted(verdicts(rows)))["completeness"]
    assert passed.to_dicts() == [{"pairs": 40, "unparsed": 12}]
    complete(CompleteConfig(max_unparsed=0.0), tally=counted(verdicts([])))


def test_a_judge_that_answers_nothing_fails_completeness_however_little_it_was_asked() -> None:
    asked = [("q1", f"asked{n}", "unparsed", None) for n in range(30)]
    rest = [("q1", f"rest{n}", "not_relevant", 0.1) for n in range(970)]
    frame = verdicts([*asked, *rest]).with_columns(
        call_id=pl.when(pl.col("doc_id").str.starts_with("asked")).then(pl.lit("call"))
    )
    with pytest.raises(IncompleteError, match=r"30 of 30 pairs unparsed \(100% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), tally=counted(frame))
    assert complete(CompleteConfig(max_unparsed_of_asked=1.0), tally=counted(frame))["completeness"].height == 1


def test_twenty_pairs_are_enough_to_hold_a_judge_to_its_own_share() -> None:
    def frame(asked: int) -> pl.DataFrame:
        rows: list[Judged] = [("q", f"{n}", "unparsed" if n < 5 else "relevant", 0.9) for n in range(500)]
        call = pl.when(pl.col("doc_id").cast(pl.Int64) < asked).then(pl.lit("call"))
        return verdicts(rows).with_columns(call_id=call)

    with pytest.raises(IncompleteError, match=r"5 of 20 pairs unparsed \(25% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), tally=counted(frame(20)))
    complete(CompleteConfig(), tally=counted(frame(19)))
    complete(CompleteConfig(), tally=counted(frame(25)))


def test_the_parts_are_judged_together() -> None:
    bad: list[Judged] = [("q", str(n), "unparsed", None) for n in range(10)]
    good: list[Judged] = [("p", str(n), "relevant", 0.9) for n in range(90)]
    parts = counted(verdicts(bad), verdicts(good), verdicts([]))
    assert complete(CompleteConfig(max_unparsed=0.1), tally=parts)["completeness"].row(0) == (100, 10)
    with pytest.raises(IncompleteError, match=r"10 of 100 pairs unparsed \(10% > max_unparsed=9%\)"):
        complete(CompleteConfig(max_unparsed=0.09), tally=parts)
