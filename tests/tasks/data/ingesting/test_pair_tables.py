"""Tables of queries and pairs are cut by the parts of the queries, with ids and hashes joined."""

from typing import Any

import polars as pl
import pytest

from tasks import schemas
from tasks.data.ingesting import pair_tables, records
from tasks.data.ingesting.pair_tables import PairTables, held_out_absent
from tasks.data.ingesting.passage_texts import hash_shown_texts
from tasks.data.ingesting.text_store import hash_titled
from tasks.data.on_disk.scratch import Scratch, Spill
from tasks.texts import hash_guard, hash_passage, hash_shown

_TEXTS = [("", "One"), ("t", "two"), ("", "three")]


def _tables() -> PairTables:
    frame = pl.DataFrame(_TEXTS, schema=["title", "text"], orient="row")
    spill = Spill(Scratch(), "texts")
    spill.append(frame)
    high, low = hash_titled(frame)
    passages = pl.DataFrame({"id": ["a", "b", "c"], "high": high, "low": low})
    named = pl.DataFrame({"number": [0, 1], "place": [0, 1]}, schema={"number": pl.UInt32, "place": pl.UInt32})
    queries = [(7, 2, "d", "q7"), (4, 0, "d", "q4"), (5, 0, "d", "q5")]
    schema = {"query": pl.UInt32, "part": pl.UInt32, "dataset": pl.String, "query_id": pl.String}
    kept = pl.DataFrame(queries, schema=schema, orient="row")
    return PairTables(kept, passages, hash_shown_texts(spill, named), 3)


def _pairs(*pairs: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"query": pl.UInt32, "passage": pl.UInt32}, orient="row")


def test_pairs_come_by_part_with_ids_and_hashes_and_those_of_other_queries_are_left_out() -> None:
    frame = _pairs((7, 1), (5, 1), (4, 0), (9, 0)).with_columns(source=pl.lit("label"))
    parts = list(_tables().parts(frame, schemas.POSITIVES))
    assert [part.height for part in parts] == [2, 0, 1]
    assert all(dict(part.schema) == schemas.POSITIVES.columns for part in parts)
    assert parts[0].select("query_id", "doc_id").rows() == [("q4", "a"), ("q5", "b")]
    hashes = [hashed(*_TEXTS[1]) for hashed in (hash_passage, hash_shown, hash_guard)]
    assert parts[2].row(0) == ("d", "q7", "b", *hashes, "label")


def test_parts_are_the_same_however_many_are_joined_together(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = _pairs((7, 1), (7, 0), (5, 1), (4, 0), (9, 0)).with_columns(source=pl.lit("label"))
    together = list(_tables().parts(frame, schemas.POSITIVES))
    joined = list[int]()
    whole = PairTables._joined

    def counted(self: PairTables, rows: pl.DataFrame, *others: Any) -> pl.DataFrame:
        joined.append(rows.height)
        return whole(self, rows, *others)

    monkeypatch.setattr(PairTables, "_joined", counted)
    assert [part.rows() for part in _tables().parts(frame, schemas.POSITIVES)] == [part.rows() for part in together]
    assert joined == [4]
    monkeypatch.setattr(pair_tables, "_ROWS", 2)
    alone = list(_tables().parts(frame, schemas.POSITIVES))
    assert [part.rows() for part in alone] == [part.rows() for part in together]
    assert [part.height for part in alone] == [2, 0, 2]
    assert joined == [4, 2, 2]


def test_tables_without_hashes_need_none() -> None:
    frame = _pairs((4, 2), (7, 2)).with_columns(relevance=pl.lit(1.0))
    found = _tables().table(frame, schemas.QRELS)
    assert found.rows() == [("d", "q4", "c", 1), ("d", "q7", "c", 1)]


def test_tables_of_queries_alone_are_cut_too() -> None:
    frame = pl.DataFrame({"query": [7], "name": ["prompt"], "value": ["x"]}, schema_overrides={"query": pl.UInt32})
    parts = list(_tables().parts(frame, schemas.EXTRAS))
    assert [part.rows() for part in parts] == [[], [], [("d", "q7", "prompt", "x")]]


def test_judgements_of_passages_that_are_not_there_stand_beside_the_others() -> None:
    there = _pairs((4, 2), (7, 2)).with_columns(relevance=pl.lit(1.0))
    absent = pl.DataFrame([(7, "away", 2.0), (9, "far", 1.0)], schema=records.ABSENT, orient="row")
    found = _tables().judged(there, absent)
    assert found.rows() == [("d", "q4", "c", 1), ("d", "q7", "away", 2), ("d", "q7", "c", 1)]


def test_only_what_is_judged_in_the_split_of_a_held_out_query_counts_and_the_highest_of_each_pair() -> None:
    columns = {"number": pl.UInt32, "canonical": pl.UInt32, "given": pl.String, "split": pl.String}
    rows = [(0, 0, "test", "test"), (1, 0, "test", "test"), (2, 2, None, "train"), (3, 3, None, "test")]
    queries = pl.DataFrame(rows, schema=columns, orient="row")
    test = pl.DataFrame([(0, "a", 1.0), (1, "a", 2.0)], schema=records.ABSENT, orient="row")
    train = pl.DataFrame([(0, "b", 1.0), (2, "c", 1.0), (3, "e", 1.0)], schema=records.ABSENT, orient="row")
    assert held_out_absent({"train": train, "test": test}, queries).rows() == [(0, "a", 2.0), (3, "e", 1.0)]
    assert held_out_absent({}, queries).is_empty()
