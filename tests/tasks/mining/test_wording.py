"""What the words of a candidate have in common with those of its query and positives."""

import polars as pl
import pytest

from tasks.mining.wording import compare_words, missed_words, shared_triples, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Get the FIRST n rows.", ["get", "the", "first", "n", "rows"]),
        ("max_pool2d(x)", ["max_pool2d", "x"]),
        ("Straße ÉTÉ", ["strasse", "été"]),
        ("前n行を返す rows行", ["前", "n", "行", "を", "返", "す", "rows", "行"]),
        ("ตัว x", ["ต", "ั", "ว", "x"]),
        ("… – ?", []),
    ],
)
def test_a_text_is_split_into_words_and_without_spaces_into_characters(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_word_of_the_query_is_missed_only_where_a_positive_has_it() -> None:
    assert missed_words("pool in 2d", "it pools 1d", ["a pool in 3d"]) == pytest.approx(2 / 3)
    assert missed_words("pool in 2d", "it pools 1d", ["something else"]) == 0.0
    assert missed_words("pool in 2d", "it pools 1d", ["some pool", "2d"]) == pytest.approx(2 / 3)
    assert missed_words("pool in 2d", "a 2D pool", ["the pool, 2d"]) == 0.0
    assert missed_words("?", "x", ["y"]) == 0.0


def test_triples_are_words_in_a_row_and_short_texts_are_one_unit() -> None:
    assert shared_triples("a b c d", "x b c d") == pytest.approx(1 / 3)
    assert shared_triples("a b c d", "d c b a") == 0.0
    assert shared_triples("a b", "A  b.") == 1.0
    assert shared_triples("", "!") == 0.0


def test_each_pair_gets_the_nearest_of_its_positives_in_the_order_of_the_pairs() -> None:
    pairs = pl.DataFrame(
        {
            "dataset": ["d", "d"],
            "query_id": ["q", "q"],
            "doc_id": ["z", "a"],
            "query": ["one two", "one two"],
            "passage": ["one x y z", "one two three"],
            "positives": [["two p q", "x y z"], ["two p q", "one two three"]],
        }
    )
    found = compare_words(pairs)
    assert found.rows() == [("d", "q", "z", 0.5, 0.5), ("d", "q", "a", 0.0, 1.0)]
    assert compare_words(pairs.head(0)).schema == found.schema
