"""The demo corpus: queries are summary lines, positives the rest of the documentation."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from tasks.data import demo_corpus as demo_corpus_module
from tasks.data.demo_corpus import (
    MODULES,
    HarvestConfig,
    HarvestError,
    _check_counts,
    _write_lines,
    group_passages,
    harvest,
    is_query,
    select,
)
from tasks.data.docstring_text import read_docstring, words
from tasks.data.installed_docs import find_documentation
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

SMALL = HarvestConfig(
    modules=("numpy", "numpy.ma", "numpy.random"),
    passages=200,
    train_queries=12,
    train_shared=5,
    test_queries=12,
    test_shared=5,
)
LITERAL = HarvestConfig(min_chars=1, passages=3, train_queries=1, train_shared=1, test_queries=1, test_shared=0)
Judged = dict[str, list[str]]


def _lines(path: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row.get("title", "") == "" for row in rows)
    return {row["_id"]: row["text"] for row in rows}


def _judged(path: Path) -> Judged:
    header, *lines = path.read_text().splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    judged: Judged = defaultdict(list)
    for line in lines:
        query, doc, score = line.split("\t")
        assert score == "1"
        judged[query].append(doc)
    return judged


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source")
    assert harvest(SMALL, out=out) == {}
    return out


def test_a_small_corpus_has_what_was_asked_for(small: Path) -> None:
    counts = json.loads((small / "harvest.json").read_text())["counts"]
    train, test = _judged(small / "qrels/train.tsv"), _judged(small / "qrels/test.tsv")
    known = _judged(small / "qrels/known.tsv")
    assert len(_lines(small / "corpus.jsonl")) == counts["passages"] == 200
    assert set(_lines(small / "queries.jsonl")) == train.keys() | test.keys()
    assert (len(train), len(test), len(known)) == (12, 12, 5)
    assert [len(docs) for docs in train.values()] == [1] * 12
    assert sum(len(docs) > 1 for docs in test.values()) == 5


def test_all_passages_of_a_query_are_in_the_corpus_and_none_is_judged_twice(small: Path) -> None:
    corpus = _lines(small / "corpus.jsonl")
    judged = [_judged(small / f"qrels/{name}.tsv") for name in ("train", "test", "known")]
    docs = [doc for table in judged for found in table.values() for doc in found]
    assert len(docs) == len(set(docs))
    assert set(docs) <= corpus.keys()
    assert judged[0].keys() & judged[1].keys() == set()


def test_the_same_libraries_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    harvest(SMALL, out=tmp_path)
    files = sorted(path.relative_to(small) for path in small.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path for path in files if (small / path).read_bytes() != (tmp_path / path).read_bytes()] == []


def test_one_passage_of_a_shared_summary_is_labelled_and_the_others_are_known() -> None:
    documented = {
        "Take the first rows.\n\nOf a frame.": ["a.Frame.head"],
        "Take the first rows.\n\nOf a series.": ["a.Series.head"],
        "Count all the values.\n\nNulls too.": ["a.count"],
        "Count no values.\n\nIt is a filler.": ["a.none"],
    }
    groups, counts = group_passages(documented, LITERAL)
    chosen = select(groups, LITERAL)
    assert [sorted(it.doc_id for it in group) for group in chosen.train] == [["a.Frame.head", "a.Series.head"]]
    assert [[it.doc_id for it in group] for group in chosen.test] == [["a.count"]]
    assert [it.doc_id for it in chosen.passages] == ["a.Frame.head", "a.Series.head", "a.count"]
    assert (counts["summaries"], counts["shared_summaries"]) == (3, 1)


def test_identical_texts_are_one_passage_under_the_shortest_name() -> None:
    documented = {"Sum the values up.\n\nFast.": ["torch.torch.sum", "np.sum"], "sum the values up\n\nFast.": ["np.s"]}
    groups, counts = group_passages(documented, LITERAL)
    assert [[(it.doc_id, it.names) for it in group] for group in groups] == [[("np.s", 3)]]
    assert counts["texts_with_several_names"] == 1


@pytest.mark.parametrize(
    ("documented", "reason"),
    [
        ({"Sum the values.\n\nWill sum  the VALUES up.": ["a"]}, "tells_summary"),
        ({"Sum the values.\n\nFast.": ["a"], "Add the values.\n\nFast.": ["b"]}, "two_summaries"),
        ({"Sum the values.\n\nUses <object at 0x7f75eb960f70>.": ["a"]}, "without_prose"),
        ({"Sum the values.": ["a"]}, "short"),
        ({f"Sum the values.\n\nCase {case}.": [str(case)] for case in range(7)}, "widely_shared"),
    ],
)
def test_unfit_passages_are_left_out_and_counted(documented: dict[str, list[str]], reason: str) -> None:
    groups, counts = group_passages(documented, LITERAL)
    assert groups == []
    assert counts[reason] > 0


@pytest.mark.parametrize(
    "summary", ["Return x.", "See torch.abs for more of it.", "Alias for the other one.", r"Computes \sin of x now."]
)
def test_summaries_that_say_too_little_are_no_queries(summary: str) -> None:
    assert not is_query(summary, HarvestConfig())


def test_too_small_a_corpus_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HarvestError, match=r"passages found, at least 2000 needed; name more modules"):
        harvest(HarvestConfig(modules=("numpy.linalg",)), out=tmp_path)


@pytest.mark.slow
def test_the_default_corpus_never_tells_a_summary_and_counts_every_passage_of_a_held_out_one(tmp_path: Path) -> None:
    harvest(HarvestConfig(), out=tmp_path)
    corpus, queries = _lines(tmp_path / "corpus.jsonl"), _lines(tmp_path / "queries.jsonl")
    held_out = _judged(tmp_path / "qrels/test.tsv")
    assert len(corpus) >= 2000
    assert len(queries) >= 100
    assert 10 <= len(held_out) <= len(queries) - 10
    summaries: dict[str, str] = {}
    for doc, names in find_documentation(MODULES).items():
        read = read_docstring(doc)
        if read is not None and (name := next((name for name in names if name in corpus), None)):
            summaries[name] = words(read.summary)
    assert summaries.keys() == corpus.keys()
    assert [name for name, summary in summaries.items() if f" {summary} " in f" {words(corpus[name])} "] == []
    relevant = {query: sorted(n for n, s in summaries.items() if s == words(queries[query])) for query in held_out}
    assert relevant == {query: sorted(docs) for query, docs in held_out.items()}


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(HarvestConfig) == {
        "modules": (MODULES, "len>=1"),
        "passages": (2200, ">=1"),
        "train_queries": (110, ">=1"),
        "train_shared": (45, ">=0"),
        "test_queries": (110, ">=1"),
        "test_shared": (45, ">=0"),
        "min_chars": (120, ">=1"),
        "max_chars": (600, ">=1"),
        "min_words": (4, ">=1"),
        "max_words": (25, ">=1"),
        "max_sharers": (6, ">=2"),
        "seed": 0,
        "skip_shared": (0, ">=0"),
        "skip_unique": (0, ">=0"),
    }


def _documented(**sharers: int) -> dict[str, list[str]]:
    """Docstrings whose summary line so many texts share; a summary is "Do <name> for the values."."""
    return {
        f"Do {name} for the values.\n\nCase {n} of {name}.": [f"lib.{name}{n}"]
        for name, count in sharers.items()
        for n in range(count)
    }


def test_a_summary_line_of_six_texts_is_kept_and_one_of_seven_left_out() -> None:
    groups, counts = group_passages(_documented(six=6, seven=7, one=1), LITERAL)
    assert sorted(len(group) for group in groups) == [1, 6]
    expected = {"widely_shared": 7, "summaries": 2, "shared_summaries": 1, "docstrings": 14, "names": 14}
    assert {name: counts[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("unique", "shared", "train", "test"),
    [
        (20, 4, (5, 2), (5, 1)),  # enough for both splits: (queries, shared ones)
        (6, 0, (3, 0), (3, 0)),  # too few: half each
        (7, 0, (3, 0), (4, 0)),
        (9, 0, (4, 0), (5, 0)),
        (20, 1, (5, 1), (5, 0)),
    ],
)
def test_both_splits_get_their_queries_and_half_each_where_there_are_too_few(
    unique: int, shared: int, train: tuple[int, int], test: tuple[int, int]
) -> None:
    config = LITERAL.model_copy(
        update={"train_queries": 5, "train_shared": 2, "test_queries": 5, "test_shared": 1, "passages": 100}
    )
    sharers = {f"single{n}": 1 for n in range(unique)} | {f"double{n}": 2 for n in range(shared)}
    groups, _ = group_passages(_documented(**sharers), config)
    chosen = select(groups, config)
    for split, expected in ((chosen.train, train), (chosen.test, test)):
        assert (len(split), sum(len(group) > 1 for group in split)) == expected
    assert len(chosen.passages) == unique + 2 * shared


@pytest.mark.parametrize(("passages", "kept"), [(4, 6), (6, 6), (8, 8), (100, 22)])
def test_passages_fill_up_to_the_number_asked_for_and_those_of_queries_always_stay(passages: int, kept: int) -> None:
    update = {"train_queries": 2, "train_shared": 1, "test_queries": 2, "test_shared": 1, "passages": passages}
    config = LITERAL.model_copy(update=update)
    groups, _ = group_passages(_documented(two=2, pair=2, **{f"s{n}": 1 for n in range(18)}), config)
    assert len(select(groups, config).passages) == kept


def test_a_corpus_can_leave_out_all_queries_of_another_one() -> None:
    names = [f"name{n}" for n in range(12)]
    groups, _ = group_passages(_documented(**{name: 1 + n % 2 for n, name in enumerate(names)}), LITERAL)
    one = LITERAL.model_copy(update={"train_queries": 4, "train_shared": 2, "test_queries": 3, "test_shared": 1})
    other = one.model_copy(update={"skip_shared": 3, "skip_unique": 4})
    asked = [
        {group[0].summary for group in (*made.train, *made.test)} for made in (select(groups, c) for c in (one, other))
    ]
    assert [len(queries) for queries in asked] == [7, 5]
    assert asked[0].isdisjoint(asked[1])
    assert len(asked[0] | asked[1]) == 12


def test_counts_of_the_written_corpus_add_up(small: Path) -> None:
    counts = json.loads((small / "harvest.json").read_text())["counts"]
    known, test = _judged(small / "qrels/known.tsv"), _judged(small / "qrels/test.tsv")
    assert counts["known_false_negatives"] == sum(map(len, known.values()))
    assert counts["test_judgments"] == sum(map(len, test.values()))
    assert (counts["train_queries"], counts["train_shared"]) == (12, len(known))
    assert (counts["test_queries"], counts["test_shared"]) == (12, 5)


@pytest.mark.parametrize(
    ("summary", "asked"),
    [
        ("one two three", False),
        ("one two three four", True),
        (" ".join(["word"] * 25), True),
        (" ".join(["word"] * 26), False),
        ("one {two} three four", False),
        ("look at http://x.y now", False),
    ],
)
def test_a_query_has_four_to_twenty_five_words_and_no_formula(summary: str, asked: bool) -> None:
    assert is_query(summary, HarvestConfig()) is asked


def test_a_corpus_of_exactly_the_least_size_is_accepted() -> None:
    enough = {"passages": 2000, "train_queries": 50, "test_queries": 50}
    _check_counts(enough, HarvestConfig())
    for changes in ({"passages": 1999}, {"train_queries": 49}, {"train_queries": 100, "test_queries": 0}):
        with pytest.raises(HarvestError):
            _check_counts(enough | changes, HarvestConfig())
    _check_counts({"passages": 3, "train_queries": 1, "test_queries": 1}, LITERAL)


def test_letters_of_the_world_are_written_as_they_are(tmp_path: Path) -> None:
    _write_lines(tmp_path / "a.jsonl", [{"text": "é"}])
    assert (tmp_path / "a.jsonl").read_bytes() == '{"text": "é"}\n'.encode()


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(demo_corpus_module) == set()


def test_a_passage_of_exactly_the_least_length_is_kept() -> None:
    documented = {"Sum the values.\n\nFast.": ["a"]}
    assert len(group_passages(documented, LITERAL.model_copy(update={"min_chars": 5}))[0]) == 1
    assert group_passages(documented, LITERAL.model_copy(update={"min_chars": 6}))[1]["short"] == 1
