"""Words: any script, and the endings of a language where one is named."""

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.mining.bm25.words import WordsConfig, count_words, hash_term
from tests.tasks.settings import settings_of


def _counted(text: str, *words: str, language: str = "any") -> list[int]:
    """How often each word stands in a text; its words are these and no others."""
    found = count_words(pl.Series([text]), WordsConfig.model_validate({"language": language}))
    counts = dict(found.select("term", "count").iter_rows())
    assert set(counts) == {hash_term(word) for word in words}
    return [counts[hash_term(word)] for word in words]


def test_words_are_counted_without_case_and_signs() -> None:
    assert _counted("The heron, the HERON: x_1 it's!", "the", "heron", "x", "1", "it", "s") == [2, 2, 1, 1, 1, 1]


def test_marks_belong_to_the_word_that_they_stand_in() -> None:
    """Python's `\\w` ends the word at each vowel sign."""
    assert _counted("हिन्दी भाषा", "हिन्दी", "भाषा") == [1, 1]
    assert _counted("Cafe\u0301", "café") == [1]  # one form of Unicode


def test_scripts_without_spaces_give_pairs_of_characters() -> None:
    assert _counted("東京都 2024年", "東京", "京都", "2024", "年") == [1, 1, 1, 1]
    assert _counted("ラーメン", "ラー", "ーメ", "メン") == [1, 1, 1]
    assert _counted("สวัส", "สว", "วั", "ัส") == [1, 1, 1]


def test_a_language_cuts_endings_and_drops_words_that_say_nothing() -> None:
    assert _counted("The herons were running", "heron", "were", "run", language="english") == [1, 1, 1]
    assert _counted("Die Häuser und das Haus", "haus", language="german") == [2]
    assert _counted("talossa ja talo", "talo", "ja", language="finnish") == [2, 1]  # bm25s has no list for Finnish


def test_texts_without_words_have_no_line_and_rows_keep_their_number() -> None:
    found = count_words(pl.Series(["", "!?", "heron"]), WordsConfig())
    assert found.rows() == [(2, hash_term("heron"), 1)]
    empty = count_words(pl.Series([], dtype=pl.String), WordsConfig())
    assert empty.schema == found.schema
    assert empty.is_empty()


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'any', 'arabic'"):
        WordsConfig.model_validate({"language": "klingon"})


def test_the_hash_of_a_word_stays_as_it_is_because_stored_indexes_hold_it() -> None:
    assert hash_term("heron") == 0x4BC2D548CEB37A6D


def test_the_default_decides_stage_keys_and_stays_as_it_is() -> None:
    assert settings_of(WordsConfig)["language"] == "any"
