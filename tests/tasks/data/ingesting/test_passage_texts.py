"""Texts on disk are hashed and cut into parts."""

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.ingesting.passage_texts import cut_into_parts, hash_shown_texts, normalise_all
from tasks.data.ingesting.text_store import hash_titled, part_of_hashes, to_hex
from tasks.data.on_disk.scratch import Scratch, Spill
from tasks.texts import hash_guard, hash_passage, hash_shown, normalise

_TEXTS = [("", "One"), ("A  Title", "é two"), ("t", "three"), ("", "four"), ("", "five")]


def _spill(scratch: Scratch) -> Spill:
    spill = Spill(scratch, "texts")
    for start in (0, 2):
        spill.append(pl.DataFrame(_TEXTS[start : start + 2], schema=["title", "text"], orient="row"))
    spill.append(pl.DataFrame(_TEXTS[4:], schema=["title", "text"], orient="row"))
    return spill


def test_what_is_shown_of_named_passages_is_hashed_in_the_order_of_their_numbers() -> None:
    named = pl.DataFrame({"number": [3, 8], "place": [4, 1]}, schema={"number": pl.UInt32, "place": pl.UInt32})
    found = hash_shown_texts(_spill(Scratch()), named)
    assert found["passage"].to_list() == [3, 8]
    for name, hashed in (("shown", hash_shown), ("guard", hash_guard)):
        digits = to_hex(found[f"{name}_high"].to_numpy(), found[f"{name}_low"].to_numpy())
        assert digits.to_list() == [hashed(*_TEXTS[4]), hashed(*_TEXTS[1])]


@given(st.lists(st.text() | st.text(st.characters(max_codepoint=130))))
@example(["An  EGG ", " Egg", "egg\n", "\x7f", "Straße İ ﬁ", "", "a\tb", "~ Z"])
def test_texts_are_normalised_together_as_each_alone(texts: list[str]) -> None:
    assert normalise_all(pl.Series(texts, dtype=pl.String)).to_list() == [normalise(text) for text in texts]


def test_each_part_holds_its_passages_sorted_whatever_the_number_of_files() -> None:
    high, low = hash_titled(pl.DataFrame(_TEXTS, schema=["title", "text"], orient="row"))
    for count in (1, 2, 7, 200):
        scratch = Scratch()
        passages = pl.DataFrame(
            {"dataset": ["d"] * 5, "id": ["e", "d", "c", "b", "a"], "high": high, "low": low, "place": range(5)},
            schema_overrides={"dataset": pl.Categorical, "place": pl.UInt32},
        ).with_columns(part=pl.Series(part_of_hashes(high, low, count)))
        parts = list(cut_into_parts(_spill(scratch), passages[1:], count, scratch))
        assert len(parts) == count
        for number, part in enumerate(parts):
            assert dict(part.schema) == schemas.PASSAGES.columns
            assert part.equals(part.sort("dataset", "doc_id"))
            assert all(int(digits, 16) % count == number for digits in part["text_hash"])
        rows = pl.concat(parts).sort("doc_id").select("doc_id", "title", "text", "text_hash").rows()
        assert rows == [
            (doc_id, *_TEXTS[place], hash_passage(*_TEXTS[place]))
            for doc_id, place in (("a", 4), ("b", 3), ("c", 2), ("d", 1))
        ]
        assert not list(scratch.path.iterdir())
