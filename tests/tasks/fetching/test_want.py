"""What query parts want: each passage once, asked of the part that its hash names in each generation."""

import polars as pl
import pytest

from tasks import schemas
from tasks.fetching.want import WANTED, WantConfig, want, want_labelled, want_training
from tasks.texts import hash_text, part_of

HASHES = {name: hash_text(name) for name in "abcdefghij"}


def candidates(*pairs: tuple[str, str], part: int = 3, dataset: str = "d") -> pl.DataFrame:
    rows = [(dataset, query, doc, HASHES[doc], "qh", "ph", "dense", 1, 0.5) for query, doc in pairs]
    frame = pl.DataFrame(rows, schema=schemas.CANDIDATES.columns, orient="row")
    return frame.with_columns(part=pl.lit(part, pl.Int32))


def labelled(*pairs: tuple[str, str], schema: schemas.Schema = schemas.POSITIVES) -> pl.DataFrame:
    last = "label" if schema is schemas.POSITIVES else 1
    rows = [("d", query, doc, HASHES[doc], "s", "g", last) for query, doc in pairs]
    return pl.DataFrame(rows, schema=schema.columns, orient="row")


def test_each_passage_is_asked_once_of_the_part_that_its_text_names() -> None:
    pairs = [("q1", doc) for doc in "abcdefg"] + [("q2", "a"), ("q2", "h")]
    made = want(WantConfig(generations=((0, 4),)), candidates=candidates(*pairs), positives=labelled(("q1", "i")))
    sent = list(made["wanted"])
    assert [part for part, _ in sent] == sorted({part_of(HASHES[doc], 4) for doc in "abcdefghi"})
    for part, frame in sent:
        assert dict(frame.schema) == WANTED.columns
        assert {part_of(text_hash, 4) for text_hash in frame["text_hash"]} == {part}
        assert set(frame["part"]) == {3}
        assert frame.equals(frame.sort(WANTED.key))
    assert sorted(doc for _, frame in sent for doc in frame["doc_id"]) == list("abcdefghi")
    assert made["facts"] == {"wanted": 9}


def test_positives_of_queries_without_candidates_are_not_wanted() -> None:
    made = want(
        WantConfig(generations=((0, 1),)),
        candidates=candidates(("q1", "a")),
        positives=labelled(("q1", "b"), ("q9", "c")),
    )
    ((_, frame),) = made["wanted"]
    assert frame["doc_id"].to_list() == ["a", "b"]


def test_every_generation_is_asked_because_the_hash_does_not_say_which_one_holds_a_text() -> None:
    made = want(
        WantConfig(generations=((0, 3), (3, 2))), candidates=candidates(("q1", "a"), ("q1", "b")), positives=labelled()
    )
    sent = {part: frame["doc_id"].to_list() for part, frame in made["wanted"]}
    for doc in "ab":
        assert doc in sent[part_of(HASHES[doc], 3)]
        assert doc in sent[3 + part_of(HASHES[doc], 2)]
    assert sum(map(len, sent.values())) == 4
    assert made["facts"] == {"wanted": 2}


def test_the_same_id_in_two_datasets_is_two_passages() -> None:
    both = pl.concat([candidates(("q1", "a")), candidates(("q1", "a"), dataset="e")])
    made = want(WantConfig(generations=((0, 1),)), candidates=both, positives=labelled())
    ((_, frame),) = made["wanted"]
    assert frame["dataset"].to_list() == ["d", "e"]


@pytest.mark.parametrize("generations", [(), ((0, 3),)])
def test_a_part_without_candidates_wants_nothing(generations: tuple[tuple[int, int], ...]) -> None:
    made = want(WantConfig(generations=generations), candidates=candidates(), positives=labelled(("q1", "a")))
    assert (list(made["wanted"]), made["facts"]) == ([], {"wanted": 0})


def test_a_training_set_wants_the_positives_of_training_queries_without_candidates_too() -> None:
    queries = pl.DataFrame(
        [
            ("d", "q1", "text", "h", "train", 5),
            ("d", "q2", "text", "h", "test", 5),
            ("d", "q3", "text", "h", "train", 5),
        ],
        schema={**schemas.QUERIES.columns, "part": pl.Int32},
        orient="row",
    )
    made = want_training(
        WantConfig(generations=((0, 1),)),
        queries=queries,
        candidates=candidates(("q1", "a")).drop("part"),
        positives=labelled(("q1", "b"), ("q2", "c"), ("q3", "d")),
    )
    ((part, frame),) = made["wanted"]
    assert (part, frame["doc_id"].to_list(), set(frame["part"])) == (0, ["a", "b", "d"], {5})
    assert frame["text_hash"].to_list() == [HASHES[doc] for doc in "abd"]


def test_what_people_labelled_is_wanted_for_training_queries_only() -> None:
    queries = pl.DataFrame(
        [("d", "q1", "text", "h", "train", 5), ("d", "q2", "text", "h", "test", 5)],
        schema={**schemas.QUERIES.columns, "part": pl.Int32},
        orient="row",
    )
    made = want_labelled(
        WantConfig(generations=((0, 1),)),
        queries=queries,
        positives=labelled(("q1", "a"), ("q2", "b")),
        irrelevant=labelled(("q1", "c"), schema=schemas.IRRELEVANT),
    )
    ((part, frame),) = made["wanted"]
    assert (part, frame["doc_id"].to_list(), set(frame["part"])) == (0, ["a", "c"], {5})
