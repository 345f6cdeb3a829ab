"""The benchmark of a noisy source: what it writes, and how it reads a pruning."""

import json
from pathlib import Path

import pytest

from benchmarks.prune_noise import NONE, by_all_queries, figures, named, shuffled, write_rows

PAIRS = [(f"query {n}", f"text {n}") for n in range(12)]


def row(difference: float, p_value: float | None, dataset: str = "all") -> dict[str, object]:
    means = {"baseline": 0.5, "treatment": 0.5 + difference, "low": difference - 0.01, "high": difference + 0.01}
    return {
        "dataset": dataset,
        "measure": "nDCG@10",
        "queries": 40,
        "difference": difference,
        "p_value": p_value,
        **means,
    }


def test_every_query_of_the_noise_has_the_positive_of_another_one(tmp_path: Path) -> None:
    noise = shuffled(PAIRS)
    assert [query for query, _ in noise] == [query for query, _ in PAIRS]
    assert sorted(text for _, text in noise) == sorted(text for _, text in PAIRS)
    assert not set(noise) & set(PAIRS)
    write_rows(tmp_path / "rows.jsonl", {"clean": PAIRS, "dirty": PAIRS}, "dirty")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    told = [(r["query"], r["positive_passages"][0]["text"]) for r in rows]
    assert told == [*PAIRS, *noise]
    assert {r["subset"] for r in rows} == {"clean", "dirty"}


@pytest.mark.parametrize(
    ("verdicts", "noise", "found"),
    [
        ({"a": "helps", "b": "hurts"}, "b", True),
        ({"a": "hurts", "b": "hurts"}, "b", False),
        ({"a": "helps", "b": "teaches nothing"}, "b", True),
        ({"a": "teaches nothing", "b": "hurts"}, "b", False),
        ({"a": "helps", "b": "not shown"}, "b", False),
        ({"a": "helps", "b": "not shown"}, NONE, True),
        ({"a": "helps", "b": "hurts"}, NONE, False),
    ],
)
def test_the_noise_is_found_if_it_and_nothing_else_is_named(verdicts: dict[str, str], noise: str, found: bool) -> None:
    assert named({"verdicts": {"nDCG@10": verdicts}}, noise)["found"] is found


def test_what_all_queries_say_is_corrected_over_the_sources() -> None:
    summary = {"comparisons": {"a": [row(-0.1, 0.001)], "b": [row(0.1, 0.02)], "c": [row(0.1, None)]}}
    assert by_all_queries(summary) == ["b"]
    assert by_all_queries({"comparisons": {"a": [row(0.0, 0.5)], "b": [row(0.1, 0.03)]}}) == []


def test_figures_are_those_of_the_main_measure() -> None:
    other = {**row(0.2, 0.1, "a"), "measure": "R@100"}
    made = figures([row(0.123456, None), other])
    assert list(made) == ["all"]
    assert (made["all"]["difference"], made["all"]["p_value"]) == (0.1235, None)
