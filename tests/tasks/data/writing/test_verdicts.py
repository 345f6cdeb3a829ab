"""The verdict layer as files: one row for each verdict, with the decision and the candidate beside it."""

import csv
from pathlib import Path

import polars as pl

from tasks import schemas
from tasks.data.writing import verdicts as module
from tasks.data.writing.verdicts import COLUMNS, VerdictPart, write_verdicts
from tests.tasks.data.writing.sets import decided, pairs
from tests.tasks.records import mutable_records


def _part(query: str, doc: str = '"d"') -> VerdictPart:
    candidate = ("d", query, doc, "h", "h", "h", "dense", 3, 0.5)
    return VerdictPart(
        candidates=pairs(schemas.CANDIDATES, candidate, ("d", query, "e", "h", "h", "h", "given", 1, None)),
        verdicts=pairs(
            schemas.VERDICTS,
            ("d", query, doc, "similarity", "s", "unsure", 0.6),
            ("d", query, "e", "similarity", "s", "not_relevant", 0.1),
            ("d", query, doc, "llm", "m", "unparsed", None, None, None, "call-1"),
        ),
        decisions=decided(("d", query, doc, "human:2", "relevant", 1.0), ("d", query, "e", "s", "not_relevant", 0.1)),
    )


def test_each_verdict_is_a_row_with_the_decision_beside_it(tmp_path: Path) -> None:
    assert write_verdicts(tmp_path, [_part("q1"), _part("q2")]) == {"rows": 10, "pairs": 4}
    frame = pl.read_parquet(tmp_path / "verdicts.parquet")
    assert frame.columns == list(COLUMNS)
    names = ["query_id", "doc_id", "tier", "state", "score", "p", "decision", "why", "call_id", "rank", "mining_score"]
    assert frame.select(names).rows()[:5] == [
        ("q1", "e", "similarity", "not_relevant", 0.1, 0.1, "not_relevant", "judge", None, 1, None),
        ("q1", "e", "cascade", "not_relevant", 0.1, 0.1, "not_relevant", "judge", None, 1, None),
        ("q1", '"d"', "similarity", "unsure", 0.6, 1.0, "relevant", "human", None, 3, 0.5),
        ("q1", '"d"', "llm", "unparsed", None, 1.0, "relevant", "human", "call-1", 3, 0.5),
        ("q1", '"d"', "cascade", "relevant", 1.0, 1.0, "relevant", "human", None, 3, 0.5),
    ]
    with (tmp_path / "verdicts.tsv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert [row["doc_id"] for row in rows] == frame["doc_id"].to_list()
    assert [float(row["score"]) if row["score"] else None for row in rows] == frame["score"].to_list()


def test_every_column_is_documented_beside_the_files(tmp_path: Path) -> None:
    write_verdicts(tmp_path, [])
    readme = (tmp_path / "README.md").read_text()
    assert all(f"| `{name}` | " in readme for name in COLUMNS)
    assert "0 verdicts on 0 pairs" in readme
    assert pl.read_parquet(tmp_path / "verdicts.parquet").height == 0
    assert (tmp_path / "verdicts.tsv").read_text() == "\t".join(COLUMNS) + "\n"


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(module) == set()
