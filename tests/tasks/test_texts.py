"""What counts as the same text, and in what form a text is stored and shown."""

import hashlib
import unicodedata

import numpy as np
import pytest

from tasks.texts import clean, combine_hashes, hash_passage, hash_shown, hash_text, normalise, part_of, show_passage


def test_a_hash_is_the_first_half_of_sha_256_in_hexadecimal() -> None:
    assert hash_text("bread") == hashlib.sha256(b"bread").hexdigest()[:32]
    assert len(hash_text("ünï")) == 32


def test_title_and_text_cannot_run_into_each_other() -> None:
    assert hash_passage("a", "b c") != hash_passage("a b", "c")
    assert hash_passage("", "bread") != hash_text("bread")


def test_several_hashes_are_combined_in_their_order() -> None:
    assert combine_hashes(["a", "b"]) == combine_hashes(iter(["a", "b"]))
    assert combine_hashes(["a", "b"]) != combine_hashes(["b", "a"])
    assert combine_hashes(["a", "b"]) != combine_hashes(["ab"])


def test_a_texts_part_depends_on_its_hash_and_the_number_of_parts_alone() -> None:
    assert [part_of(hash_, 3) for hash_ in ("0", "4", "ff")] == [0, 1, 0]
    assert {part_of(hash_text(str(n)), 4) for n in range(100)} == {0, 1, 2, 3}


def test_a_title_stands_before_its_text_where_there_is_one() -> None:
    assert show_passage("Bread", "is baked.") == "Bread is baked."
    assert show_passage("", "is baked.") == "is baked."


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  plain ünï 東京  ", "plain ünï 東京"),
        ("tab\tand\nline\r\nstay", "tab\tand\nline\r\nstay"),
        ("a\x00b\x0bc\x1fd\x7fe\x85f", "a b c d e f"),
        ("half \ud800 of a pair", "half   of a pair"),
        ("\x1f\x00", ""),
        ("zero\u200bwidth", "zero\u200bwidth"),
    ],
)
def test_control_characters_become_spaces_and_the_ends_are_stripped(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_a_title_alone_is_shown_as_a_text_alone_would_be() -> None:
    assert hash_shown("Bread", "") == hash_shown("", "Bread")
    assert hash_shown("Bread", "is baked") == hash_shown("", "Bread is baked")


def test_the_short_way_of_normalising_gives_what_the_long_one_does() -> None:
    rng = np.random.default_rng(0)
    every = [chr(code) for code in range(128)] + ["\x85", "\xa0", "\u3000", "É", "ß", "ﬁ", "\u0301"]
    pairs = [first + second for first in every for second in every]
    drawn = ["".join(rng.choice([*every, *"aB c" * 40], 12)) for _ in range(2_000)]
    for text in (*pairs, *(f"Two {pair} Words" for pair in pairs), *drawn, ""):
        long = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        assert normalise(text) == long, repr(text)
