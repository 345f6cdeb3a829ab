"""Verdicts from a table: found by text, and everything else is left to the judges."""

from pathlib import Path

import polars as pl

from tasks.quality.imported import COLUMNS, FILE, ImportedConfig, import_verdicts, settle_verdicts, split_imported
from tasks.schemas import CANDIDATES, VERDICTS
from tasks.texts import hash_text

Q, R, A, B, C = (hash_text(name) for name in "qrabc")


def rows(*values: tuple[str | None, str | None, str | None, float | None]) -> pl.LazyFrame:
    return pl.DataFrame(values, schema=COLUMNS, orient="row").lazy()


def candidates(*pairs: tuple[str, str, str]) -> pl.DataFrame:
    made = [("d", query, text, text, query_hash, "p", "given", 1, None) for query, query_hash, text in pairs]
    return pl.DataFrame(made, schema=CANDIDATES.columns, orient="row")


def test_one_row_per_pair_is_kept_and_the_others_are_counted() -> None:
    table, left_out = settle_verdicts(
        rows(
            (Q, A, "relevant", 0.8),
            (Q, A, "relevant", 0.6),
            (Q, B, "not_relevant", None),
            (Q, C, "relevant", None),
            (Q, C, "not_relevant", None),
            (R, A, "unsure", float("nan")),
            (R, B, "yes", None),
            (R, C, None, None),
            (None, A, "relevant", None),
            ("short", A, "relevant", None),
            (R, C, "relevant", 1.5),
        )
    )
    assert dict(table.schema) == COLUMNS
    assert sorted(table.rows()) == sorted([(Q, A, "relevant", 0.7), (Q, B, "not_relevant", 0.0), (R, A, "unsure", 0.5)])
    assert left_out == {"bad_score": 1, "contradiction": 2, "no_hash": 2, "unknown_state": 2}


def test_candidates_get_the_verdict_of_their_texts_and_the_others_are_left(tmp_path: Path) -> None:
    table, _ = settle_verdicts(rows((Q, A, "relevant", None), (Q, B, "not_relevant", 0.1), (R, C, "relevant", None)))
    table.write_parquet(tmp_path / FILE)
    asked = candidates(("q1", Q, A), ("q2", Q, A), ("q1", Q, B), ("q1", Q, C), ("q3", R, A))
    queries = pl.DataFrame({"text_hash": [Q, R], "part": [3, 0]}, schema_overrides={"part": pl.Int32})
    rows_of = dict(split_imported(ImportedConfig(), source=tmp_path, queries=queries)["rows"])
    assert {part: found["query_hash"].to_list() for part, found in rows_of.items()} == {0: [R], 3: [Q, Q]}
    assert all(dict(found.schema) == COLUMNS for found in rows_of.values())
    made = import_verdicts(ImportedConfig(), candidates=asked, rows=pl.concat(rows_of.values()))
    assert dict(made["verdicts"].schema) == VERDICTS.columns
    assert made["verdicts"].select("query_id", "doc_id", "tier", "judge", "state", "score").rows() == sorted(
        [
            ("q1", A, "imported", "imported", "relevant", 1.0),
            ("q1", B, "imported", "imported", "not_relevant", 0.1),
            ("q2", A, "imported", "imported", "relevant", 1.0),
        ]
    )
    assert made["left"].select("query_id", "doc_id").rows() == [("q1", C), ("q3", A)]
    assert made["verdicts"]["call_id"].null_count() == 3
