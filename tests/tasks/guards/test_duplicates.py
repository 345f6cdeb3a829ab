"""Passages meet in buckets and in pairs, whatever the parts, and texts are asked for where they are."""

import polars as pl

from tasks.guards.config import SketchConfig
from tasks.guards.duplicates import pair_texts, scatter, scatter_by_holder, sketch_passages
from tasks.guards.sketches import BANDS
from tasks.guards.tables import BANDS as BAND_TABLE
from tasks.schemas import PASSAGES
from tasks.texts import part_of
from tests.tasks.guards.edits import edited, generated
from tests.tasks.guards.tables import find_near, gathered, passages_of

CONFIG = SketchConfig(shards=3, generations=(2,))
TEXTS = {f"p{number}": text for number, text in enumerate(generated(60))}
COPIES = {f"copy{number}": edited(TEXTS[f"p{number}"], 0.05, number) for number in range(0, 60, 3)}


def test_every_passage_is_in_a_bucket_of_each_band() -> None:
    made = sketch_passages(CONFIG, passages=passages_of(TEXTS))
    bands = list(made["bands"])
    assert sum(frame.height for _, frame in bands) == BANDS * len(TEXTS)
    for shard, frame in bands:
        assert frame.schema == BAND_TABLE.empty().schema
        assert (frame["key"] % CONFIG.shards == shard).all()


def test_nothing_comes_of_an_empty_part() -> None:
    assert list(sketch_passages(CONFIG, passages=PASSAGES.empty())["bands"]) == []
    made = pair_texts(CONFIG, bands=BAND_TABLE.empty())
    assert [*made["pairs"], *made["wanted"]] == []


def test_planted_copies_are_found_and_nothing_else_and_the_parts_make_no_difference() -> None:
    passages = passages_of(TEXTS | COPIES)
    whole = find_near([passages], 0.6, shards=1)
    named = {tuple(sorted(pair)) for pair in whole.select("left_doc_id", "right_doc_id").iter_rows()}
    assert named == {(f"copy{number}", f"p{number}") for number in range(0, 60, 3)}
    shuffled = passages.sample(fraction=1, shuffle=True, seed=1)
    parts = [shuffled[:20], shuffled[20:21], PASSAGES.empty(), shuffled[21:]]
    for shards in (1, 3, 8):
        assert find_near(parts, 0.6, shards=shards).equals(whole)


def test_a_text_of_two_datasets_is_one_text() -> None:
    both = [passages_of({"a": TEXTS["p0"]}), passages_of({"b": TEXTS["p0"], "c": COPIES["copy0"]}, "other")]
    found = find_near(both, 0.6, shards=2)
    assert found.height == 1
    assert {found["left_doc_id"][0], found["right_doc_id"][0]} == {"a", "c"}


def test_a_bucket_of_thousands_makes_no_more_pairs_than_texts_times_neighbours() -> None:
    alike = {f"p{number}": f"{TEXTS['p1']} {number}" for number in range(600)}
    made = sketch_passages(SketchConfig(), passages=passages_of(alike))
    ((_, bands),) = made["bands"]
    pairs = list(pair_texts(SketchConfig(), bands=bands)["pairs"])
    assert sum(frame.height for _, frame in pairs) <= 9 * BANDS * len(alike)


def test_texts_are_wanted_from_the_part_of_each_generation_that_may_hold_them() -> None:
    made = pair_texts(
        SketchConfig(shards=2, generations=(5, 3)),
        bands=gathered(sketch_passages(SketchConfig(), passages=passages_of(TEXTS | COPIES)), "bands", 0, BAND_TABLE),
    )
    wanted = [(index, row) for index, frame in made["wanted"] for row in frame.iter_rows(named=True)]
    assert wanted
    for index, row in wanted:
        assert index in (part_of(row["text_hash"], 5), 5 + part_of(row["text_hash"], 3))
    pairs = pl.concat([frame.with_columns(shard=pl.lit(shard)) for shard, frame in made["pairs"]])
    needed = {(row["shard"], row[side]) for row in pairs.iter_rows(named=True) for side in ("left_hash", "right_hash")}
    assert {(row["part"], row["text_hash"]) for _, row in wanted} == needed


def test_rows_are_scattered_sorted_and_parts_of_hashes_are_those_of_ingest() -> None:
    frame = pl.DataFrame({"x": [5, 2, 4, 1]})
    assert [(index, piece["x"].to_list()) for index, piece in scatter(frame, pl.col("x") % 2, ["x"])] == [
        (0, [2, 4]),
        (1, [1, 5]),
    ]
    wanted = passages_of(TEXTS).select("dataset", "doc_id", "text_hash", part=pl.lit(7, dtype=pl.Int32))
    for index, piece in scatter_by_holder(wanted, (7,)):
        assert {part_of(text_hash, 7) for text_hash in piece["text_hash"]} == {index}
