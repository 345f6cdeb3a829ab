"""Scores and provenance of passages: of the decision, of the label alone, of a teacher."""

import pytest

from tasks import schemas
from tasks.data.writing import scores as module
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.scores import Evidence, mark
from tests.tasks.data.writing.sets import decided, pairs, teacher
from tests.tasks.records import mutable_records

NAMES = ("new", "old", "unread", "people", "unasked")
PAIRS = pairs(schemas.KNOWN, *(("d", "q", name) for name in NAMES))
EVIDENCE = Evidence(
    positives=pairs(schemas.POSITIVES, ("d", "q", "old")),
    negatives=pairs(schemas.NEGATIVES, ("d", "q", "new"), ("d", "q", "unread")),
    decisions=decided(
        ("d", "q", "new", "model/1", "relevant", 0.9),
        ("d", "q", "old", "model/1", "not_relevant", 0.2),
        ("d", "q", "unread", "model/1", "unparsed", None),
        ("d", "q", "people", "human:2", "relevant", 1.0),
    ),
)


def test_the_soft_label_is_the_decisions_score_or_the_labels_own_value() -> None:
    config = ExportConfig(soft_labels="decision", provenance=True)
    found = mark(config, EVIDENCE, PAIRS, positive=True)
    assert found.select("doc_id", "score", "decided_by", "origin").rows() == [
        ("new", 0.9, "judge", "negative"),
        ("old", 1.0, "label", "positive"),
        ("unread", None, "nobody", "negative"),
        ("people", 1.0, "human", "pool"),
        ("unasked", 1.0, "label", "pool"),
    ]
    negative = mark(config, EVIDENCE, PAIRS, positive=False)
    assert negative["score"].to_list() == [0.9, 0.0, None, 1.0, 0.0]
    assert "decided_by" not in mark(ExportConfig(soft_labels="decision"), EVIDENCE, PAIRS, positive=True).columns


def test_a_teachers_score_goes_with_the_pair_whatever_its_side() -> None:
    evidence = Evidence(teacher=teacher(("d", "q", "new", 12.5)))
    for positive in (True, False):
        found = mark(ExportConfig(soft_labels="teacher"), evidence, PAIRS, positive=positive)
        assert found["score"].to_list() == found["teacher"].to_list() == [12.5, None, None, None, None]
    assert mark(ExportConfig(soft_labels="teacher"), Evidence(), PAIRS, positive=True)["score"].null_count() == len(
        NAMES
    )
    assert mark(ExportConfig(), Evidence(), PAIRS, positive=True).equals(PAIRS)


@pytest.mark.parametrize(
    ("lacks", "setting"), [("decisions", {"soft_labels": "decision"}), ("negatives", {"provenance": True})]
)
def test_a_table_that_the_settings_need_must_be_given(lacks: str, setting: dict[str, object]) -> None:
    given = {name: getattr(EVIDENCE, name) for name in ("positives", "negatives", "decisions") if name != lacks}
    with pytest.raises(ValueError, match=f"need the table `{lacks}`, and none was given"):
        mark(ExportConfig.model_validate(setting), Evidence(**given), PAIRS, positive=True)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(module) == set()
