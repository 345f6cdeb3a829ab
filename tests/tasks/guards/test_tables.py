"""Numbers of texts and figures as tables."""

import polars as pl

from tasks.guards.tables import GUARD_FIGURES, count_figures, number_texts
from tasks.texts import hash_text


def test_the_number_of_a_text_is_the_beginning_of_its_hash() -> None:
    hashes = [hash_text("otter"), "f" * 32, "0" * 32]
    frame = pl.DataFrame({"text_hash": hashes}).select(text=number_texts("text_hash"))
    assert frame["text"].dtype == pl.Int64
    assert frame["text"].to_list() == [int(text[:15], 16) for text in hashes]


def test_figures_are_rows_with_a_measure_or_an_example() -> None:
    made = count_figures("rows", {"pairs": 3}, [("a and b", 0.5)])
    assert made.schema == GUARD_FIGURES.empty().schema
    assert made.rows() == [("rows", "pairs", None, 3.0), ("rows", "example", "a and b", 0.5)]
