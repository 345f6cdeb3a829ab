"""A curation that lost too much of its source stops before it encodes anything, whether or not ingest is reused."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.curation.lookup import Job, look
from flows.method.curate import curate_method
from flows.method.losses import left_out_of
from flows.method.setup import TooManyRejected
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.flows.animals import make_setup
from tests.flows.fakes import InProcess


def write_rows(folder: Path, good: int, bad: int, **more: Any) -> Path:
    folder.mkdir()
    rows = [
        {"query": f"where does animal {n} live", "pos": [f"In {n}."], "neg": [f"Not {n}."]} | more for n in range(good)
    ]
    lines = [*map(json.dumps, rows), *(["{broken"] * bad)]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def walk(tmp_path: Path, source: Path, **ingest: Any) -> tuple[Runner, InProcess]:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor)
    curate_method(run, make_setup(store, source, ingest=ingest, tiers=[]))
    return run, executor


def test_a_source_of_which_most_is_lost_stops_after_ingest_and_names_reasons_examples_and_the_remedy(
    tmp_path: Path,
) -> None:
    source = write_rows(tmp_path / "source", 6, 4)
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    setup = make_setup(store, source, ingest={}, tiers=[])
    for computed in (["ingest-00000"], ["ingest-00000"]):  # the second time ingest is reused
        with pytest.raises(TooManyRejected) as stopped:
            curate_method(Runner(store, executor), setup)
        assert executor.computed == computed
    assert str(stopped.value).splitlines() == [
        "ingest left out 4 of 10 rows: broken_json 4. 40% is more than ingest.max_rejected allows (20%), so the run "
        "stops before it computes anything else.",
        "  broken_json 4: The line is not JSON.",
        *(f"    rows.jsonl:{n}: Expecting property name enclosed in double quotes at column 2" for n in (7, 8, 9)),
        "Mend the source, or go on without this: set `ingest: {max_rejected: 0.4}` in the configuration (without "
        "--strict), and run the same command again.",
    ]
    assert look(store, setup)[0] is None
    with pytest.raises(TooManyRejected):
        look(store, setup, Job(), wait=True)


def test_the_limit_is_no_part_of_a_key_and_the_remedy_works(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "source", 6, 4)
    with pytest.raises(TooManyRejected):
        walk(tmp_path, source)
    run, executor = walk(tmp_path, source, max_rejected=0.4)
    assert "ingest-00000" not in executor.computed
    left = left_out_of(run.store, run.runs)
    assert left is not None
    assert (left.rows_read, left.lost, left.by_reason) == (10, 4, {"broken_json": 4})


def test_nothing_may_be_lost_where_the_limit_is_zero_not_even_a_score(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "source", 6, 0, neg_scores=[1, 2])
    walk(tmp_path, source)
    with pytest.raises(TooManyRejected, match=r"bad_scores 6. This is too much where nothing may be lost"):
        walk(tmp_path, source, max_rejected=0)


def test_a_file_that_ends_early_stops_a_run_unless_everything_is_allowed(tmp_path: Path) -> None:
    import gzip

    source = write_rows(tmp_path / "source", 200, 0)
    packed = gzip.compress((source / "rows.jsonl").read_bytes())
    (source / "rows.jsonl").unlink()
    (source / "rows.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TooManyRejected, match=r"broken_gzip 1(.|\n)*max_rejected: 1\}"):
        walk(tmp_path, source, max_rejected=0.9)
    walk(tmp_path, source, max_rejected=1)
