"""The tables that commands print."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.tables import show_release, show_result, show_tier_plans, stage_row, stage_table
from flows.planning.encoding import EncoderPlan
from flows.planning.plan import Plan, TierPlan
from flows.results.output_folder import Result
from flows.results.promotion import Held, Release
from infra.stages.runner import StageRun

SUMMARY: dict[str, Any] = {
    "queries": 9,
    "passages": 48,
    "candidates": 54,
    "verdicts": {"relevant": 4, "not_relevant": 40, "unsure": 9, "unparsed": 1},
    "found": 4,
    "llm_calls": 57,
    "tiers": [
        {
            "tier": "cascade",
            "known": 9,
            "known_found": 3,
            "recall": 0.33333,
            "recall_low": 0.12,
            "recall_high": 0.65,
            "precision": None,
        },
    ],
    "conclusions": ["4 of 54 candidates were judged to be [false] negatives."],
    "alarms": ["gold set, llm: 40% right"],
}
RUN = StageRun("judge-llm", 3, 1, 1, {2: "died"}, 4, frozenset({2}), 54, 1.26)
RECORD: dict[str, Any] = {
    "number": 2, "curation": "nq-000007", "treatment": "relabel", "because": "promoted", "of": None, "instances": 100,
    "why": "better than default in nDCG@10", "checks": [],
}  # fmt: skip


def printed(show: Any, *arguments: Any) -> tuple[str, Any]:
    file = io.StringIO()
    returned = show(*arguments, Console(file=file, width=160))
    return file.getvalue(), returned


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ \n").replace("┃", "│").split("│")]


def test_a_stages_row_counts_its_parts() -> None:
    assert stage_row(RUN) == {
        "stage": "judge-llm", "parts": 3, "reused": 1, "computed": 1, "failed": 1, "blocked": 4, "rows": 54,
        "seconds": 1.3, "read_bytes": 0, "peak_gib": 0.0,
    }  # fmt: skip


def test_the_stages_are_added_up_below() -> None:
    out, _ = printed(lambda out: out.print(stage_table([stage_row(RUN), stage_row(RUN)], "animals-000001")))
    last = next(line for line in out.splitlines() if line.startswith("│ all"))
    assert cells(last) == ["all", "6", "2", "2", "2", "8", "108", "3"]


def test_a_result_is_told_with_its_verdicts_its_alarms_and_its_report(tmp_path: Path) -> None:
    held = Held("nq", "nq-000007", "too few queries", current=2)
    result = Result(tmp_path, (RUN,), "nq-000007", SUMMARY, 3.0, held)
    out, _ = printed(show_result, result)
    assert "4 of 54 candidates were judged to be [false] negatives." in out
    assert "drift: gold set, llm: 40% right" in out
    assert "not promoted: nq-000007; release 2 stays" in out
    assert f"report: {tmp_path / 'report.html'}" in out
    rows = [cells(line) for line in out.splitlines() if line.startswith("│")]
    assert ["9", "48", "54", "4", "40", "9", "1", "4", "57"] in rows
    assert ["cascade", "9", "3", "0.333 (0.12 to 0.65)", "–"] in rows


def test_a_result_without_known_false_negatives_has_no_table_of_tiers(tmp_path: Path) -> None:
    for tiers in ([], [{"tier": "cascade", "known": 0, "known_found": 0, "recall": None, "precision": None}]):
        summary = {**SUMMARY, "tiers": tiers, "alarms": []}
        out, _ = printed(show_result, Result(tmp_path, (RUN,), "nq-000007", summary, 3.0))
        assert "how each tier finds" not in out
    assert "drift" not in out
    assert "promoted" not in out


def test_what_became_of_a_promotion_is_two_lines() -> None:
    out, said = printed(show_release, Release("nq", RECORD, new=True))
    assert out.splitlines() == [
        "release 2 of nq promoted: nq-000007, published/nq/000002",
        "because: better than default in nDCG@10",
    ]
    assert (said["promoted"], said["new"]) == (True, True)
    out, said = printed(show_release, Release("nq", RECORD, new=False))
    assert out.startswith("release 2 of nq is current already: nq-000007")
    assert said["new"] is False
    out, said = printed(show_release, Held("nq", "nq-000007", "too few queries"))
    assert out.splitlines() == ["not promoted: nq-000007; there is no release yet", "because: too few queries"]
    assert said["promoted"] is False


def test_a_plan_that_asks_nothing_says_so() -> None:
    out, _ = printed(show_tier_plans, Plan((), "EUR", ()))
    assert out == "similarity judges alone (the configuration has no tiers), so judging costs no calls\n"
    out, _ = printed(show_tier_plans, Plan((TierPlan("llm", "exact", 0, 0, 0, 0, 0, 0.0, 0.0),), "EUR", ()))
    assert out.splitlines()[-1] == "llm: no pair was left open for it"


def test_a_plan_shows_what_is_known_and_a_question_mark_for_the_rest() -> None:
    plan = Plan(
        (
            TierPlan("llm", "exact", 54, 1054, 4, 12345, 50, 0.5, None, ("money: no price",)),
            TierPlan("strong", "unknown"),
        ),
        "EUR",
        ("budget.tokens: 400 are enough for 300",),
    )
    out, _ = printed(show_tier_plans, plan)
    rows = [cells(line) for line in out.splitlines() if line.startswith("│")]
    assert rows == [
        ["llm", "exact", "54", "1,054", "4", "12,345", "50", "0.5", "?"],
        ["strong", "unknown", "?", "?", "?", "?", "?", "?", "?"],
    ]
    assert out.splitlines()[-2:] == ["llm: money: no price", "budget.tokens: 400 are enough for 300"]
    assert "EUR" in out


def test_a_plan_shows_what_endpoints_are_paid_for_vectors() -> None:
    encoder = EncoderPlan("encoders.far", "exact", 1200, 200, 16, 250_000, 0, None, 0.005, ("hours: unknown",))
    out, _ = printed(show_tier_plans, Plan((), "EUR", ("budget.money: 1 are enough for 0.005",), (encoder,)))
    rows = [cells(line) for line in out.splitlines() if line.startswith("│")]
    assert ["encoders.far", "1,200", "200", "16", "250,000", "?", "0.005"] in rows
    assert "encoders.far: hours: unknown" in out
    assert out.splitlines()[-1] == "budget.money: 1 are enough for 0.005"
