"""The subset of the queries: exact, stratified, nested, and independent of the order of the files."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from tasks.data.ingest import IngestError
from tasks.data.subset import SubsetConfig, draw_passages, draw_queries, kept_of
from tasks.texts import hash_text
from tests.tasks.data.inputs import ingest_parts, row_of, write_beir, write_lines

# Table 10 of the paper: training queries of each dataset in the 100K, 250K and 400K subsets, and all of them.
PAPER = {
    "msmarco_passage": (49_571, 145_000, 210_000, 485_823),
    "hotpotqa": (10_250, 30_000, 84_516, 84_516),
    "nq": (6_110, 30_000, 58_568, 58_568),
    "fever": (8_017, 28_755, 28_755, 28_755),
    "scidocsrr": (12_654, 12_654, 12_654, 12_654),
    "fiqa": (5_500, 5_500, 5_500, 5_500),
    "arguana": (4_065, 4_065, 4_065, 4_065),
}


def queries_of(sizes: dict[str, int], split: str = "train") -> pl.DataFrame:
    rows = [(name, hash_text(f"{name} {n}"), split) for name, size in sizes.items() for n in range(size)]
    return pl.DataFrame(rows, schema=["dataset", "text_hash", "split"], orient="row")


def drawn(queries: pl.DataFrame, **subset: Any) -> set[str]:
    return set(queries.filter(draw_queries(SubsetConfig(**subset), queries).kept)["text_hash"])


def test_the_subsets_of_the_paper_are_drawn_by_name_with_their_exact_sizes_and_lie_within_each_other() -> None:
    scale = 20  # a twentieth of the paper's sizes
    sizes = [{name: counts[column] // scale for name, counts in PAPER.items()} for column in range(4)]
    queries = queries_of(sizes[3])
    subsets = [drawn(queries, by_dataset=named) for named in sizes]
    for named, subset in zip(sizes, subsets, strict=True):
        counted = Counter(queries.filter(pl.col("text_hash").is_in(list(subset)))["dataset"])
        assert counted == named
    assert subsets[0] < subsets[1] < subsets[2] < subsets[3]


@settings(max_examples=50, deadline=None)
@given(
    sizes=some.dictionaries(some.sampled_from("abcdef"), some.integers(1, 60), min_size=1),
    rows=some.tuples(some.integers(1, 200), some.integers(1, 200)),
    seed=some.integers(0, 5),
    shuffled=some.integers(0, 5),
)
def test_a_subset_is_exact_proportional_nested_and_independent_of_the_order(
    sizes: dict[str, int], rows: tuple[int, int], seed: int, shuffled: int
) -> None:
    queries, total = queries_of(sizes), sum(sizes.values())
    small, large = (drawn(queries, rows=count, seed=seed) for count in sorted(rows))
    assert small <= large
    assert len(small) == min(total, *rows)
    assert drawn(queries.sample(fraction=1, shuffle=True, seed=shuffled), rows=min(rows), seed=seed) == small
    counted = Counter(queries.filter(pl.col("text_hash").is_in(list(small)))["dataset"])
    for name, size in sizes.items():
        assert abs(counted[name] - size * len(small) / total) < 1 + len(sizes) / 2


def test_another_seed_draws_other_queries_and_equal_texts_of_two_datasets_are_told_apart() -> None:
    queries = queries_of({"a": 200})
    assert drawn(queries, rows=20, seed=1) != drawn(queries, rows=20, seed=2)
    twice = pl.concat([queries, queries.with_columns(dataset=pl.lit("b"))])
    assert draw_queries(SubsetConfig(rows=20), twice).kept.sum() == 20


def test_named_datasets_get_their_sizes_and_the_others_share_the_rest() -> None:
    queries = queries_of({"a": 100, "b": 100, "c": 300})
    kept = queries.filter(draw_queries(SubsetConfig(rows=100, by_dataset={"a": 60}), queries).kept)
    assert Counter(kept["dataset"]) == {"a": 60, "b": 10, "c": 30}
    whole = queries.filter(draw_queries(SubsetConfig(by_dataset={"a": 60}), queries).kept)
    assert Counter(whole["dataset"]) == {"a": 60, "b": 100, "c": 300}


def test_what_is_left_out_is_counted_by_dataset_and_so_is_a_dataset_that_is_too_small() -> None:
    queries = pl.concat([queries_of({"a": 10, "b": 3}), queries_of({"a": 4}, "test")])
    rejects = draw_queries(SubsetConfig(by_dataset={"a": 4, "b": 5}, held_out=1), queries).rejects
    assert rejects.rows() == [
        ("a", "not_in_subset", "3 of 4 held-out queries are not drawn (ingest.subset)"),
        ("a", "not_in_subset", "6 of 10 training queries are not drawn (ingest.subset)"),
        ("b", "subset_too_small", "5 training queries wanted (ingest.subset.by_dataset), 3 are there; all are kept"),
    ]


def test_a_dataset_that_is_not_there_and_sizes_beyond_the_whole_are_refused() -> None:
    with pytest.raises(IngestError, match=r"by_dataset names msmarco; the datasets of the source are a$"):
        draw_queries(SubsetConfig(by_dataset={"msmarco": 5}), queries_of({"a": 10}))
    with pytest.raises(ValidationError, match=r"by_dataset adds up to 8, more than rows \(5\)"):
        SubsetConfig(rows=5, by_dataset={"a": 8})


def test_passages_beside_the_named_ones_are_drawn_by_text() -> None:
    passages = queries_of({"a": 50}).drop("split")
    named = pl.Series([n < 5 for n in range(50)])
    kept = draw_passages(SubsetConfig(rows=1, passages=10), passages, named, corpus=True)
    assert (kept.sum(), named.sum(), (kept & named).sum()) == (15, 5, 5)
    assert draw_passages(SubsetConfig(rows=1), passages, named, corpus=True).all()
    assert draw_passages(SubsetConfig(rows=1), passages, named, corpus=False).equals(named)


def tables(source: Path, **config: Any) -> dict[str, Any]:
    made = ingest_parts(source, **config)
    return {name: pl.concat(found) if isinstance(found, list) else found for name, found in made.items()}


def test_ingest_keeps_the_drawn_rows_and_only_the_passages_that_these_name(tmp_path: Path) -> None:
    rows = [row_of(f"q{n}", f"p{n}", f"n{n} shared") for n in range(20)]
    write_lines(tmp_path / "one" / "a.jsonl", *rows)
    write_lines(tmp_path / "two" / "b.jsonl", *reversed(rows))
    first, second = (tables(tmp_path / name, subset={"rows": 5}) for name in ("one", "two"))
    kept = sorted(first["queries"]["query_id"])
    assert len(kept) == 5
    assert kept == sorted(second["queries"]["query_id"])
    wanted = {"shared"} | {f"{kind}{query[1:]}" for query in kept for kind in "pn"}
    assert set(first["passages"]["doc_id"]) == set(second["passages"]["doc_id"]) == wanted
    for name in ("positives", "given"):
        assert set(first[name]["query_id"]) == set(kept)
    said = first["rejects"].filter(pl.col("reason") == "not_in_subset").rows()
    assert said == [("ingest", "d", "not_in_subset", "15 of 20 training queries are not drawn (ingest.subset)")]
    there = {"train": {"d": 20}, "test": {}, "passages": 41}
    assert {**first["facts"], **there} == first["facts"]
    more = tables(tmp_path / "one", subset={"rows": 5, "passages": 7})
    assert more["passages"].equals(first["passages"]), "all rows bring negatives, so nothing else is read"


def test_a_corpus_stays_whole_unless_it_is_cut(tmp_path: Path) -> None:
    documents = {f"d{n}": f"text {n}" for n in range(30)}
    queries = {f"q{n}": f"about {n}" for n in range(10)}
    write_beir(
        tmp_path,
        documents,
        queries,
        train=",".join(f"q{n} d{n} 1" for n in range(8)),
        test="q8 d8 1,q8 d18 0,q9 d9 1",
    )
    whole = tables(tmp_path, subset={"rows": 3})
    assert (whole["passages"].height, whole["queries"].height) == (30, 5)
    cut = tables(tmp_path, subset={"rows": 3, "held_out": 1, "passages": 4})
    assert sorted(cut["queries"]["split"]) == ["test", "train", "train", "train"]
    named = {*cut["positives"]["doc_id"], *cut["qrels"]["doc_id"]}
    assert named < set(cut["passages"]["doc_id"])
    assert cut["passages"].height == len(named) + 4
    there = {"train": {"d": 8}, "test": {"d": 2}, "passages": 30}
    assert {**cut["facts"], **there} == cut["facts"]


def test_rows_to_be_mined_get_passages_beside_their_own(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{n}", f"p{n}") for n in range(20)))
    assert tables(tmp_path, subset={"rows": 5})["passages"].height == 5
    assert tables(tmp_path, subset={"rows": 5, "passages": 7})["passages"].height == 12


@settings(max_examples=30, deadline=None)
@given(
    sizes=some.dictionaries(some.sampled_from("abcd"), some.integers(1, 20), min_size=1),
    rows=some.none() | some.integers(30, 60),
    named=some.integers(1, 25),
)
def test_the_size_of_a_subset_is_known_from_the_sizes_of_the_datasets(
    sizes: dict[str, int], rows: int | None, named: int
) -> None:
    subset = SubsetConfig(rows=rows, by_dataset={min(sizes): named})
    assert kept_of(subset, sizes) == draw_queries(subset, queries_of(sizes)).kept.sum()
    assert kept_of(None, sizes) == sum(sizes.values())


def test_a_cut_corpus_keeps_the_passages_that_people_called_irrelevant(tmp_path: Path) -> None:
    documents = {f"d{n}": f"text {n}" for n in range(40)}
    queries = {f"q{n}": f"about {n}" for n in range(10)}
    lines = ",".join(f"q{n} d{n} 1,q{n} d{n + 20} 0" for n in range(10))
    write_beir(tmp_path, documents, queries, train=lines)
    cut = tables(tmp_path, test_split=None, subset={"rows": 3, "passages": 0})
    assert cut["irrelevant"].height == 3
    assert set(cut["irrelevant"]["doc_id"]) <= set(cut["passages"]["doc_id"])
    assert set(cut["irrelevant"]["query_id"]) == set(cut["queries"]["query_id"])
    assert cut["passages"].height == 6
