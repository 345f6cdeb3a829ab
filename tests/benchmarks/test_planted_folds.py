"""The folds of the planted benchmark: of equal size, conversations whole, shared passages together."""

import numpy as np
import polars as pl

from benchmarks.planted_folds import FOLDS, deal, settle

PAIRS = {"query_id": pl.String, "doc_id": pl.String}


def relevant(rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def test_a_conversation_is_in_one_fold_and_the_folds_are_of_equal_size() -> None:
    ids = [f"c{n}<::>{turn}" for n in range(10) for turn in range(n % 3 + 1)]
    dealt = deal(pl.Series(ids), relevant([(one, f"p-{one}") for one in ids]))
    assert dealt.group_by("group").agg(pl.col("fold").n_unique())["fold"].to_numpy().max() == 1
    sizes = dealt.group_by("fold").len()["len"].to_numpy()
    assert len(sizes) == FOLDS and sizes.max() - sizes.min() <= 1


def test_queries_that_share_a_passage_are_in_one_fold() -> None:
    ids = [f"q{n:02}" for n in range(20)]
    rows = [(one, f"p{number % 7}") for number, one in enumerate(ids)]  # seven clusters of two or three
    dealt = deal(pl.Series(ids), relevant(rows))
    assert (
        relevant(rows).join(dealt, on="query_id").group_by("doc_id").agg(pl.col("fold").n_unique())["fold"].to_list()
        == [1] * 7
    )
    assert set(dealt.group_by("fold").len()["len"]) == {4} or dealt["fold"].n_unique() == FOLDS


def test_a_cluster_larger_than_a_fold_is_cut_where_it_shares_least() -> None:
    ids = [f"q{n:02}" for n in range(20)]
    rows = [(one, f"own-{number // 4}-{number % 4 // 2}-{k}") for number, one in enumerate(ids) for k in range(3)]
    rows += [(one, f"four-{number // 4}") for number, one in enumerate(ids)]
    rows += [(one, "all") for one in ids]
    dealt = deal(pl.Series(ids), relevant(rows))
    assert set(dealt.group_by("fold").len()["len"]) == {4}
    four = [set(dealt["fold"].to_list()[start : start + 4]) for start in range(0, 20, 4)]
    assert all(len(one) == 1 for one in four)


def test_the_deal_is_better_than_chance_and_the_same_again() -> None:
    rng = np.random.default_rng(1)
    ids = [f"q{n:03}" for n in range(100)]
    rows = [(one, f"p{int(rng.integers(0, 60))}") for one in ids for _ in range(3)]
    first, second = (deal(pl.Series(ids), relevant(rows)) for _ in range(2))
    assert first.equals(second)
    other = deal(pl.Series(ids), relevant(rows), 21)
    assert not other.equals(first) and set(other.group_by("fold").len()["len"]) == {20}
    by_chance = first.with_columns(fold=pl.Series(rng.permutation(first["fold"].to_numpy())))

    def shared(groups: pl.DataFrame) -> int:
        own = relevant(rows).unique().join(groups.select("query_id", "fold"), on="query_id")
        pairs = own.join(own, on="doc_id", suffix="_other").filter(pl.col("fold") != pl.col("fold_other"))
        return pairs.height

    assert shared(first) < 0.8 * shared(by_chance)


def test_a_passage_is_of_the_fold_of_most_queries_that_look_for_it_and_a_copy_of_the_same() -> None:
    groups = pl.DataFrame({"query_id": ["a", "b", "c"], "fold": [1, 4, 4]})
    rows = [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("a", "z"), ("b", "z-again"), ("c", "z-again")]
    ids = ["x", "y", "z", "z-again", *(f"n{number}" for number in range(10))]
    passages = pl.DataFrame({"doc_id": ids, "copy": [one.removesuffix("-again") for one in ids]})
    homes = dict(settle(passages, relevant(rows), groups).iter_rows())
    assert (homes["x"], homes["y"]) == (4, 1) and homes["z"] == homes["z-again"] == 4
    assert sorted(homes[f"n{number}"] for number in range(10)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert dict(settle(passages, relevant(rows), groups, 21).iter_rows()) != homes
