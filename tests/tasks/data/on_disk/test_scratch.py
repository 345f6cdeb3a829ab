"""Tables on disk: what is appended comes back in order, and nothing stays behind."""

import gc

import polars as pl

from tasks.data.on_disk.scratch import Scratch, Spill


def _frame(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"n": numbers, "text": [f"text {n}" for n in numbers]}, schema={"n": pl.Int64, "text": pl.String}
    )


def test_frames_come_back_in_order_also_when_more_is_appended_after_reading() -> None:
    spill = Spill(Scratch(), "some")
    for frame in (_frame(1, 2), _frame(), _frame(3)):
        spill.append(frame)
    assert pl.concat(spill.frames()).equals(_frame(1, 2, 3))
    spill.append(_frame(4))
    assert pl.concat(spill.frames()).equals(_frame(1, 2, 3, 4))
    assert spill.rows == 4


def test_of_a_filtered_frame_only_its_own_texts_are_written() -> None:
    scratch = Scratch()
    long = pl.DataFrame({"text": [f"{n} " + "x" * 1000 for n in range(1000)]})
    Spill(scratch, "one").append(long[::100])
    assert sum(path.stat().st_size for path in scratch.path.iterdir()) < 20_000


def test_the_files_go_with_the_last_table_and_can_be_removed_before() -> None:
    scratch = Scratch()
    folder, spill = scratch.path, Spill(scratch, "some")
    assert folder.stat().st_mode & 0o077 == 0
    spill.append(_frame(1))
    del scratch
    gc.collect()
    assert list(spill.frames())
    spill.remove()
    assert not list(folder.iterdir())
    assert not list(spill.frames())
    del spill
    gc.collect()
    assert not folder.exists()
