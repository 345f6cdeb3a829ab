"""What the parts of a real curation read and made, by the benchmark's walk over its store."""

from pathlib import Path

from benchmarks.paper_size_parts import below, growth_shares, parts_of, read_over_input
from tests.flows.animals import write_source
from tests.flows.nightly import Nights


def test_the_walk_finds_every_part_with_all_that_it_was_given(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    done = nights.curate(write_source(tmp_path / "source", 6))
    parts = parts_of(tmp_path, "animals")
    assert len(parts) == sum(run.parts for run in done.runs)
    assert {part.stage for part in parts} == {run.name for run in done.runs}
    judged = next(part for part in parts if part.stage == "judge-llm" and part.rows)
    assert set(judged.pieces) == {"escalated", "queries", "passages", "positives"}  # also those that no key names
    for stage, ratio in read_over_input(parts).items():
        least = 0.7 if stage == "search" else 0.9  # which reads texts only where a passage has the id of a query
        most = 2.0 if stage == "encode_passages" else 1.2  # which also reads what is remembered
        assert least < ratio < most, stage  # equal pieces count once
    assert sum(part.encoded for part in parts) > 0
    decided = [part for part in below(judged, parts) if part.stage == "decide"]
    assert [part.index for part in decided] == [judged.index]


def test_growth_leaves_most_of_a_curation_as_it_was_and_an_unchanged_one_changes_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.curate(write_source(tmp_path / "source-1", 5))
    before = parts_of(tmp_path, "animals")
    assert set(growth_shares(before, parts_of(tmp_path, "animals")).values()) == {0.0}
    nights.curate(write_source(tmp_path / "source-2", 6))
    shares = growth_shares(before, parts_of(tmp_path, "animals"))
    assert 0 < shares["redone_share"] < 1
    assert 0 < shares["parts_share"] < 1
    assert shares["encoded_share"] < 0.5
