"""Keys of segments: of one file and of blocks, on a shelf and new."""

import pytest

from infra.ledger.names import SegmentName, folder_of, is_segment, shelf_of, touches

WHOLE, INDEX = "ab" * 32, "cd" * 16
OF_FILE, OF_BLOCKS = f"{WHOLE}.parquet", f"4000-52100-310-{INDEX}-{WHOLE}.blocks"


@pytest.mark.parametrize("place", ["ledger/judge/0a/", "ledger/judge/new/00-ff-", "vectors/e-passage-1/new/20-20-"])
def test_a_key_says_what_its_segment_is(place: str) -> None:
    assert is_segment(place + OF_FILE)
    assert SegmentName.parse(place + OF_FILE) == SegmentName(WHOLE)
    found = SegmentName.parse(place + OF_BLOCKS)
    assert found == SegmentName(WHOLE, 4000, 52100, 310, INDEX)
    assert found.size == 52410
    assert [str(SegmentName.parse(place + name)) for name in (OF_FILE, OF_BLOCKS)] == [OF_FILE, OF_BLOCKS]


@pytest.mark.parametrize(
    "key",
    [
        f"ledger/judge/0a/1-2-3-{WHOLE}.blocks",
        f"ledger/judge/0a/{OF_BLOCKS}.tmp",
        f"labels/judge/0a/{OF_FILE}",
        f"ledger/judge/{OF_FILE}",
        f"ledger/judge/new/{OF_BLOCKS}",
        f"forgotten/000001/ledger/judge/0a/{OF_FILE}",
    ],
)
def test_other_keys_are_no_segments(key: str) -> None:
    assert not is_segment(key)
    assert not touches(key, {"0a"})
    with pytest.raises(ValueError, match="is no segment"):
        SegmentName.parse(key)


def test_a_new_segment_of_blocks_is_read_where_its_range_holds_a_shelf() -> None:
    assert touches(f"ledger/j/new/20-40-{OF_BLOCKS}", {"11", "33"})
    assert not touches(f"ledger/j/new/20-40-{OF_BLOCKS}", {"11", "41"})
    assert touches(f"ledger/j/33/{OF_BLOCKS}", {"33"})


def test_folders_are_named_after_judges_or_encoders_and_shelves_after_subjects() -> None:
    assert (folder_of("j"), folder_of("e-query-1", "vectors"), shelf_of("0abc")) == (
        "ledger/j",
        "vectors/e-query-1",
        "0a",
    )
    with pytest.raises(ValueError, match="is no name of a folder"):
        folder_of("a/b", "vectors")
    with pytest.raises(ValueError, match="is no hash"):
        shelf_of("0")
