"""The files of the judges of a mined run: a score for each pair of the pools, and for no other."""

from pathlib import Path

import polars as pl

from benchmarks import paper_size_data as data
from benchmarks.paper_size_mined import write_scores
from benchmarks.paper_size_parts import Part
from infra.storage.store import Store
from infra.storage.tables import write_table
from tasks import schemas


def test_each_pair_of_the_mined_pools_has_a_score_of_each_judge(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    pools = [[("q1", "7"), ("q1", "9")], [("q20", "7")]]
    parts = []
    for number, pairs in enumerate(pools):
        rows = [("d", query, doc, "", "", "", "dense", 1, 0.5) for query, doc in pairs]
        frame = pl.DataFrame(rows, schema=schemas.CANDIDATES.columns, orient="row")
        piece = write_table(store, "candidates", frame, schemas.CANDIDATES, number)
        parts.append(Part("mine", "map", number, number, f"k{number}", tables={"candidates": (piece,)}))
    write_scores(tmp_path, store, [*parts, Part("adopt", "map", 0, 0, "other")])
    for name in data.JUDGES:
        found = pl.read_parquet(tmp_path / f"{name}.parquet")
        assert found.select("query_id", "doc_id").rows() == [pair for pairs in pools for pair in pairs]
        assert found["dataset"].unique().to_list() == ["d"]
        assert found["score"].is_between(0, 1).all()
