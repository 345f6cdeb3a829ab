"""Examples of the report: which queries and passages are shown, in which order."""

import polars as pl

from tasks import schemas
from tasks.report.examples import pick_examples
from tests.tasks.report.tables import rows, toy_tables, verdicts


def test_an_example_shows_positives_then_relabelled_then_unsure_then_kept() -> None:
    tables = toy_tables()
    tables["decisions"] = verdicts(
        "cascade", ("q1", "d2", "relevant", 0.9), ("q1", "d3", "unsure", 0.5), ("q1", "d4", "not_relevant", 0.2)
    )
    (example,) = pick_examples(
        queries=tables["queries"],
        passages=tables["passages"],
        positives=tables["positives"],
        verdicts=pl.concat([tables["llm_verdicts"], tables["decisions"]]),
        edits=tables["edits"],
        known=rows(schemas.KNOWN, ("toy", "q1", "d2")),
        limit=3,
    )
    assert [(p.doc_id, p.fate) for p in example.positives] == [("d1", "positive")]
    assert [(p.doc_id, p.fate, p.picked, p.known) for p in example.candidates] == [
        ("d2", "relabelled", True, True),
        ("d3", "unsure", False, False),
        ("d4", "kept", False, False),
    ]
    assert example.candidates[0].scores == {"cascade": 0.9, "llm": 0.95}
