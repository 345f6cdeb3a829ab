"""Over data of every awkward kind: nothing vanishes, nothing comes twice, nothing is on both sides."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.ingest import IngestError
from tasks.schemas import TREATMENTS
from tasks.texts import clean, hash_guard, hash_shown, hash_text
from tests.tasks.data.inputs import write_lines
from tests.trips.data import IDS, RAW, quick
from tests.trips.method import Tables, find_candidates, take_in, treated

_QUERY = ["dataset", "query_id"]
# Values that rows really hold now and then.
LOOSE = RAW | st.none() | st.integers(-1, 3) | st.just(7.0) | st.booleans() | st.just([])
FEW_TEXTS = ("egg", "Egg", " egg ", "put it in water", "Put it  in water", "a bus", "tram 🙂", "what is a tram")
DOC_IDS, QUERY_IDS = ("1", "2", "a b", 'x"', "é", "3", "4"), ("q1", "q2", "q 3", "q/4")


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw something else in one of twelve cases."""
    return st.integers(0, 11).flatmap(lambda n: good if n else LOOSE)


def passages(doc_ids: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Draw a passage; where its id decides its text, rows do not contradict each other."""
    texts = st.sampled_from(FEW_TEXTS)
    return st.fixed_dictionaries(
        {"docid": mostly(doc_ids), "text": mostly(texts)},
        optional={"title": mostly(st.sampled_from(["", "Egg", "egg"]))},
    )


FREE_IDS = st.builds("{}-{}".format, st.sampled_from(DOC_IDS), st.integers(0, 99))
PASSAGE = mostly(passages(st.sampled_from(DOC_IDS)) | passages(FREE_IDS))
ROW = st.fixed_dictionaries(
    {
        "query_id": mostly(st.sampled_from(QUERY_IDS) | FREE_IDS),
        "query": mostly(st.sampled_from(FEW_TEXTS) | RAW),
        "positive_passages": mostly(st.lists(PASSAGE, min_size=1, max_size=3)),
        "negative_passages": mostly(st.lists(PASSAGE, max_size=4)),
    },
    optional={"subset": mostly(st.sampled_from(["d", "e"]))},
)
LINES = st.lists(ROW, min_size=1, max_size=8) | st.lists(ROW | RAW | st.just("{"), min_size=1, max_size=8)
STATES = st.lists(st.sampled_from(["relevant", "not_relevant", "unsure", "unparsed"]), min_size=1, max_size=7)


def lines_of(rows: Sequence[Any]) -> list[str]:
    """Give rows as lines of a file; a text is a line itself."""
    return [row.replace("\n", " ") if isinstance(row, str) else json.dumps(row) for row in rows]


def read(rows: Sequence[Any], **config: object) -> Tables | None:
    """Ingest rows; None where nothing is left, which the error must say with its reasons."""
    with tempfile.TemporaryDirectory(prefix="reneg-trip-") as folder:
        write_lines(Path(folder) / "x.jsonl", *lines_of(rows))
        try:
            return take_in(Path(folder), **config)
        except IngestError as error:
            assert "no usable query is left" in str(error) or "no row of a known format" in str(error)
            return None


@given(LINES)
@quick
def test_each_row_is_kept_or_its_line_is_among_the_rejects(rows: list[Any]) -> None:
    data = read(rows)
    if data is None:
        return
    named = {key.rpartition(":")[2] for key in data["rejects"]["key"]}
    asked: Counter[tuple[str, str]] = Counter()
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            assert not row.strip() or str(number) in named
            continue
        dataset, query_id, query = (_as_text(row.get(name)) for name in ("subset", "query_id", "query"))
        query_id = query_id or hash_text(query)  # a query without an id has its text's hash for one
        kept = data["queries"].filter(dataset=dataset or "d", query_id=query_id, text=query).height
        asked[dataset, query_id] += kept
        assert kept or str(number) in named
        if kept and str(number) not in named:
            _each_passage_is_there(row, data, dataset or "d", query_id)
    assert data["queries"].height == len([pair for pair, count in asked.items() if count])
    assert not data["queries"].select("dataset", "text_hash").is_duplicated().any()


def _as_text(value: object) -> str:
    """Read a value of a row as ingest does where it takes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return clean(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _each_passage_is_there(row: Mapping[str, Any], data: Tables, dataset: str, query_id: str) -> None:
    """Check a row without any reject: all of its passages are pairs of its query, on their side."""
    passages = data["passages"].select("dataset", "doc_id", "title", "text")
    for side, table in (("positive_passages", "positives"), ("negative_passages", "given")):
        found = data[table].filter(dataset=dataset, query_id=query_id).join(passages, on=["dataset", "doc_id"])
        there = {hash_shown(title, text) for title, text in found.select("title", "text").iter_rows()}
        listed = row[side] if isinstance(row[side], list) else []
        wanted = {hash_shown(_as_text(p.get("title")), _as_text(p["text"])) for p in listed if isinstance(p, dict)}
        assert wanted <= there


@given(LINES, STATES)
@settings(quick, max_examples=15)
def test_no_passage_is_on_both_sides_of_a_query_and_no_query_comes_twice(rows: list[Any], states: list[str]) -> None:
    data = read(rows)
    if data is not None:
        _check_every_treatment(data, states)


def _check_every_treatment(data: Tables, states: Sequence[str]) -> None:
    found = find_candidates(data)
    texts = {(d, i): (t, x) for d, i, t, x in data["passages"].select("dataset", "doc_id", "title", "text").iter_rows()}
    asked = {(d, q): t for d, q, t in data["queries"].select(*_QUERY, "text").iter_rows()}
    train = data["queries"].filter(pl.col("split") == "train").select(_QUERY)
    for treatment in TREATMENTS:
        made = treated(data, found, dict(enumerate(states)), treatment=treatment)
        assert not made["instances"].select(_QUERY).is_duplicated().any()
        out = made["rejects"]["key"].to_list()
        for dataset, query_id in train.join(made["instances"], on=_QUERY, how="anti").iter_rows():
            assert f"{dataset}/{query_id}" in out
        for row in made["instances"].iter_rows(named=True):
            sides = [[texts[row["dataset"], doc_id] for doc_id in row[side]] for side in ("positives", "negatives")]
            assert sides[0]
            positives, negatives = ({hash_guard(*text) for text in side} for side in sides)
            assert not positives & negatives
            assert len({hash_shown(*text) for text in sides[1]}) == len(sides[1])
            own = hash_guard("", asked[row["dataset"], row["query_id"]])
            assert own not in negatives


@st.composite
def collections(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a BEIR collection whose judgements, grades from 0 to 2, may contradict each other."""
    docs = draw(st.lists(IDS, min_size=3, max_size=8, unique=True))
    queries = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    grade = st.tuples(st.sampled_from(queries), st.sampled_from(docs), st.integers(-1, 2))
    return {
        "documents": {doc_id: draw(st.sampled_from(FEW_TEXTS) | RAW) for doc_id in docs},
        "queries": {query_id: draw(RAW) for query_id in queries},
        "judged": draw(st.lists(grade, min_size=1, max_size=12)),
    }


@given(collections(), STATES)
@settings(quick, max_examples=15)
def test_what_people_called_irrelevant_is_never_promoted(made: dict[str, Any], states: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="reneg-trip-") as folder:
        place = Path(folder)
        for name, key in (("corpus", "documents"), ("queries", "queries")):
            write_lines(place / f"{name}.jsonl", *({"_id": key_, "text": text} for key_, text in made[key].items()))
        write_lines(place / "qrels" / "train.tsv", *("\t".join(map(str, row)) for row in made["judged"]))
        try:
            data = take_in(place, test_split=None)
        except IngestError:
            return
    asked, texts = ({key: clean(text) for key, text in made[name].items()} for name in ("queries", "documents"))
    said = [(asked[query_id], texts[doc_id], grade) for query_id, doc_id, grade in made["judged"]]
    liked = {(query, text) for query, text, grade in said if grade > 0}
    refused = {(query, text) for query, text, grade in said if grade <= 0 and text} - liked
    kept = dict(data["queries"].select("query_id", "text").iter_rows())
    known = data["irrelevant"].select("query_id", "doc_id").iter_rows()
    assert {(kept[query_id], texts[doc_id]) for query_id, doc_id in known} == {
        p for p in refused if p[0] in kept.values()
    }
    found = find_candidates(data)
    for treatment in TREATMENTS:
        instances = treated(data, found, dict(enumerate(states)), treatment=treatment)["instances"]
        for query_id, positives in instances.select("query_id", "positives").iter_rows():
            assert not {(kept[query_id], texts[doc_id]) for doc_id in positives} & refused
    _check_every_treatment(data, states)
