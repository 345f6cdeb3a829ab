"""Commands that look after the store: gc, purge, ledger."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli.store_commands import show_collected
from flows.config.section import ConfigError
from tests.flows.cli.conftest import Shell

COLLECTED: dict[str, Any] = {
    "curations": ["nq-000001"], "releases": [], "parts": 1234, "objects": 5, "bytes": 2_500_000, "deleted": 3,
    "deleted_bytes": 1_000_000, "put_back": 0,
    "forgotten": 0, "vectors": 0, "kept": {"nq-000002": "unfinished", "nq-000003": "among the newest"},
    "missing": [], "removed": False, "why": {"nq-000001": "unfinished, last at work 100 days ago"},
}  # fmt: skip


def collected(grace: float = 24.0, **changes: Any) -> list[str]:
    out = io.StringIO()
    show_collected({**COLLECTED, **changes}, grace, Console(file=out, width=160))
    return out.getvalue().splitlines()


def test_what_would_be_removed_is_counted_and_named() -> None:
    lines = collected()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [
        ["curations", "1"], ["releases", "0"], ["finished parts", "1,234"], ["objects", "5"],
        ["MB, to the trash", "2.5"], ["deleted from the trash", "3"], ["MB, for good", "1.0"],
        ["restored from the trash", "0"], ["vectors of unused encoders, for good: segments", "0"],
        ["forgotten answers and parts, for good", "0"],
    ]  # fmt: skip
    assert lines[-3:] == [
        "  nq-000001: unfinished, last at work 100 days ago",
        "kept because unfinished: nq-000002; remove one with --drop",
        "Nothing was removed. Give --yes to remove it; curations may run meanwhile.",
    ]


def test_after_a_removal_it_says_when_the_room_is_free() -> None:
    freed = "The next `reneg gc --yes` that begins 24 hours from now frees what is in the trash."
    assert collected(removed=True)[-1] == freed
    assert freed not in collected(removed=True, bytes=0)
    assert not any("frees what" in line for line in collected(0.0, removed=True))
    missing = "missing objects of kept parts; run those parts again: parts/mine/x"
    assert missing in collected(missing=["parts/mine/x"], kept={})


def test_gc_keeps_a_fresh_curation_and_says_so_for_scripts(finished: Shell) -> None:
    done = finished.json("gc")
    assert (done["curations"], done["removed"]) == ([], False)
    assert list(done["kept"]) == ["animals-000001"]
    dropped = finished.json("gc", "--drop", "animals-000001", "--grace", "0", "--yes")
    assert dropped["removed"] is True
    assert "would be removed" in finished.run("gc", "--days", "0", "--keep-curations", "1")


def test_a_text_is_purged_after_it_was_shown_what_goes(finished: Shell) -> None:
    said = finished.run("purge", "--doc", "animals/otter-river")
    assert "would be removed" in said
    assert "Nothing was removed. Stop curations in this store, then give --yes." in said
    assert "corpus.jsonl yourself, or the next curation brings it back" in said
    found = finished.json("purge", "--doc", "animals/otter-river")
    done = finished.json("purge", "--doc", "animals/otter-river", "--yes")
    assert done == found | {"removed": True}
    assert found["ledger_rows"] > 0
    after = finished.run("purge", "--hash", found["hashes"][0])
    assert "Nothing in the store, the ledger or the files holds it." in after
    with pytest.raises(ConfigError, match="hash and doc came"):
        finished.run("purge", "--hash", found["hashes"][0], "--doc", "animals/otter-river")


def test_the_ledger_is_counted_and_its_segments_merged(finished: Shell, tmp_path: Path) -> None:
    (row,) = finished.json("ledger")
    assert row["rows"] > 0
    said = finished.run("ledger", "--compact")
    assert f"{row['judge']}: {row['segments']} segments merged into " in said or row["segments"] == 1
    assert finished.json("ledger")[0]["rows"] == row["rows"]


def test_an_empty_ledger_says_so(shell: Shell) -> None:
    assert "nothing is remembered in" in shell.run("ledger")
    assert shell.json("ledger") == []


def test_answers_are_forgotten_after_it_was_shown_which_and_put_back(finished: Shell) -> None:
    (row,) = finished.json("ledger")
    said = finished.run("ledger", "forget", "--judge", row["judge"])
    assert "would be forgotten" in said
    assert "run again: animals-000001" in said
    assert "Nothing was forgotten. Stop curations in this store, then give --yes." in said
    later = finished.json("ledger", "forget", "--judge", row["judge"], "--since", "2999-01-01")
    assert (later["rows"], later["parts"]) == (0, [])
    done = finished.json("ledger", "forget", "--judge", row["judge"], "--yes")
    assert (done["rows"], done["number"]) == (row["rows"], "000001")
    assert finished.json("ledger") == []
    assert "forgetting 000001: judge" in finished.run("ledger", "forget", "--undo", 1)
    assert "put back: " in finished.run("ledger", "forget", "--undo", 1, "--yes")
    assert finished.json("ledger") == [row]
    assert "give --judge" in finished.run("ledger", "forget", code=2)
