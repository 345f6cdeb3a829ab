"""The stages around escalation: what each part reads, and what a change computes again."""

from flows import stages
from flows.escalation_stages import ALLOT, COMPLETE, COUNT_OPEN, ESCALATE, TALLY
from flows.stage_names import section_of

PARTS = {"query_parts": 5, "passage_parts": 2, "known_split": "known"}


def test_they_are_in_the_table_and_configured_by_the_sections_that_people_write() -> None:
    assert all(stage in stages.STAGES for stage in (COUNT_OPEN, ALLOT, ESCALATE, TALLY, COMPLETE))
    assert [section_of(name) for name in ("count_open", "allot", "escalate", "tally")] == ["escalate"] * 3 + [
        "complete"
    ]
